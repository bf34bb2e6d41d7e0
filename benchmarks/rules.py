"""Rules of steps, step sizes, numbers of steps and starts: the cosine that is reached, and CPU seconds a key.

    TAGGANT_DATA=… python benchmarks/rules.py --model small_cnn

The cosine is that of the stored steps on the un-augmented signing images, mean over keys 4 to 8 of benchmarks/signing.py, whose
surrogate it trains again.
"""

import argparse
import os
import time
import warnings
from statistics import mean
from typing import Any

import torch
from common import write_figures
from problems import cifar_problem

from taggant_lightning.methods.taggants.crafting.crafting import craft_key

KEYS = range(4, 9)
VARIANTS: list[dict[str, Any]] = [
    *({"lr": lr, "steps": steps} for steps in (30, 60, 100) for lr in (0.5, 1.0, 2.0, 4.0, 8.0)),
    *({"init": init} for init in ("uniform", "normal")),
    {"augment": "none"},
    *({"optimizer": "sign_adam", "lr": 0.125, "init": "uniform", "steps": steps} for steps in (60, 100, 250)),
    {"optimizer": "sign_adam", "lr": 1.59, "init": "normal", "schedule": "step", "steps": 250},
]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small_cnn")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    of, rows = cifar_problem(arguments.model, 12, 48), []
    for variant in VARIANTS:
        cosines, seconds = [], []
        for key in KEYS:
            begun = time.process_time()
            found = craft_key(
                of.images[key], of.task(key).key, [of.surrogate], of.settings(**variant), key=key, device=torch.device("cpu")
            )
            seconds.append(time.process_time() - begun)
            cosines.append(found.cosine)
        rows.append({"variant": variant, "cosine": mean(cosines), "seconds": mean(seconds)})
        print(f"{variant!s:<84} cosine {mean(cosines):.4f} in {mean(seconds):.2f} s", flush=True)
    if arguments.json:
        write_figures(arguments.json, {"model": arguments.model, "rows": rows})


if __name__ == "__main__":
    main()

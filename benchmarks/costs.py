"""What crafting costs: CPU time against images and keys, and peak memory, a fresh process a figure.

python benchmarks/costs.py MODEL:METHOD:IMAGES:STEPS     # one figure; signing.py calls this
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from problems import untrained_problem
from rivals import textbook
from scipy import stats

from taggant_lightning.methods.taggants.crafting.crafting import craft_key
from taggant_lightning.methods.taggants.crafting.round import craft_round
from taggant_lightning.methods.taggants.crafting.state import CraftingState
from taggant_lightning.methods.taggants.crafting.team import Team


def few_steps(model_name: str, method: str, images: int, steps: int) -> float:
    """Craft one key for a few steps, and return the CPU seconds of a step, the first one left out."""
    of = untrained_problem(model_name, 1, images)
    times = [time.process_time()]
    if method == "ours":
        craft_key(
            of.images[0], of.task(0).key, [of.surrogate], of.settings(steps=steps), key=0, device=torch.device("cpu"),
            on_step=lambda *_: times.append(time.process_time()),
        )  # fmt: skip
    else:
        textbook(of.task(0), lambda _: times.append(time.process_time()), steps=steps)
    return float(np.mean(np.diff(times)[1:]))


def whole_round(model_name: str, num_keys: int, images: int, steps: int) -> float:
    """Craft a round of several keys, and return its CPU seconds."""
    of = untrained_problem(model_name, num_keys, images)
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        craft_round(
            of.keys, {key: Team() for key in range(num_keys)}, of.images, [of.surrogate], of.settings(steps=steps),
            state=CraftingState(Path(folder) / "state"), number=0, digest="", perceptual=None, visible=False, keep=True,
            carry=False,
        )  # fmt: skip
    return time.process_time() - begun


def slope(sizes: list[int], seconds: list[float]) -> list[float]:
    """Return the slope of log seconds against log size, with its 95 % interval; 1 is linear."""
    line = stats.linregress(np.log(sizes), np.log(seconds))
    margin = float(stats.t.ppf(0.975, len(sizes) - 2) * line.stderr)
    return [float(line.slope), float(line.slope - margin), float(line.slope + margin)]


def measure_growth(models: list[str]) -> list[dict[str, Any]]:
    """Measure CPU time against images a key and against keys, three rounds through all sizes."""
    rows = []
    for model_name in models:
        for what, sizes in (("images", [64, 128, 256, 512, 1024]), ("keys", [1, 2, 4, 8])):
            points = [
                (n, few_steps(model_name, "ours", n, 4) if what == "images" else whole_round(model_name, n, 64, 8))
                for _ in range(3)
                for n in sizes
            ]
            found = slope([n for n, _ in points], [t for _, t in points])
            rows.append({"model": model_name, "against": what, "slope": found, "points": points})
            print("{}: CPU time against {}, slope {:.3f} ({:.3f} to {:.3f})".format(model_name, what, *found), flush=True)
    return rows


def measure_memory(models: list[str]) -> list[dict[str, Any]]:
    """Measure peak memory and pace of ours at ×1, ×4, ×16 images, and of the textbook loop at ×1 and ×4."""
    rows = []
    for model_name in models:
        for method, counts in (("ours", (64, 256, 1024)), ("textbook", (64, 256))):
            for images in counts:
                words = [sys.executable, __file__, f"{model_name}:{method}:{images}:{2 if images > 256 else 3}"]
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                row = {"model": model_name, "method": method, "images": images, **json.loads(done.stdout.splitlines()[-1])}
                rows.append(row)
                line = "{model:<10} {method:<9} {images:5d} images: {ms_per_image_step:6.2f} ms/image-step"
                line += ", peak {peak_mib:.0f} MiB, {above_start_mib:.0f} above the start"
                print(line.format(**row), flush=True)
    return rows


def peak_mib() -> float:
    """Return the peak of this process's memory; getrusage would count its parent's, from before it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main(words: str) -> None:
    """Be the process of one figure: MODEL:METHOD:IMAGES:STEPS."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    model_name, method, images, steps = words.split(":")
    untrained_problem(model_name, 1, 2)  # the libraries that it loads are not what is measured
    before = peak_mib()
    seconds = few_steps(model_name, method, int(images), int(steps))
    peak = peak_mib()
    pace = 1e3 * seconds / int(images)
    print(json.dumps({"ms_per_image_step": pace, "peak_mib": peak, "above_start_mib": peak - before}))


if __name__ == "__main__":
    main(sys.argv[1])

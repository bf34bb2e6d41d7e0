"""What a second process gains: training and signing on one and on two processes of one thread each, in turns.

    TAGGANT_DATA=… python benchmarks/processes.py --json docs/results/processes.json

Every figure is of a real `taggant fit` (gloo on the CPU) on CIFAR-100 seen at 16×16. The batch over all processes is the same.
Signing is timed twice: four keys, shared out by key, and one key, shared by images. Nothing else should run beside it.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from common import write_figures

from taggant_lightning import KeySet

CONF = Path(__file__).resolve().parent.parent / "conf"


def fit(model: str, processes: int, num_keys: int, folder: Path) -> dict[str, float]:
    """Train and sign with one command; return images a second of the last epoch, and seconds of signing."""
    secret = b"processes benchmark"
    keys = KeySet.draw(num_keys=num_keys, num_classes=100, shape=(3, 32, 32), top_k=10, secret=secret).save(folder / "keys")
    words = [sys.executable, "-m", "taggant_lightning", "fit"]
    for name in ("trainer/cpu", "data/cifar100_cpu", f"model/{model}", "signing/default"):
        words += ["--config", str(CONF / f"{name}.yaml")]
    words += ["--trainer.callbacks.keys", str(keys), "--trainer.callbacks.out", str(folder / "signature")]
    words += [
        "--trainer.callbacks.steps",
        "40",
        "--trainer.callbacks.snapshots",
        "[]",
        "--trainer.callbacks.selection",
        "random",
    ]
    words += ["--data.batch_size", str(128 // processes), "--trainer.max_epochs", "2", "--trainer.limit_val_batches", "0"]
    words += ["--trainer.default_root_dir", str(folder / "run")]
    if processes > 1:
        words += ["--trainer.devices", str(processes), "--trainer.strategy", "ddp"]
    subprocess.run(words, check=True, capture_output=True)
    with (folder / "run" / "metrics.csv").open() as file:
        paces = [float(row["train/images_per_second"]) for row in csv.DictReader(file) if row.get("train/images_per_second")]
    facts = json.loads((folder / "signature" / "signature.json").read_text())["facts"]
    return {"images_per_second": paces[-1], "signing_seconds": float(facts["seconds"])}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="small_cnn,small_vit")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for model in arguments.models.split(","):
        for num_keys in (4, 1):
            for repeat in range(arguments.repeats):
                for processes in (1, 2):
                    with tempfile.TemporaryDirectory() as folder:
                        found = fit(model, processes, num_keys, Path(folder))
                    rows.append({"model": model, "num_keys": num_keys, "processes": processes, "repeat": repeat, **found})
                    print(rows[-1], flush=True)
            one, two = (
                {
                    name: median(r[name] for r in rows if (r["model"], r["num_keys"], r["processes"]) == (model, num_keys, p))
                    for name in ("images_per_second", "signing_seconds")
                }
                for p in (1, 2)
            )
            gain = one["signing_seconds"] / two["signing_seconds"]
            pace = two["images_per_second"] / one["images_per_second"]
            print(
                f"{model}, {num_keys} keys: signing {gain:.2f} times as fast on two processes, training {pace:.2f}", flush=True
            )
    if arguments.json:
        write_figures(arguments.json, {"rows": rows})


if __name__ == "__main__":
    main()

"""What warm starts gain: a sweep of small trainings, with one process that imports for all and with each importing for itself.

    python benchmarks/sweep.py --json docs/results/sweep.json

Ten times `taggant fit` (digits, small MLP, one epoch of 23 steps) and `taggant test`, one and two at a time, in turns. What a
command costs beside its work: its seconds, as the sweep measures them, less those of the same command in a process that has run
it before. The seconds of the sweep hold the building of its graph as well, which is the same for both. Nothing else should run
beside it: `load` is of the minute before each sweep.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from common import write_figures

from taggant_lightning.cli import main as taggant

COMMON: dict[str, Any] = {
    "data": "ImageDataModule",
    "data.source": "digits",
    "model": "ImageClassifier",
    "model.model_name": "small_mlp",
    "trainer.accelerator": "cpu",
    "trainer.devices": 1,
}
FIT: dict[str, Any] = {**COMMON, "trainer.max_epochs": 1}


def write_experiment(folder: Path, repeats: int) -> Path:
    """Write an experiment of so many trainings and tests, and its profile."""
    for name in ("profiles", "trial"):
        (folder / name).mkdir(parents=True)
    own = {"seed_everything": "{seed}", "trainer.default_root_dir": "{folder}"}
    stages = {
        "fit": {"run": "taggant fit", "options": {**FIT, **own}},
        "test": {"run": "taggant test", "options": {**COMMON, **own, "ckpt_path": "{fit}/checkpoints/last.ckpt"}},
    }
    (folder / "profiles" / "cpu.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    path = folder / "trial" / "experiment.yaml"
    content = {"title": "Starts", "claim": 0, "first_seed": 0, "repeats": repeats, "report": ["test"], "rows": {"a": None}}
    path.write_text(yaml.safe_dump(content))
    return path


def sweep(repeats: int, jobs: int, *, warm: bool) -> dict[str, Any]:
    """Run one sweep; return its seconds and those of its commands."""
    with tempfile.TemporaryDirectory() as folder:
        path, runs = write_experiment(Path(folder) / "e", repeats), Path(folder) / "runs"
        words = [
            sys.executable,
            "-m",
            "taggant_lightning",
            "sweep",
            str(path),
            "--run",
            "--jobs",
            str(jobs),
            "--runs",
            str(runs),
        ]
        begun, load = time.monotonic(), os.getloadavg()[0]
        done = subprocess.run([*words, *([] if warm else ["--cold"])], check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        found: dict[str, Any] = {"load": round(load, 2), "seconds": round(time.monotonic() - begun, 1)}
        for stage in ("fit", "test"):
            found[stage] = [json.loads(file.read_text())["seconds"] for file in runs.glob(f"{stage}-*/finished.json")]
    return {"jobs": jobs, "warm": warm, **found}


def within(repeats: int) -> dict[str, float]:
    """Return the seconds of the same two commands in this process, after they have run once."""
    taken: dict[str, list[float]] = {"fit": [], "test": []}
    for number in range(repeats + 1):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            own = {"seed_everything": number, "trainer.default_root_dir": folder}
            last = {"ckpt_path": f"{folder}/checkpoints/last.ckpt"}
            for stage, options in (("fit", {**FIT, **own}), ("test", {**COMMON, **own, **last})):
                begun = time.monotonic()
                if taggant([stage, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]):
                    raise SystemExit("the command failed")
                taken[stage].append(time.monotonic() - begun)
    return {stage: round(median(seconds[1:]), 2) for stage, seconds in taken.items()}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10, help="trainings, and as many tests (%(default)s)")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--jobs", default="1,2")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    own = within(5)
    print(f"in a process that has run them before: fit {own['fit']} s, test {own['test']} s", flush=True)
    rows = []
    for _ in range(arguments.repeats):
        for jobs in map(int, arguments.jobs.split(",")):
            for warm in (True, False):
                row = sweep(arguments.pairs, jobs, warm=warm)
                row["beside"] = {stage: round(median(row[stage]) - own[stage], 2) for stage in own}
                rows.append(row)
                start = "warm" if warm else "cold"
                print(f"jobs={jobs} {start}: {row['seconds']} s, a command beside its work {row['beside']}", flush=True)
    if arguments.json:
        figures = {"pairs": arguments.pairs, "threads": os.environ.get("OMP_NUM_THREADS"), "within": own, "rows": rows}
        write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()

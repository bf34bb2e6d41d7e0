"""The table of really trained models, within the minutes that one GPU is at hand; the same command goes on where time ended.

    TAGGANT_DATA=… python experiments/proof.py --minutes 12 --out results

runs experiments/scenarios/trained.yaml, stops when time ends, and leaves in the folder: results.json of what is finished
(`taggant table` reads it), and commands.json: of each command its seconds, the last figures that it logged, and, of one that
failed, the end of its log.
"""

import argparse
import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EXPERIMENT = Path("experiments") / "scenarios" / "trained.yaml"
TAGGANT = [sys.executable, "-m", "taggant_lightning"]
LINES, POLL = 15, 0.5  # of a failed command's log; seconds between two looks


def logged(folder: Path) -> dict[str, float]:
    """Return the last value of everything that a command logged."""
    found: dict[str, float] = {}
    for path in folder.rglob("metrics.csv"):
        with path.open() as file:
            for row in csv.DictReader(file):
                found |= {name: float(value) for name, value in row.items() if name and value}
    return found


def commands(runs: Path) -> list[dict[str, Any]]:
    """Return what is known of each command that was begun."""
    rows = []
    for folder in sorted(path.parent for path in runs.glob("*/node.json")):
        row: dict[str, Any] = {"command": folder.name, "logged": logged(folder)}
        if (folder / "finished.json").is_file():
            row |= json.loads((folder / "finished.json").read_text())
        elif (folder / "log.txt").is_file():
            row["log"] = (folder / "log.txt").read_text(errors="replace").splitlines()[-LINES:]
        rows.append(row)
    return rows


def main(words: Sequence[str] | None = None) -> int:
    """Run the sweep until it or its time ends, and gather."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True, help="until commands that run are ended")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--profile", default="gpu_full", metavar="P", help="scale, as of `taggant sweep` (%(default)s)")
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="(%(default)s)")
    parser.add_argument("--jobs", type=int, default=3, metavar="N", help="commands at a time (%(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/sweeps"), metavar="DIR", help="(%(default)s)")
    arguments = parser.parse_args(words)
    if arguments.minutes <= 0:
        parser.error(f"--minutes {arguments.minutes} must be positive: how long the GPU is at hand")
    end = time.monotonic() + 60 * arguments.minutes
    arguments.out.mkdir(parents=True, exist_ok=True)
    sweep = [
        *TAGGANT, "sweep", str(EXPERIMENT), "--profile", arguments.profile, "--repeats", str(arguments.repeats),
        "--runs", str(arguments.runs), "--results", str(arguments.out / "results.json"),
    ]  # fmt: skip
    running = subprocess.Popen([*sweep, "--run", "--jobs", str(arguments.jobs)])  # noqa: S603  # our own command
    try:
        while running.poll() is None and time.monotonic() < end:
            time.sleep(POLL)
        status = running.poll()
        if status is None:
            running.send_signal(signal.SIGINT)
            status = subprocess.run([*sweep, "--gather"]).returncode  # noqa: S603  # our own command, while the others end
            print(f"proof: {arguments.minutes} minutes are over; the same command goes on where this one stopped", flush=True)
        (arguments.out / "commands.json").write_text(json.dumps(commands(arguments.runs), indent=1))
    finally:
        running.wait()
    return status


if __name__ == "__main__":
    sys.exit(main())

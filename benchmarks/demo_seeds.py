"""Run the demo on several seeds, and print one row a seed and a summary.

    python benchmarks/demo_seeds.py --seeds 100-109 --json docs/results/demo.json

Options after the seeds go to `taggant demo`, for instance `--images-per-key 10`: that is how budgets are compared.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, median
from typing import Any

from common import write_figures


def one(seed: int, options: list[str]) -> dict[str, Any]:
    """Run the demo of one seed in a process of its own, and return its result.json."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        command = [sys.executable, "-m", "taggant_lightning", "demo", "--out", str(out), "--seed", str(seed), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"seed {seed} failed:\n{done.stdout}\n{done.stderr}")
        return json.loads((out / "result.json").read_text())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-9", help="first-last")
    parser.add_argument("--jobs", type=int, default=2, help="demos at a time")
    parser.add_argument("--json", help="file for the figures")
    arguments, options = parser.parse_known_args()
    first, last = (int(part) for part in arguments.seeds.split("-"))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows = list(pool.map(lambda seed: one(seed, options), range(first, last + 1)))
    print("seed  signed hits  log10 p   acc  | clean hits  log10 p   acc  | cosine  seconds")
    for row in rows:
        s, c = row["signed"], row["clean"]
        print(
            f"{row['seed']:4d}  {s['hits']:6d}/{s['num_keys']:<4d}{s['log10_p']:9.2f}  {s['val_acc']:.3f}"
            f" |{c['hits']:6d}/{c['num_keys']:<4d}{c['log10_p']:8.2f}  {c['val_acc']:.3f} |"
            f"{row['signing']['mean_cosine']:7.3f}{row['seconds']:8.1f}"
        )
    signed, clean = [r["signed"]["log10_p"] for r in rows], [r["clean"]["log10_p"] for r in rows]
    summary = {
        "options": options,
        "signed_log10_p_worst": max(signed),
        "signed_log10_p_median": median(signed),
        "clean_at_least_minus_2": sum(p >= -2 for p in clean),
        "runs": len(rows),
        "accuracy_difference_points": 100 * mean(r["signed"]["val_acc"] - r["clean"]["val_acc"] for r in rows),
        "fraction_signed_max": max(r["signing"]["fraction"] for r in rows),
        "eps": rows[0]["signing"]["eps"],
        "psnr": mean(r["signing"]["psnr"] for r in rows),
        "seconds_max": max(r["seconds"] for r in rows),
    }
    print(json.dumps(summary))
    if arguments.json:
        write_figures(arguments.json, {"summary": summary, "rows": rows})


if __name__ == "__main__":
    main()

"""Experiments whose commands are tiny scripts, so that real processes take little time."""

from pathlib import Path
from typing import Any

import yaml

SCRIPT = """
import json, sys, time
from pathlib import Path
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = Path(words["--out"])
with open(words["--journal"], "a") as journal:
    journal.write(f"{words['--name']}\\n")
time.sleep(float(words.get("--sleep", 0)))
if words.get("--fail") == "yes":
    print("something is wrong here")
    sys.exit(3)
value = float(words.get("--value", 0))
if "--from" in words:
    value += json.loads((Path(words["--from"]) / "metrics.json").read_text())["value"]
(out / "metrics.json").write_text(json.dumps({"value": value}))
"""


def write_experiment(folder: Path, content: dict[str, Any], stages: dict[str, Any] | None = None) -> Path:
    """Write an experiment with a profile `cpu`, and the script; stages are called first and second unless given."""
    (folder / "script.py").write_text(SCRIPT)
    run = f"python {folder / 'script.py'}"
    common = {"journal": str(folder / "journal"), "out": "{folder}"}
    default = {
        "first": {"run": run, "options": {"name": "first-{seed}", "value": "{seed}", **common}},
        "second": {"run": run, "options": {"name": "second-{seed}", "from": "{first}", **common}},
    }
    (folder / "profiles").mkdir()
    profile = {"values": {"ten": 10}, "stages": stages or default, "slurm": ["--time=1:00:00"]}
    (folder / "profiles" / "cpu.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    (folder / "trial").mkdir()
    path = folder / "trial" / "experiment.yaml"
    whole = {"title": "A trial", "claim": 9, "first_seed": 5, "repeats": 2, "report": ["second"], **content}
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return path


def journal(folder: Path) -> list[str]:
    """Return what ran, in order."""
    path = folder / "journal"
    return path.read_text().split() if path.exists() else []

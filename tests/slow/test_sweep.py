"""The first experiment, in real processes: interrupted twice and begun again, beside one that ran through."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.experiments.small import ROOT, sweep, tiny_profile

SCENARIOS = ROOT / "experiments" / "scenarios" / "experiment.yaml"


def start(runs: Path, profile: Path) -> subprocess.Popen[str]:
    words = [
        "sweep",
        "experiments/scenarios/experiment.yaml",
        "--run",
        "--jobs",
        "2",
        "--runs",
        str(runs),
        "--profile",
        str(profile),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "taggant_lightning", *words]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def finished(runs: Path) -> dict[str, int]:
    """Return when each finished command ended."""
    return {path.parent.name: path.stat().st_mtime_ns for path in runs.glob("*/finished.json")}


def rows(runs: Path) -> Any:
    return json.loads((runs / "scenarios-tiny.json").read_text())["rows"]


@pytest.mark.slow
def test_interrupted_twice_equals_run_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile, runs = tiny_profile(tmp_path), tmp_path / "interrupted"
    before: dict[str, int] = {}
    for number, enough in ((signal.SIGINT, 3), (signal.SIGKILL, 8)):
        process, deadline = start(runs, profile), time.monotonic() + 300
        while len(finished(runs)) < enough and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=120)
        assert process.returncode != 0
        assert finished(runs).items() >= before.items()  # what was finished was not run again
        before = finished(runs)
        assert len(before) >= enough
    process = start(runs, profile)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, out + err
    assert finished(runs).items() >= before.items()
    # An orphan of the killed sweep may have been waited for, and is then run again, or counted where it ended in time.
    assert f"ran={len(finished(runs)) - len(before)} found={len(before)} failed=0 skipped=0" in out

    monkeypatch.chdir(ROOT)
    sweep(SCENARIOS, tmp_path, "--run", "--profile", str(profile))
    assert rows(runs) == rows(tmp_path / "runs")
    assert set(finished(runs)) == set(finished(tmp_path / "runs"))

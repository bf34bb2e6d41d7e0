"""Every experiment runs small, row by row, and leaves figures of each."""

import json
from pathlib import Path

import pytest
import yaml

from tests.experiments.small import EXPERIMENTS, ROOT, sweep, tiny_profile


def test_there_are_experiments() -> None:
    assert {path.parent.name for path in EXPERIMENTS} >= {"scenarios", "key_source"}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.parent.name)
def test_experiment_runs_small(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweep(path, tmp_path, "--run", "--profile", str(tiny_profile(tmp_path)))
    results = json.loads((tmp_path / "runs" / f"{path.parent.name}-tiny.json").read_text())
    content = yaml.safe_load(path.read_text())
    assert results["unfinished"] == []
    assert {row["row"] for row in results["rows"]} >= set(content.get("rows") or {})
    for row in results["rows"]:
        assert len(row["repeats"]) == 1
        assert row["repeats"][0]["values"], row["row"]

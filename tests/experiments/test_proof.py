"""The table of really trained models: its rows run small, and its script stops when time ends and goes on afterwards."""

import json
from pathlib import Path

import pytest
import yaml

from experiments import proof
from tests.experiments.small import ROOT, sweep, tiny_profile

TRAINED = ROOT / "experiments" / "scenarios" / "trained.yaml"


@pytest.mark.slow
def test_every_row_runs_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweep(TRAINED, tmp_path, "--run", "--profile", str(tiny_profile(tmp_path)))
    results = json.loads((tmp_path / "runs" / "scenarios-tiny.json").read_text())
    assert results["unfinished"] == []
    assert [row["row"] for row in results["rows"]] == list(yaml.safe_load(TRAINED.read_text())["rows"])
    for row in results["rows"]:
        assert {"hits", "num_keys", "log10_p", "accuracy"} <= set(row["repeats"][0]["values"])


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["cpu_mid", "gpu_full"])
def test_commands_of_the_larger_profiles_are_ones(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TAGGANT_DATA", str(tmp_path))
    from taggant_lightning.commands.sweep import run

    run(["sweep", str(TRAINED), "--print", "--profile", profile, "--repeats", "1", "--runs", str(tmp_path)])
    assert len(capsys.readouterr().out.splitlines()) > len(yaml.safe_load(TRAINED.read_text())["rows"])


def test_no_time_at_all_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        proof.main(["--minutes", "0", "--out", "nowhere"])
    assert "--minutes 0.0 must be positive" in capsys.readouterr().err


def test_commands_of_a_folder_that_nothing_was_begun_in(tmp_path: Path) -> None:
    assert proof.commands(tmp_path / "none") == []


@pytest.mark.slow
def test_time_ends_and_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    out, runs = tmp_path / "out", tmp_path / "runs"
    words = ["--profile", str(tiny_profile(tmp_path)), "--jobs", "2", "--runs", str(runs), "--out", str(out)]
    assert proof.main(["--minutes", "0.3", *words]) == 0
    begun = json.loads((out / "results.json").read_text())
    done = {path.parent.name: path.stat().st_mtime_ns for path in runs.glob("*/finished.json")}
    assert proof.main(["--minutes", "5", *words]) == 0
    ended = json.loads((out / "results.json").read_text())
    assert ended["unfinished"] == []
    assert len(begun["unfinished"]) <= begun["nodes"]
    for name, time in done.items():
        assert (runs / name / "finished.json").stat().st_mtime_ns == time  # nothing finished was run again
    commands = json.loads((out / "commands.json").read_text())
    assert len(commands) == ended["nodes"]
    assert all(row["seconds"] >= 0 for row in commands)

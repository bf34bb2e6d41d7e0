"""Every experiment runs small, row by row, and leaves figures of each."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import refresh
from taggant_lightning.commands import sweep as sweep_command
from taggant_lightning.commands.resolved import resolver
from taggant_lightning.commands.sweep import run
from tests.experiments.small import EXPERIMENTS, ROOT, sweep, tiny_profile
from tests.wandb_files import read


def test_there_are_experiments() -> None:
    assert {path.parent.name for path in EXPERIMENTS} == {
        "scenarios", "key_source", "stealth", "budget", "partial", "defences", "after_training", "baselines",
        "blending",
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the profile; what experiments have in common runs once in it, as it does outside of tests."""
    folder = tmp_path_factory.mktemp("experiments")
    tiny_profile(folder)
    return folder


@pytest.fixture(scope="module")
def resolved_once() -> Callable[[], Callable[[list[str]], Any]]:
    """Return what `resolver` returns, made once for all tests, and asked once for commands that experiments share."""
    resolve, known = resolver(), dict[tuple[str, ...], Any]()

    def once(words: list[str]) -> Any:
        key = tuple(words)
        if key not in known:
            known[key] = resolve(words)
        return copy.deepcopy(known[key])

    return lambda: once


QUICK = ("scenarios",)  # the others take 10 to 40 seconds each, and run with the slow tests


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=p.parent.name, marks=() if p.parent.name in QUICK else pytest.mark.slow) for p in EXPERIMENTS],
)
def test_experiment_runs_small(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweep(path, folder, "--run", "--profile", str(folder / "tiny.yaml"))
    results = json.loads((folder / "runs" / f"{path.parent.name}-tiny.json").read_text())
    content = yaml.safe_load(path.read_text())
    assert results["unfinished"] == []
    assert {row["row"] for row in results["rows"]} >= set(content.get("rows") or {})
    for row in results["rows"]:
        assert len(row["repeats"]) == 1
        assert row["repeats"][0]["values"], row["row"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "profile"),
    [
        pytest.param(path, profile, id=f"{path.parent.name}-{profile}")
        for path in EXPERIMENTS
        for profile in yaml.safe_load(path.read_text())["repeats"]
        # Half a minute each. Of the profile imagenet one experiment shows that it has what stages ask for.
        if profile != "cpu" and (profile != "imagenet" or path.parent.name == "scenarios")
    ],
)
def test_every_command_of_the_larger_profiles_is_one(
    path: Path,
    profile: str,
    resolved_once: Callable[[], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nobody could run these here; that each command takes its options is checked all the same."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sweep_command, "resolver", resolved_once)
    run(["sweep", str(path), "--print", "--profile", profile, "--repeats", "1", "--runs", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    content = yaml.safe_load(path.read_text())
    assert len(lines) > len(content.get("rows") or content["vary"])


def test_a_group_an_experiment_in_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    for folder in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{folder}", str(tmp_path / folder))
    path, profile = ROOT / "experiments" / "scenarios" / "experiment.yaml", str(tiny_profile(tmp_path))
    sweep(path, tmp_path, "--run", "--profile", profile, "--rows", "clean", "--wandb", "offline")
    runs = {p.parents[2].name.split("-")[0]: read(p) for p in (tmp_path / "runs").glob("*/wandb/offline-run-*/*.wandb")}
    assert sorted(runs) == ["bob", "verdict"]
    assert runs["verdict"]["group"] == "scenarios"
    assert runs["verdict"]["tags"] == ["claim-1", "profile-tiny", "verdict", "clean"]
    logged = {name for row in runs["verdict"]["history"] for name in row}
    assert {"test/keys/hits", "test/keys/log10_p", "test/acc"} <= logged
    before = (tmp_path / "runs" / "scenarios-tiny-part.json").read_bytes()
    sweep(path, tmp_path, "--run", "--profile", profile, "--rows", "clean")  # without W&B nothing is run again
    assert (tmp_path / "runs" / "scenarios-tiny-part.json").read_bytes() == before


def test_tables_of_the_readmes_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python experiments/refresh.py` writes them anew."""
    monkeypatch.chdir(ROOT)
    for readme in sorted((ROOT / "experiments").rglob("README.md")):
        text = readme.read_text()
        assert refresh.refreshed(text) == text, readme

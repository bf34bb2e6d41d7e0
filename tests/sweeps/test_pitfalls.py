"""What would mislead: changes without effect, one verdict counted several times, commands under two names."""

import json
from pathlib import Path
from typing import Any

import pytest

from taggant_lightning.cli import main
from taggant_lightning.commands.resolved import resolver
from taggant_lightning.errors import TaggantError
from taggant_lightning.sweeps.experiment import read_experiment
from taggant_lightning.sweeps.graph import build
from tests.sweeps.scripts import journal, write_experiment

METRICS = """
import json, sys
from pathlib import Path
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
(Path(words["--out"]) / "metrics.json").write_text(json.dumps({"log10_p": -3.0, "hits": 4, "num_keys": 10}))
"""


@pytest.mark.parametrize(
    "content",
    [
        {"rows": {"a": None, "b": {"stages": {"second": {"option": {"value": 9}}}}}},
        {"rows": {"a": None, "b": {"stages": {"secnd": {"options": {"value": 9}}}}}},
        {"rows": {"a": None, "b": {"values": {"tenn": 9}}}},
        {"vary": {"x": {"stage": "secnd", "option": "value", "values": [1, 2]}}},
    ],
)
def test_a_row_that_changes_nothing_is_told(content: dict[str, Any], tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {**content, "repeats": 1})
    with pytest.raises(TaggantError):
        build(read_experiment(path, "cpu"), tmp_path / "runs", resolver())


def test_repeats_of_one_command_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = {"second": {"run": f"python {tmp_path / 'metrics.py'}", "options": {"out": "{folder}"}}}
    path = write_experiment(tmp_path, {"rows": {"a": None}, "repeats": 4}, stages)
    assert main(["sweep", str(path), "--runs", str(tmp_path / "runs"), "--run", "--cold"]) == 2
    assert "has the same commands in two repeats; write {seed} into its stages" in capsys.readouterr().err


def test_repeats_that_share_keys_are_not_combined_to_a_p_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"num-keys": 2, "num-classes": 3, "shape": "1,4,4", "demo-seed": 1, "out": "{folder}/keys"}
    stages: dict[str, Any] = {
        "keys": {"run": "taggant keys new", "options": keys},
        "second": {
            "run": f"python {tmp_path / 'metrics.py'}",
            "options": {"keys": "{keys}/keys", "n": "{seed}", "out": "{folder}"},
        },
    }
    path = write_experiment(tmp_path, {"rows": {"a": None}, "repeats": 3}, stages)
    (tmp_path / "metrics.py").write_text(METRICS)
    assert main(["sweep", str(path), "--runs", str(tmp_path / "runs"), "--run", "--cold"]) == 0
    main(["table", str(tmp_path / "runs" / "trial-cpu.json")])
    said = capsys.readouterr().out
    assert "summary (shared keys)" in said
    assert "log10 p (Fisher)" not in said
    stages["keys"]["options"]["demo-seed"] = "{seed}"
    (tmp_path / "own").mkdir()
    path = write_experiment(tmp_path / "own", {"rows": {"a": None}, "repeats": 3}, stages)
    assert main(["sweep", str(path), "--runs", str(tmp_path / "runs"), "--run", "--cold"]) == 0
    main(["table", str(tmp_path / "runs" / "trial-cpu.json")])
    assert "log10 p (Fisher)" in capsys.readouterr().out


def test_one_command_under_two_stage_names_runs_once(tmp_path: Path) -> None:
    run, common = f"python {tmp_path / 'script.py'}", {"journal": str(tmp_path / "journal"), "out": "{folder}"}
    stages = {
        "bob": {"run": run, "options": {"name": "bob", **common}},
        "first_bob": {"like": "bob"},
        "plain": {"run": run, "options": {"name": "plain", "from": "{bob}", **common}},
        "filter": {"run": run, "options": {"name": "filter", "from": "{first_bob}", **common}},
    }
    rows = {"plain": {"report": ["plain"]}, "filtered": {"report": ["filter"]}}
    path = write_experiment(tmp_path, {"rows": rows, "repeats": 1}, stages)
    for text in ("plain", "filtered"):
        assert main(["sweep", str(path), "--runs", str(tmp_path / "runs"), "--rows", text, "--run", "--cold"]) == 0
    assert journal(tmp_path).count("bob") == 1


def test_a_fragment_that_a_configuration_names_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("data: fragment.yaml\n")
    stage = {"run": f"python {tmp_path / 'script.py'}", "config": {"data": str(tmp_path / "data.yaml")}, "options": {}}
    path = write_experiment(tmp_path, {"rows": {"a": None}, "repeats": 1}, {"second": stage})
    seen = set()
    for source in ("digits", "cifar100"):
        (tmp_path / "fragment.yaml").write_text(json.dumps({"source": source}))
        seen |= set(build(read_experiment(path, "cpu"), tmp_path / "runs", resolver()).nodes)
    assert len(seen) == 2


def test_options_of_other_commands_are_checked_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"run": "taggant keys new", "options": {"num-keyz": 2, "out": "{folder}/keys"}}
    path = write_experiment(tmp_path, {"rows": {"a": None}, "repeats": 1, "report": ["keys"]}, {"keys": keys})
    assert main(["sweep", str(path), "--runs", str(tmp_path / "runs"), "--print"]) == 2
    assert "--num-keyz 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        {"rows": ["a"]},
        {"rows": {"a": None}, "first_seed": "abc"},
        {"rows": {"a": {"stages": {"second": None}}}},
        {"rows": {"a": None}, "stages": {"first": {"options": ["a"]}}},
        {"rows": {"a": None}, "stages": {"first": {"like": "second"}, "second": {"like": "first"}}},
        {"rows": {"a": None}, "values": {"q": "{q}"}, "stages": {"first": {"options": {"value": "{q}"}}}},
    ],
)
def test_wrong_yaml_gets_a_sentence(content: dict[str, Any], tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {**content, "repeats": 1})
    assert main(["sweep", str(path), "--runs", str(tmp_path / "runs"), "--print"]) == 2


def test_a_name_that_comes_twice_is_told(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {})
    path.write_text("title: t\nclaim: 1\nrows:\n  a: {}\n  a: {}\n")
    with pytest.raises(TaggantError, match="'a' comes twice"):
        read_experiment(path, "cpu")


def test_profiles_that_do_not_exist_or_are_not_meant(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": None}, "repeats": {"cpuu": 4}})
    with pytest.raises(TaggantError, match="repeats names the profile 'cpuu', which does not exist"):
        read_experiment(path, "cpu")
    (tmp_path / "profiles" / "gpu.yaml").write_text("base: cpu.yaml\n")
    path.write_text(path.read_text().replace("cpuu", "cpu"))
    assert read_experiment(path, "cpu").repeats == 4
    with pytest.raises(TaggantError, match="is not meant for profile=gpu; write one of cpu, or --repeats N"):
        read_experiment(path, "gpu")
    assert read_experiment(path, "gpu", repeats=1).stages == read_experiment(path, "cpu").stages


def test_a_part_does_not_take_the_place_of_the_whole(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": None, "b": {"stages": {"second": {"options": {"value": 1}}}}}})
    assert main(["sweep", str(path), "--runs", str(tmp_path / "runs"), "--run", "--cold", "--rows", "b"]) == 0
    assert not (tmp_path / "runs" / "trial-cpu.json").exists()
    assert len(json.loads((tmp_path / "runs" / "trial-cpu-part.json").read_text())["rows"]) == 1


def test_what_goes_wrong_beside_a_command_fails_that_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": None}})
    graph = build(read_experiment(path, "cpu"), tmp_path / "runs", resolver())
    first = next(iter(graph.nodes.values()))
    first.folder.parent.mkdir()
    first.folder.write_text("a file where a folder should be")
    with pytest.raises(SystemExit) as stop:
        main(["sweep", str(path), "--runs", str(tmp_path / "runs"), "--run", "--cold"])
    assert stop.value.code == 1
    assert "ran=2 found=0 failed=1 skipped=1" in capsys.readouterr().out

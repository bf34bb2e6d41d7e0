"""The graph: what is one node, what a hash follows from, and what does not fit together."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from taggant_lightning.commands.resolved import resolver
from taggant_lightning.errors import TaggantError
from taggant_lightning.sweeps.experiment import read_experiment
from taggant_lightning.sweeps.graph import Graph, build
from taggant_lightning.sweeps.tracking import logged
from tests.sweeps.scripts import write_experiment


def graph_of(folder: Path, content: dict[str, Any], stages: dict[str, Any] | None = None, runs: str = "runs") -> Graph:
    return build(read_experiment(write_experiment(folder, content, stages), "cpu"), folder / runs, resolver())


def test_what_rows_have_in_common_is_one_node(tmp_path: Path) -> None:
    change = {"stages": {"second": {"options": {"value": 1}}}}
    graph = graph_of(tmp_path, {"rows": {"a": None, "b": change, "same as a": {}}})
    assert sorted(node.stage for node in graph.nodes.values()) == ["first"] * 2 + ["second"] * 4
    by_row = {(cell.row.name, cell.seed): cell.reported[0].hash for cell in graph.cells}
    assert by_row["a", 5] == by_row["same as a", 5] != by_row["b", 5]
    assert len({by_row[name, seed] for name in "ab" for seed in (5, 6)}) == 4
    second = graph.nodes[by_row["b", 6]]
    assert second.words[second.words.index("--from") + 1] == str(second.parents[0].folder)
    assert second.words[-2:] == ["--value", "1"]
    assert graph.rows_of()[second.parents[0].hash] == ["a", "b", "same as a"]


def test_a_hash_knows_no_folder_and_every_parent(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": None}})

    def hashes(runs: str) -> set[str]:
        return {node.hash for node in build(read_experiment(path, "cpu"), Path(runs), resolver()).nodes.values()}

    before = hashes("runs")
    assert before == hashes("elsewhere")
    content = yaml.safe_load(path.read_text())
    content["rows"] = {"a": {"stages": {"first": {"options": {"value": 100}}}}}
    path.write_text(yaml.safe_dump(content))
    assert not before & hashes("runs")  # the second stage is the same command, and has another parent


def fit(**options: Any) -> dict[str, Any]:
    own = {"trainer.default_root_dir": "{folder}", "seed_everything": "{seed}", **options}
    return {"bob": {"run": "taggant fit", "config": {"data": "{data}", "model": "conf/model/small_mlp.yaml"}, "options": own}}


def test_lightning_commands_are_resolved_with_all_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent.parent)
    (tmp_path / "d").mkdir()
    data = {"data": "conf/data/digits.yaml"}
    # A default that is written out, and a comment or order that differ, are the same configuration.
    rows = {
        "plain": None,
        "default spelt out": {"stages": {"bob": {"options": {"data.subset_seed": 0, "trainer.check_val_every_n_epoch": 1}}}},
        "differs": {"stages": {"bob": {"options": {"data.subset_seed": 1}}}},
        "null leaves out": {"stages": {"bob": {"options": {"seed_everything": None}}}},
    }
    content = {"rows": rows, "values": data, "report": ["bob"], "repeats": 1}
    spelt = {"default spelt out": rows.pop("default spelt out")}
    graph = graph_of(tmp_path / "d", content, fit())
    hashes = {cell.row.name: cell.reported[0].hash for cell in graph.cells}
    (tmp_path / "e").mkdir()
    again = graph_of(tmp_path / "e", {**content, "rows": spelt}, fit())
    assert set(again.nodes) == {hashes["plain"]}
    assert len(set(hashes.values())) == 3
    node = graph.nodes[hashes["plain"]]
    assert node.resolved["configuration"]["model"]["init_args"]["model_name"] == "small_mlp"
    assert node.resolved["configuration"]["trainer"]["default_root_dir"] == "@"
    assert "--seed_everything" not in graph.nodes[hashes["null leaves out"]].words

    named = logged(graph, read_experiment(tmp_path / "d" / "trial" / "experiment.yaml", "cpu"), "offline")
    assert list(named.nodes) == list(graph.nodes)
    words = named.nodes[hashes["differs"]].words
    assert words[words.index("--trainer.logger.group") + 1] == "trial"
    assert words[words.index("--trainer.logger.tags") + 1] == '["claim-9", "profile-cpu", "bob", "differs"]'
    assert words[words.index("--trainer.logger.offline") + 1] == "true"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data.sed": 1}, "Option 'sed' is not accepted|sed"),
        ({"trainer.max_epochs": "many"}, "max_epochs"),
        ({"data.root": "{nothing}"}, r"\{nothing\} stands for nothing; write one of folder, ten, data, seed, bob"),
        ({"data.root": "{bob}/x"}, r"stages need each other in a circle \(bob → bob\)"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent.parent)
    with pytest.raises(TaggantError, match=message):
        content = {"rows": {"a": None}, "values": {"data": "conf/data/digits.yaml"}, "report": ["bob"], "repeats": 1}
        graph_of(tmp_path, content, fit(**options))


@pytest.mark.parametrize(
    ("content", "stages", "message"),
    [
        ({"report": []}, None, "the row 'a' reports no stage"),
        ({"report": ["third"]}, None, "the stage 'third' does not exist; there are first, second"),
        ({}, {"second": {"options": {}}}, "the stage 'second' has no `run`"),
        ({}, {"second": {"run": "rm -rf x"}}, "stage second has run='rm -rf x'; begin it with taggant or python"),
        ({}, {"second": {"like": "third"}}, "the stage 'third' does not exist"),
    ],
)
def test_wrong_stages_are_told(content: dict[str, Any], stages: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(TaggantError, match=message):
        graph_of(tmp_path, {"rows": {"a": None}, **content}, stages)

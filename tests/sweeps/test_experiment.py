"""Experiments' YAML: rows, factors, grids, profiles, and what is wrong with them."""

from pathlib import Path
from typing import Any

import pytest

from taggant_lightning.errors import TaggantError
from taggant_lightning.sweeps.experiment import merge, read_experiment
from tests.sweeps.scripts import write_experiment


def test_merge_goes_into_mappings_and_keeps_null() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merge(base, {"a": {"c": [3], "e": None}, "f": {"g": 4}}) == {
        "a": {"b": 1, "c": [3], "e": None},
        "d": 3,
        "f": {"g": 4},
    }
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 3}


def test_rows_factors_and_grid(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "rows": {"named": {"published": {"accuracy": "64.2 ± 0.6"}}},
        "vary": {
            "value": {"stage": "second", "option": "value", "values": [1, 2]},
            "both": {"values": {"a": {"stages": {"first": {"options": {"value": 7}}}}}},
        },
        "grid": {
            "x": {"stage": "first", "option": "value", "values": [1, 2]},
            "y": {"stage": "second", "option": "value", "values": [3, 4]},
        },
    }
    found = read_experiment(write_experiment(tmp_path, content), "cpu")
    assert [row.name for row in found.rows] == [
        "named", "default", "value = 1", "value = 2", "both = a", "x = 1, y = 3", "x = 1, y = 4", "x = 2, y = 3", "x = 2, y = 4"
    ]  # fmt: skip
    assert found.rows[0].published == {"accuracy": "64.2 ± 0.6"}
    assert found.rows[-1].changes == {"stages": {"first": {"options": {"value": 2}}, "second": {"options": {"value": 4}}}}
    assert (found.name, found.profile, found.repeats, found.first_seed, found.slurm) == (
        "trial",
        "cpu",
        2,
        5,
        ["--time=1:00:00"],
    )
    assert found.rows[2].factor == "value"


def test_what_the_command_line_says_wins(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {"rows": {"one": None, "two": None}, "repeats": {"cpu": 3}})
    assert read_experiment(path, "cpu").repeats == 3
    found = read_experiment(path, str(tmp_path / "profiles" / "cpu.yaml"), repeats=1, first_seed=9, rows="tw")
    assert (found.repeats, found.first_seed, [row.name for row in found.rows]) == (1, 9, ["two"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"row": {}}, "has an entry 'row', which is unknown; write one of claim, default"),
        ({}, "has no rows; add `rows`, `vary` or `grid`"),
        ({"rows": {"a": {"stage": {}}}}, "row 'a' has an entry 'stage', which is unknown; write one of published, report"),
        ({"rows": {"a": None}, "repeats": 0}, "repeats=0 must be a whole number of at least 1"),
        ({"vary": {"x": {"values": [1]}}}, "the factor 'x' has no stage; name the stage and the option that vary"),
        ({"vary": {"x": [1]}}, "the factor 'x' has no `values`"),
        ({"rows": {"default": None}, "vary": {"x": {"values": {"a": {}}}}}, "'default' comes twice"),
        ({"stages": {"first": {"options": {}, "words": []}}}, "stage first has an entry 'words', which is unknown"),
        ({"rows": {"a": ["stages"]}}, "in place of a mapping"),
    ],
)  # fmt: skip
def test_wrong_experiments_are_told(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(TaggantError, match=message):
        read_experiment(write_experiment(tmp_path, content), "cpu")


def test_missing_and_damaged_files_are_told(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {"rows": {"a": None}})
    with pytest.raises(TaggantError, match=r"profiles/gpu.yaml cannot be read \(No such file or directory\)"):
        read_experiment(path, "gpu")
    with pytest.raises(TaggantError, match="rows='zzz' is in no row's name; there are a"):
        read_experiment(path, "cpu", rows="zzz")
    path.write_text("title: [")
    with pytest.raises(TaggantError, match="is no YAML"):
        read_experiment(path, "cpu")
    path.write_text("- a")
    with pytest.raises(TaggantError, match="holds no mapping"):
        read_experiment(path, "cpu")
    path.write_text("title: t\n")
    with pytest.raises(TaggantError, match="has no entry claim; add it"):
        read_experiment(path, "cpu")

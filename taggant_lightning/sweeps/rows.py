"""The rows of an experiment: what is named, what varies one factor at a time, and the combinations of a grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.sweeps.trees import Tree, check_stage, known, mapping, merge, names_of

_ENTRIES = {"report", "values", "published", "stages"}


@dataclass(frozen=True)
class Row:
    """One line of the experiment's table.

    Attributes:
        name: What it is called.
        factor: The factor that differs from the default, None for a named row.
        changes: What differs from the experiment's stages: `stages`, `values`, `report`.
        published: Figures of the publication, by column.
    """

    name: str
    factor: str | None
    changes: Tree
    published: dict[str, str]


def read_rows(content: Tree, path: Path, stages: Tree, values: Tree) -> list[Row]:
    """Return the named rows, the default where factors vary, then one row a value of each factor, then those of the grid.

    Args:
        content: The experiment's YAML.
        path: Its file, for messages.
        stages: All stages, before a row changes them.
        values: What placeholders stand for.

    Raises:
        TaggantError: If there is no row, or one names a stage or value that does not exist, or comes twice.
    """
    rows = []
    for name, given in mapping(content.get("rows"), f"{path}: rows").items():
        changes = _checked(given, f"{path}: row {name!r}", stages, values)
        published = {str(k): str(v) for k, v in changes.pop("published", {}).items()}
        rows.append(Row(str(name), None, changes, published))
    vary, grid = (mapping(content.get(name), f"{path}: {name}") for name in ("vary", "grid"))
    settings = {factor: _settings(str(factor), given, path, stages, values) for factor, given in {**vary, **grid}.items()}
    if vary:
        rows.append(Row(str(content.get("default", "default")), None, {}, {}))
    for factor in vary:
        rows += [Row(f"{factor} = {label}", str(factor), change, {}) for label, change in settings[factor]]
    if grid:
        for combination in product(*(settings[factor] for factor in grid)):
            changes = {}
            for _, change in combination:
                changes = merge(changes, change)
            name = ", ".join(f"{factor} = {label}" for factor, (label, _) in zip(grid, combination, strict=True))
            rows.append(Row(name, None, changes, {}))
    if not rows:
        raise TaggantError(f"{path} has no rows; add `rows`, `vary` or `grid`")
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise TaggantError(f"{path}: the row {name!r} comes twice; name each row once")
    return rows


def _checked(given: Any, where: str, stages: Tree, values: Tree) -> Tree:
    """Return what a row changes, if all that it names exists: a misspelt change would be the default under another name."""
    changes = mapping(given, where)
    known(changes, _ENTRIES, where)
    for name, stage in mapping(changes.get("stages"), f"{where}: stages").items():
        check_stage(stage, f"{where}: stage {name}")
        if name not in stages and not {"run", "like"} & set(stage):
            raise TaggantError(f"{where} changes the stage {name!r}, which does not exist; there are {', '.join(stages)}")
    for name in mapping(changes.get("values"), f"{where}: values"):
        if name not in values:
            raise TaggantError(f"{where} sets the value {name!r}, which does not exist; there are {', '.join(values)}")
    if "report" in changes:
        names_of(changes["report"], f"{where}: report")
    mapping(changes.get("published"), f"{where}: published")
    return changes


def _settings(factor: str, given: Any, path: Path, stages: Tree, values: Tree) -> list[tuple[str, Tree]]:
    """Return the values of a factor, each with what it changes."""
    if not isinstance(given, Mapping) or not isinstance(given.get("values"), list | dict):
        raise TaggantError(f"{path}: the factor {factor!r} has no `values`; write a list with stage and option, or a mapping")
    settings: dict[Any, Any] = {}
    if isinstance(given["values"], dict):
        settings = given["values"]
    else:
        for name in ("stage", "option"):
            if name not in given:
                raise TaggantError(f"{path}: the factor {factor!r} has no {name}; name the stage and the option that vary")
        for value in given["values"]:
            settings[value] = {"stages": {given["stage"]: {"options": {given["option"]: value}}}}
    where = f"{path}: {factor}"
    return [(str(label), _checked(changes, f"{where} = {label}", stages, values)) for label, changes in settings.items()]

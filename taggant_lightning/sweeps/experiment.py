"""An experiment's YAML with its profile: stages (commands), rows (what differs from the default) and repeats."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError

Tree = dict[str, Any]
_ENTRIES = {
    "title", "claim", "shared_keys", "first_seed", "repeats", "report", "values", "stages", "default", "rows", "vary", "grid",
}  # fmt: skip
_STAGE_ENTRIES = {"run", "like", "config", "options"}
_PROFILE_ENTRIES = {"base", "values", "stages", "slurm"}
_ROW_ENTRIES = {"report", "values", "published", "stages"}


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


@dataclass(frozen=True)
class Experiment:
    """An experiment at the scale of a profile.

    Attributes:
        name: Name of its folder.
        title: One line.
        claim: Number of the claim that it reproduces.
        profile: Name of the profile.
        shared_keys: Whether repeats share keys, so that combined p-values are a summary and no p-value.
        first_seed: Seed of the first repeat; the next ones count up.
        repeats: How many.
        values: What placeholders stand for.
        stages: By name, each with `run`, `like`, `config` and `options`.
        report: Stages whose figures go into the results.
        rows: The rows.
        slurm: Lines for `#SBATCH`.
    """

    name: str
    title: str
    claim: int
    profile: str
    shared_keys: bool
    first_seed: int
    repeats: int
    values: Tree
    stages: Tree
    report: list[str]
    rows: list[Row]
    slurm: list[str]


def read_experiment(
    path: Path, profile: str, *, repeats: int | None = None, first_seed: int | None = None, rows: str | None = None
) -> Experiment:
    """Read an experiment.

    Args:
        path: `experiments/NAME/experiment.yaml`.
        profile: Name of a file in `experiments/profiles`, or the path of one.
        repeats: In place of what the file says.
        first_seed: In place of what the file says.
        rows: Keep only rows whose name contains this text.

    Raises:
        TaggantError: If a file is missing or is no YAML, or has entries that are unknown or missing.
    """
    content = read_yaml(path)
    own = Path(profile) if profile.endswith((".yaml", ".yml")) else path.parent.parent / "profiles" / f"{profile}.yaml"
    scale = _read_profile(own)
    _known(content, _ENTRIES, path)
    for name in ("title", "claim"):
        if name not in content:
            raise TaggantError(f"{path} has no entry {name}; add it")
    stages = merge(scale.get("stages", {}), content.get("stages", {}))
    for name, stage in stages.items():
        _known(stage, _STAGE_ENTRIES, f"{path}: stage {name}")
    of_profile = content.get("repeats", {})
    found = of_profile.get(own.stem, 1) if isinstance(of_profile, dict) else of_profile
    count = found if repeats is None else repeats
    if not isinstance(count, int) or count < 1:
        raise TaggantError(f"repeats={count} must be at least 1")
    lines = _rows(content, path)
    kept = [row for row in lines if rows is None or rows in row.name]
    if lines and not kept:
        raise TaggantError(f"rows={rows!r} is in no row's name; there are {', '.join(row.name for row in lines)}")
    if not lines:
        raise TaggantError(f"{path} has no rows; add `rows`, `vary` or `grid`")
    return Experiment(
        name=path.resolve().parent.name,
        title=str(content["title"]),
        claim=int(content["claim"]),
        profile=own.stem,
        shared_keys=bool(content.get("shared_keys", False)),
        first_seed=int(content.get("first_seed", 0) if first_seed is None else first_seed),
        repeats=count,
        values=merge(scale.get("values", {}), content.get("values", {})),
        stages=stages,
        report=list(content.get("report", [])),
        rows=kept,
        slurm=[str(line) for line in scale.get("slurm", [])],
    )


def _read_profile(path: Path) -> Tree:
    """Read a profile on top of its base, which lies beside it."""
    content = read_yaml(path)
    _known(content, _PROFILE_ENTRIES, path)
    base = content.pop("base", None)
    return content if base is None else merge(_read_profile(path.parent / str(base)), content)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Tree:
    """Return a tree with changes: mappings merge, everything else replaces. A null stays, and leaves an option out later."""
    merged = copy.deepcopy(dict(base))
    for name, value in changes.items():
        if isinstance(value, Mapping):
            old = merged.get(name)
            merged[name] = merge(old if isinstance(old, Mapping) else {}, value)
        else:
            merged[name] = copy.deepcopy(value)
    return merged


def _rows(content: Tree, path: Path) -> list[Row]:
    """Return the named rows, the default where factors vary, then one row a value of each factor, then those of the grid."""
    rows = []
    for name, changes in (content.get("rows") or {}).items():
        _known(changes or {}, _ROW_ENTRIES, f"{path}: row {name!r}")
        changes = dict(changes or {})
        published = {str(k): str(v) for k, v in changes.pop("published", {}).items()}
        rows.append(Row(str(name), None, changes, published))
    vary, grid = content.get("vary") or {}, content.get("grid") or {}
    if vary:
        rows.append(Row(str(content.get("default", "default")), None, {}, {}))
    for factor in vary:
        rows += [Row(f"{factor} = {label}", factor, change, {}) for label, change in _settings(factor, vary[factor], path)]
    if grid:
        for combination in product(*(_settings(factor, grid[factor], path) for factor in grid)):
            changes = {}
            for _, change in combination:
                changes = merge(changes, change)
            name = ", ".join(f"{factor} = {label}" for factor, (label, _) in zip(grid, combination, strict=True))
            rows.append(Row(name, None, changes, {}))
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise TaggantError(f"{path}: the row {name!r} comes twice; name each row once")
    return rows


def _settings(factor: str, given: Any, path: Path) -> list[tuple[str, Tree]]:
    """Return the values of a factor, each with what it changes."""
    if not isinstance(given, dict) or not isinstance(given.get("values"), list | dict):
        raise TaggantError(f"{path}: the factor {factor!r} has no `values`; write a list with stage and option, or a mapping")
    values = given["values"]
    if isinstance(values, dict):
        for label, changes in values.items():
            _known(changes, _ROW_ENTRIES, f"{path}: {factor} = {label}")
        return [(str(label), changes) for label, changes in values.items()]
    for name in ("stage", "option"):
        if name not in given:
            raise TaggantError(f"{path}: the factor {factor!r} has no {name}; name the stage and the option that vary")
    return [(str(v), {"stages": {given["stage"]: {"options": {given["option"]: v}}}}) for v in values]


def read_yaml(path: Path) -> Tree:
    """Read a YAML file that holds a mapping.

    Raises:
        TaggantError: If it is missing, or holds something else.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise TaggantError(
            f"{path} cannot be read ({error.strerror}); name an experiment's YAML, and a profile beside it"
        ) from None
    except yaml.YAMLError as error:
        raise TaggantError(f"{path} is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise TaggantError(f"{path} holds no mapping; see experiments/README.md")
    return content


def _known(content: Any, names: set[str], where: object) -> None:
    if not isinstance(content, Mapping):
        raise TaggantError(f"{where} holds {content!r} in place of a mapping")
    for name in content:
        if name not in names:
            raise TaggantError(f"{where} has an entry {name!r}, which is unknown; write one of {', '.join(sorted(names))}")

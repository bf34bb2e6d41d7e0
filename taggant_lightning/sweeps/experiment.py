"""An experiment's YAML with its profile: stages (commands), rows (what differs from the default) and repeats."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import read_yaml
from taggant_lightning.sweeps.rows import Row, read_rows
from taggant_lightning.sweeps.trees import Tree, check_stage, known, mapping, merge, names_of, whole

_ENTRIES = {
    "title", "claim", "shared_keys", "first_seed", "repeats", "report", "values", "stages", "default", "rows", "vary", "grid",
}  # fmt: skip
_PROFILE_ENTRIES = {"base", "values", "stages", "slurm"}


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
        TaggantError: If a file is missing or is no YAML, or has entries that are unknown, missing or of another kind.
    """
    content = read_yaml(path, what="experiment", hint="name an experiment.yaml (experiments/README.md)")
    known(content, _ENTRIES, path)
    own = Path(profile) if profile.endswith((".yaml", ".yml")) else path.parent.parent / "profiles" / f"{profile}.yaml"
    scale = _read_profile(own)
    for name in ("title", "claim"):
        if name not in content:
            raise TaggantError(f"{path} has no entry {name}; add it")
    stages = merge(scale.get("stages", {}), _stages(content.get("stages"), path))
    values = merge(scale.get("values", {}), mapping(content.get("values"), f"{path}: values"))
    lines = read_rows(content, path, stages, values)
    kept = [row for row in lines if rows is None or rows in row.name]
    if lines and not kept:
        raise TaggantError(f"rows={rows!r} is in no row's name; there are {', '.join(row.name for row in lines)}")
    return Experiment(
        name=path.resolve().parent.name,
        title=str(content["title"]),
        claim=whole(content["claim"], f"{path}: claim", 0),
        profile=own.stem,
        shared_keys=bool(content.get("shared_keys", False)),
        first_seed=whole(content.get("first_seed", 0) if first_seed is None else first_seed, f"{path}: first_seed", 0),
        repeats=whole(_repeats(content, path, own) if repeats is None else repeats, "repeats", 1),
        values=values,
        stages=stages,
        report=names_of(content.get("report"), f"{path}: report"),
        rows=kept,
        slurm=[str(line) for line in scale.get("slurm", [])],
    )


def _repeats(content: Tree, path: Path, profile: Path) -> Any:
    """Return how often rows are repeated at the scale of a profile; once at one that a user brings."""
    given = content.get("repeats", 1)
    if not isinstance(given, dict):
        return given
    for name in given:
        if not (path.parent.parent / "profiles" / f"{name}.yaml").is_file():
            raise TaggantError(f"{path}: repeats names the profile {name!r}, which does not exist; see experiments/profiles")
    if profile.stem not in given and profile.parent.resolve() == (path.parent.parent / "profiles").resolve():
        raise TaggantError(
            f"{path} is not meant for profile={profile.stem}; write one of {', '.join(map(str, given))}, or --repeats N"
        )
    return given.get(profile.stem, 1)


def _read_profile(path: Path) -> Tree:
    """Read a profile on top of its base, which lies beside it."""
    content = read_yaml(path, what="profile", hint="name one of experiments/profiles, or the path of a file")
    known(content, _PROFILE_ENTRIES, path)
    content["stages"] = _stages(content.get("stages"), path)
    content["values"] = mapping(content.get("values"), f"{path}: values")
    base = content.pop("base", None)
    return content if base is None else merge(_read_profile(path.parent / str(base)), content)


def _stages(given: Any, where: object) -> Tree:
    """Return stages whose entries are known and of the right kind."""
    stages = mapping(given, f"{where}: stages")
    for name, stage in stages.items():
        check_stage(stage, f"{where}: stage {name}")
    return stages

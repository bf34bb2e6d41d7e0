"""Trees of YAML: reading one, merging two, and saying what is wrong with one."""

import copy
from collections.abc import Mapping
from typing import Any

from taggant_lightning.errors import TaggantError

Tree = dict[str, Any]
_STAGE_ENTRIES = {"run", "like", "config", "options"}


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


def mapping(given: Any, where: object) -> Tree:
    """Return a mapping, an empty one for nothing.

    Raises:
        TaggantError: If it is something else.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TaggantError(f"{where} is {given!r} in place of a mapping of names to what they stand for")
    return dict(given)


def known(content: Mapping[str, Any], names: set[str], where: object) -> None:
    """Check the entries of a mapping.

    Raises:
        TaggantError: If one is unknown.
    """
    for name in content:
        if name not in names:
            raise TaggantError(f"{where} has an entry {name!r}, which is unknown; write one of {', '.join(sorted(names))}")


def whole(given: Any, where: str, least: int) -> int:
    """Return a whole number.

    Raises:
        TaggantError: If it is none, or below the least.
    """
    if not isinstance(given, int) or isinstance(given, bool) or given < least:
        raise TaggantError(f"{where}={given!r} must be a whole number of at least {least}")
    return given


def names_of(given: Any, where: str) -> list[str]:
    """Return a list of names, an empty one for nothing.

    Raises:
        TaggantError: If it is something else.
    """
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise TaggantError(f"{where} is {given!r} in place of a list of stages; write [{given}] for one")
    return given


def check_stage(stage: Any, where: str) -> None:
    """Check the entries of a stage, or of what a row changes in one.

    Raises:
        TaggantError: If one is unknown or of another kind.
    """
    if not isinstance(stage, Mapping):
        raise TaggantError(f"{where} is {stage!r} in place of a mapping")
    known(stage, _STAGE_ENTRIES, where)
    for name in ("config", "options"):
        mapping(stage.get(name), f"{where}: {name}")
    for name in ("run", "like"):
        if name in stage and (not isinstance(stage[name], str) or not stage[name].strip()):
            raise TaggantError(f"{where}: {name} is {stage[name]!r}; write a command, or the name of a stage")

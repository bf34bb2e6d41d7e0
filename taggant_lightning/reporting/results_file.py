"""The results file of an experiment, as `taggant sweep` writes it, read and checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import read_json
from taggant_lightning.outside import shown
from taggant_lightning.outside.fields import TEXT

SCHEMA_VERSION = 1
MOST_NAMES = 1_000  # of values in a file: each is a column
# Whole numbers that describe a test; every other number of a repeat is a measurement.
COUNTS = ("hits", "num_keys", "top_k", "num_classes")
LOG10_P = "log10_p"
LARGEST = 1e100  # of a value: no infinity passes, and squares of deviations stay finite
_SHARES = {"accuracy", "acc", "share", "found", "removed"}
_ENTRIES: dict[str, tuple[type, ...]] = {
    "experiment": (str,),
    "title": (str,),
    "profile": (str,),
    "shared_keys": (bool,),
    "first_seed": (int,),
    "repeats": (int,),
    "hours": (int, float),
    "rows": (list,),
    "unfinished": (list,),
    "commit": (str, type(None)),
    "hardware": (str,),
}


@dataclass(frozen=True)
class Repeat:
    """One run of a row.

    Attributes:
        seed: From which its keys, models and data order were drawn.
        values: What was measured, by name; empty where a node failed.
    """

    seed: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One setting of an experiment.

    Attributes:
        name: What a reader sees.
        factor: The quantity that rows of this kind vary, if they vary one.
        published: Published figures by their names, as they are printed.
        repeats: Its runs.
    """

    name: str
    factor: str | None
    published: Mapping[str, str]
    repeats: tuple[Repeat, ...]

    @property
    def measured(self) -> list[Repeat]:
        """The repeats that measured something."""
        return [repeat for repeat in self.repeats if repeat.values]


@dataclass(frozen=True)
class Results:
    """An experiment's results.

    Attributes:
        experiment: Its short name.
        title: Its title.
        shared_keys: Whether the repeats share their keys.
        rows: Its rows.
        entries: Everything else that the file holds, for captions.
    """

    experiment: str
    title: str
    shared_keys: bool
    rows: tuple[Row, ...]
    entries: Mapping[str, Any]


def is_share(name: str) -> bool:
    """Tell whether a value is a share of one, by a word of its name: accuracy, acc, share, found or removed."""
    return not _SHARES.isdisjoint(re.split(r"[_/ ]", name))


def read_results(path: Path) -> Results:
    """Read a results file.

    Raises:
        TaggantError: If it is missing, damaged, of another version, or holds what no experiment measures.
    """
    return results_of(read_json(path, what="results"), str(path))


def results_of(content: Mapping[str, Any], name: str) -> Results:
    """Check the content of a results file.

    Args:
        content: The JSON object.
        name: The file, for messages.

    Raises:
        TaggantError: If an entry is missing, of the wrong type or out of range.
    """
    if content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version")
        raise _wrong(name, f"has schema_version={shown(repr(found))}, and this program reads {SCHEMA_VERSION}")
    for entry, types in _ENTRIES.items():
        _entry(content, entry, types, name)
    rows = tuple(_row(row, f"row {number}", name) for number, row in enumerate(content["rows"], start=1))
    if not any(row.measured for row in rows):
        raise TaggantError(f"results={name} has no measured row; run the experiment first: taggant sweep EXPERIMENT.yaml --run")
    if len({value for row in rows for repeat in row.repeats for value in repeat.values}) > MOST_NAMES:
        raise _wrong(name, f"has more than {MOST_NAMES:,} different values")
    return Results(content["experiment"], content["title"], content["shared_keys"], rows, content)


def _wrong(name: str, what: str) -> TaggantError:
    return TaggantError(f"results={name} {what}; write a results file that `taggant sweep` made")


def _entry(content: Any, entry: str, types: tuple[type, ...], name: str, where: str = "") -> Any:
    """Return an entry of an object, checked for its type; a bool is no number."""
    place = f" in {where}" if where else ""
    if not isinstance(content, Mapping):
        raise _wrong(name, f"holds no JSON object{place}")
    if entry not in content:
        raise _wrong(name, f"lacks {entry!r}{place}")
    value = content[entry]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise _wrong(name, f"has {entry}={shown(repr(value))}{place}, of the wrong type")
    if isinstance(value, str) and len(value) > TEXT:
        raise _wrong(name, f"has {entry}={shown(repr(value))}{place}, and a text has at most {TEXT:,} characters")
    if isinstance(value, int | float) and not abs(value) <= LARGEST:
        raise _wrong(name, f"has {entry}={value!r}{place}, and numbers are finite")
    return value


def _row(row: Any, where: str, name: str) -> Row:
    title = _entry(row, "row", (str,), name, where)
    where = f"{where} ({title})"
    factor = _entry(row, "factor", (str, type(None)), name, where)
    published = _entry(row, "published", (dict,), name, where)
    repeats = [_repeat(repeat, where, name) for repeat in _entry(row, "repeats", (list,), name, where)]
    return Row(
        title, factor, {column: _printed(column, value, where, name) for column, value in published.items()}, tuple(repeats)
    )


def _printed(column: str, value: Any, where: str, name: str) -> str:
    """Return a published figure as text."""
    text = str(value) if isinstance(value, str | int | float) else None
    if text is None or len(text) > 200:
        raise _wrong(name, f"has {column}={shown(repr(value))} in {where}, and a published figure is a short text")
    return text


def _repeat(repeat: Any, where: str, name: str) -> Repeat:
    seed = _entry(repeat, "seed", (int,), name, f"a repeat of {where}")
    where = f"{where}, seed {seed}"
    given = _entry(repeat, "values", (dict,), name, where)
    values = {value: number for value, number in given.items() if number is not None}  # null: nothing was measured
    for value, number in values.items():
        _check_number(value, number, where, name)
    keys = values.get("num_keys", 0)
    if "hits" in values and not (keys >= 1 and 0 <= values["hits"] <= keys):
        raise _wrong(name, f"has hits={values['hits']} and num_keys={keys} in {where}, and hits lie in 0..num_keys")
    return Repeat(seed, values)


def _check_number(value: str, number: Any, where: str, name: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= LARGEST:
        raise _wrong(name, f"has {value}={shown(repr(number))} in {where}, and values are finite numbers")
    if value in COUNTS and not isinstance(number, int):
        raise _wrong(name, f"has {value}={number!r} in {where}, and that is a whole number")
    if value == LOG10_P and number > 0:
        raise _wrong(name, f"has {value}={number!r} in {where}, and the logarithm of a p-value is at most 0")
    if is_share(value) and not -1 <= number <= 1:  # a difference of shares may be negative
        raise _wrong(name, f"has {value}={number!r} in {where}, and a share lies in [0, 1]")

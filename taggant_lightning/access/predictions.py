"""Ranked labels in files: what `taggant predict` writes, and what anybody's own pipeline may write instead."""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.bounded_json import bounded_json
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.access.parquet_file import read_parquet
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import write_atomic
from taggant_lightning.outside import shown
from taggant_lightning.outside.documents import HEAVY, read_bounded

COLUMNS = ("query", "labels", "scores")
FORMATS = ".csv (query,labels and, if you like, scores), .jsonl or .parquet"
IMAGE = re.compile(r"\.(png|jpe?g|webp|bmp|tiff?)", re.IGNORECASE)
WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
LARGEST = 256 * 2**20  # bytes of a file: whole rankings with scores of a thousand classes for five thousand queries
LONGEST_LABEL = 1_000  # characters; a longer one is the name of no class


@dataclass(frozen=True)
class Row:
    """What a predictions file says of one query.

    Attributes:
        labels: The model's own labels as text, best first; one may come twice, and None stands for an entry that is no label.
            None altogether where the model refused or gave no usable answer.
        scores: The score of each label in the same order, where the file has scores.
        odd: Why the row is of no use, where it is not simply empty.
    """

    labels: tuple[str | None, ...] | None
    scores: tuple[float, ...] | None = None
    odd: str | None = None


def write_predictions(path: Path, answers: Sequence[Answer], names: Sequence[str] | None = None) -> None:
    """Write `query,labels`; labels are separated by spaces, and empty where the model gave no usable answer.

    Args:
        path: The CSV file.
        answers: Rankings of the model's own class numbers.
        names: The queries' names by number; None writes the numbers.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["query", "labels"])
    queries = [a.query if names is None else names[a.query] for a in answers]
    writer.writerows([query, " ".join(map(str, a.labels or ()))] for query, a in zip(queries, answers, strict=True))
    write_atomic(path, text.getvalue().encode())


def query_name(identity: str) -> str:
    """Return a query's name without a folder and an image's suffix: `queries/0007.png` is `0007`."""
    name = identity.strip().replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and IMAGE.fullmatch(dot + suffix) else name


def read_predictions(path: str | Path) -> dict[str, Row]:
    """Read what a model answered.

    Where a file has scores, they rank the labels: the highest first, and equal ones by the lowest label (as numbers if all
    labels of the row are whole numbers, else as text), never by their order in the file. Without scores the order counts.

    Args:
        path: CSV with the columns `query,labels` and perhaps `scores`, each list separated by spaces or a JSON list; JSON
            Lines, `{"query": …, "labels": […], "scores": […]}` each; or parquet with these columns. No labels are a refusal.

    Returns:
        Rows by the query's name (see `query_name`), in the file's order. A row whose answer cannot be read is a miss that says
        why; the model that answered decides what it holds.

    Raises:
        TaggantError: If the file is missing, empty, damaged or too large, has other columns, a row is doubled or names no
            query, or no row can be read.
    """
    where = Path(path)
    what = f"predictions={where}"
    readers = {".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}
    if where.suffix.lower() not in readers:
        raise TaggantError(f"{what} ends in {where.suffix or 'nothing'!r}; write {FORMATS}")
    if not where.is_file():
        raise TaggantError(f"{what} is no file; write {FORMATS}")
    if where.stat().st_size > LARGEST:
        raise TaggantError(f"{what} has more than {LARGEST // 2**20} MiB; write the first places of each answer only")
    rows: dict[str, Row] = {}
    places: dict[str, int] = {}
    for place, record in readers[where.suffix.lower()](where, what):
        identity = record.get("query")
        if isinstance(identity, bool) or not isinstance(identity, str | int) or not (name := query_name(str(identity))):
            raise TaggantError(f"{what} row {place}: '{shown(identity)}' names no query; write the name of its image file")
        if name in rows:
            raise TaggantError(
                f"{what} answers '{shown(name)}' twice, in rows {places[name]} and {place}; keep one row a query"
            )
        try:
            rows[name] = _row(record)
        except ValueError as error:
            rows[name] = Row(None, odd=f"row {place}, query '{shown(name)}': {error}")
        places[name] = place
    if not rows:
        raise TaggantError(f"{what} holds no row; write one a query")
    odd = [row.odd for row in rows.values() if row.odd is not None]
    if odd and all(row.labels is None for row in rows.values()):
        raise TaggantError(f"{what} {odd[0]}")
    return rows


def answers_of(rows: Mapping[str, Row], names: Sequence[str], table: LabelTable, *, what: str = "predictions") -> list[Answer]:
    """Turn rows into answers in the owner's numbering, one a query.

    Args:
        rows: What was read.
        names: The queries' names, by number; a folder and an image's suffix do not count.
        table: The owner's label of each label in the rows.
        what: The argument and its file, for messages.

    Returns:
        One answer a name, numbered by its place.

    Raises:
        TaggantError: If a query has no row, a row no query, no row names a label of the table, or classes are counted from 1.
    """
    wanted = [query_name(name) for name in names]
    if missing := [name for name in wanted if name not in rows]:
        raise TaggantError(
            f"{what} has no row for {_some(missing)} of the {len(wanted)} queries; answer each query, with empty labels where "
            "the model refused"
        )
    if unknown := [name for name in rows if name not in set(wanted)]:
        raise TaggantError(f"{what} has rows for {_some(unknown)}, which are no queries of these keys; answer the queries only")
    found = [rows[name] for name in wanted]
    _check_labels({label for row in found for label in row.labels or () if label is not None}, table, what)
    return [
        Answer(number, None if row.labels is None else table.translate(row.labels), row.scores)
        for number, row in enumerate(found)
    ]


def misses(rows: Mapping[str, Row], names: Sequence[str]) -> dict[str, int]:
    """Count the queries that are misses because of what their rows hold, by kind.

    Args:
        rows: What was read.
        names: The queries' names.
    """
    found = [rows[query_name(name)] for name in names]
    kinds = {
        "no labels": sum(row.labels is None and row.odd is None for row in found),
        "a row that cannot be read": sum(row.odd is not None for row in found),
    }
    return {kind: number for kind, number in kinds.items() if number}


def _check_labels(named: Set[str], table: LabelTable, what: str) -> None:
    """Refuse labels that are plainly numbered or named by another table; single ones that nobody knows are misses."""
    last = str(table.num_classes)
    from_one = table.where is None and last in named and "0" not in named
    if not named or (any(map(table.lists, named)) and not from_one):
        return
    example = shown(last if from_one else min(named), 40)
    if table.where is None:
        raise TaggantError(
            f"{what}: the answer {example!r} lies outside 0..{table.num_classes - 1}, the owner's classes"
            f"{', and none is 0: are they counted from 1?' if from_one else ''}; "
            "write --labels FILE with a table of the model's labels"
        )
    raise TaggantError(f"{what}: labels={table.where} lists no label of any answer, such as {example!r}; name the right table")


def _row(record: Mapping[str, Any]) -> Row:
    """Check one record, and rank its labels where it has scores."""
    given = _list(record.get("labels"), "labels")
    labels = [_label(value) for value in given]
    if labels and all(label is None for label in labels):
        raise ValueError(f"the label {shown(given[0], 40)} is neither a number of a class nor its name")
    scores = [_score(value) for value in _list(record.get("scores"), "scores")]
    if scores and len(scores) != len(labels):
        raise ValueError(f"{len(labels)} labels and {len(scores)} scores; write one score a label, or none")
    if not labels or any(math.isnan(score) for score in scores):
        return Row(None)
    if not scores:
        return Row(tuple(labels))
    numbers = all(label is not None and WHOLE.fullmatch(label) for label in labels)
    keys = [(-score, int(str(label)) if numbers else 0, str(label)) for score, label in zip(scores, labels, strict=True)]
    order = sorted(range(len(labels)), key=keys.__getitem__)
    return Row(tuple(labels[i] for i in order), tuple(scores[i] for i in order))


def _list(value: Any, name: str) -> list[Any]:
    """Return a cell as a list: text is a JSON list or separated by spaces, nothing is empty."""
    if value is None:
        return []
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith("["):
            return text.split()
        try:
            value = bounded_json(text.encode())
        except (ValueError, RecursionError):
            raise ValueError(
                f'{name} \'{shown(text, 40)}\' is no JSON list; write ["a", "b"], or words separated by spaces'
            ) from None
    if not isinstance(value, list):
        raise ValueError(f"{name} is {shown(value, 40)}; write a list")
    return value


def _label(value: Any) -> str | None:
    """Return a label as text; None for an entry that is none, which uses up its place."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value).strip()[:LONGEST_LABEL] or None


def _score(value: Any) -> float:
    if value is None:  # how JSON and parquet write NaN
        return math.nan
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"the score '{shown(value, 40)}' is no number") from None


def _content(path: Path, what: str) -> bytes:
    try:
        return read_bounded(path, HEAVY)
    except (OSError, ValueError) as error:
        raise TaggantError(f"{what} cannot be read ({error}); write {FORMATS}") from None


def _csv(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = _content(path, what).decode("utf-8-sig")
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(rows, [])]
        _check_columns(header, what)
        for number, row in enumerate((row for row in rows if row), start=1):
            if len(row) != len(header):
                raise TaggantError(
                    f"{what} row {number} has {len(row)} cells and the header {len(header)}; separate labels by spaces, and "
                    "quote a list that holds commas"
                )
            yield number, dict(zip(header, row, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise TaggantError(f"{what} is no CSV ({shown(error)}); write UTF-8 with the columns query,labels") from None


def _jsonl(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = _content(path, what).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise TaggantError(f"{what} is no text ({shown(error)}); write UTF-8, one JSON object a line") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = bounded_json(line.encode())
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise TaggantError(f'{what} row {number} is no JSON object; write {{"query": "0007", "labels": [3, 1]}}')
        _check_columns(list(record), f"{what} row {number}")
        yield number, record


def _parquet(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = read_parquet(path, what)
    _check_columns(next(rows, []), what)
    yield from enumerate(rows, start=1)


def _check_columns(names: Sequence[str], what: str) -> None:
    """Refuse columns that nobody reads: a misspelt `scores` would change the ranking without a word."""
    if not names:
        raise TaggantError(f"{what} is empty; write the columns query,labels and one row a query")
    if not {"query", "labels"} <= set(names) or not set(names) <= set(COLUMNS) or len(set(names)) < len(names):
        found = shown(",".join(map(str, names)))
        raise TaggantError(f"{what} has the columns {found!r}; write query,labels or query,labels,scores and no other")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(repr(shown(name, 40)) for name in names[:3]) + more

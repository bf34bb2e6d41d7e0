"""Ranked labels in files: what `taggant predict` writes, and what anybody's own pipeline may write instead."""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import write_atomic
from taggant_lightning.outside.documents import HEAVY, parse_json, read_bounded

COLUMNS = ("query", "labels", "scores")
FORMATS = ".csv (query,labels and, if you like, scores), .jsonl or .parquet"
IMAGE = re.compile(r"\.(png|jpe?g|webp|bmp|tiff?)", re.IGNORECASE)
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


@dataclass(frozen=True)
class Row:
    """What a predictions file says of one query.

    Attributes:
        labels: The model's own labels as text, different, best first; None where the model refused or gave no usable answer.
        scores: The score of each label in the same order, where the file has scores.
    """

    labels: tuple[str, ...] | None
    scores: tuple[float, ...] | None = None


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
        Rows by the query's name (see `query_name`), in the file's order.

    Raises:
        TaggantError: If the file is missing, empty or damaged, has other columns, or a row is doubled or doubtful.
    """
    where = Path(path)
    what = f"predictions={where}"
    readers = {".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}
    if where.suffix.lower() not in readers:
        raise TaggantError(f"{what} ends in {where.suffix or 'nothing'!r}; write {FORMATS}")
    if not where.is_file():
        raise TaggantError(f"{what} is no file; write {FORMATS}")
    rows: dict[str, Row] = {}
    places: dict[str, int] = {}
    for place, record in readers[where.suffix.lower()](where, what):
        identity = record.get("query")
        if isinstance(identity, bool) or not isinstance(identity, str | int) or not (name := query_name(str(identity))):
            raise TaggantError(f"{what} row {place}: {identity!r} names no query; write the name of its image file")
        if name in rows:
            raise TaggantError(f"{what} answers {name!r} twice, in rows {places[name]} and {place}; keep one row a query")
        try:
            rows[name] = _row(record)
        except ValueError as error:
            raise TaggantError(f"{what} row {place}, query {name!r}: {error}") from None
        places[name] = place
    if not rows:
        raise TaggantError(f"{what} holds no row; write one a query")
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
        TaggantError: If a query has no row, a row no query, or the table does not list a label.
    """
    wanted = [query_name(name) for name in names]
    if missing := [name for name in wanted if name not in rows]:
        raise TaggantError(
            f"{what} has no row for {_some(missing)} of the {len(wanted)} queries; answer each query, with empty labels where "
            "the model refused"
        )
    if unknown := [name for name in rows if name not in set(wanted)]:
        raise TaggantError(f"{what} has rows for {_some(unknown)}, which are no queries of these keys; answer the queries only")
    answers = []
    for number, name in enumerate(wanted):
        row = rows[name]
        labels = None if row.labels is None else table.translate(row.labels, name)
        answers.append(Answer(number, labels, row.scores))
    return answers


def _row(record: Mapping[str, Any]) -> Row:
    """Check one record, and rank its labels where it has scores."""
    labels = [_label(value) for value in _list(record.get("labels"), "labels")]
    scores = [_score(value) for value in _list(record.get("scores"), "scores")]
    doubled = sorted(label for label, count in Counter(labels).items() if count > 1)
    if doubled:
        raise ValueError(f"the label {doubled[0]!r} comes twice; rank different labels")
    if scores and len(scores) != len(labels):
        raise ValueError(f"{len(labels)} labels and {len(scores)} scores; write one score a label, or none")
    if not labels or any(math.isnan(score) for score in scores):
        return Row(None)
    if not scores:
        return Row(tuple(labels))
    numbers = all(WHOLE.fullmatch(label) for label in labels)
    keys = [(-score, int(label) if numbers else 0, label) for score, label in zip(scores, labels, strict=True)]
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
            value = parse_json(text, endless=True)
        except ValueError:
            raise ValueError(f'{name} {text[:40]!r} is no JSON list; write ["a", "b"], or words separated by spaces') from None
    if not isinstance(value, list):
        raise ValueError(f"{name} is {value!r:.40}; write a list")
    return value


def _label(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"the label {value!r:.40} is neither a number of a class nor its name")
    return str(value).strip()


def _score(value: Any) -> float:
    if value is None:  # how JSON and parquet write NaN
        return math.nan
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"the score {value!r:.40} is no number") from None


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
        raise TaggantError(f"{what} is no CSV ({error}); write UTF-8 with the columns query,labels") from None


def _jsonl(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = _content(path, what).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise TaggantError(f"{what} is no text ({error}); write UTF-8, one JSON object a line") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line, endless=True)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise TaggantError(f'{what} row {number} is no JSON object; write {{"query": "0007", "labels": [3, 1]}}')
        _check_columns(list(record), f"{what} row {number}")
        yield number, record


def _parquet(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise TaggantError(f"{what} needs pyarrow; run pip install 'taggant-lightning[parquet]', or write .csv") from None
    try:
        table = parquet.read_table(str(path))
        records = table.to_pylist()
    except (ArrowException, OSError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TaggantError(f"{what} is no parquet file ({lines[0][:200]}); write it again, or .csv") from None
    _check_columns(list(table.column_names), what)
    yield from enumerate(records, start=1)


def _check_columns(names: Sequence[str], what: str) -> None:
    """Refuse columns that nobody reads: a misspelt `scores` would change the ranking without a word."""
    if not names:
        raise TaggantError(f"{what} is empty; write the columns query,labels and one row a query")
    if not {"query", "labels"} <= set(names) or not set(names) <= set(COLUMNS) or len(set(names)) < len(names):
        found = ",".join(map(str, names))
        raise TaggantError(f"{what} has the columns {found[:80]!r}; write query,labels or query,labels,scores and no other")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more

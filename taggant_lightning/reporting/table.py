"""Tables of experiments' results as values: which columns there are and what each row has in them, not how it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from taggant_lightning.errors import TaggantError
from taggant_lightning.reporting.results_file import COUNTS, LOG10_P, Repeat, Results, Row, is_share
from taggant_lightning.statistics import combine, mean_sd, median

Kind = Literal["text", "count", "value", "share", "hits", "log10"]
NAMES_SHOWN = 5  # of unfinished commands


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        key: Its name for machines, and for `--columns`.
        heading: Its name for readers.
        kind: What its cells are: `share` is a share of one, shown in per cent.
        place: Columns are ordered by this, then as they appear.
        choice: Another name that `--columns` takes.
    """

    key: str
    heading: str
    kind: Kind
    place: int
    choice: str = ""


EXPERIMENT = Column("experiment", "experiment", "text", 0)
ROW = Column("row", "row", "text", 1)
COUNT = Column("n", "n", "count", 2)
VALUES = 3  # the place of what was measured
KEY_ACCURACY = Column("key_accuracy", "key accuracy, %", "share", 4)
HITS = Column("hits", "hits", "hits", 5)
MEDIAN = Column("log10_p_median", "log10 p (median)", "log10", 6, "median")
FISHER = Column("log10_p_fisher", "log10 p (Fisher)", "log10", 7, "combined")
SUMMARY = Column("log10_p_shared_keys", "summary (shared keys)", "log10", 8, "combined")
PUBLISHED = 9
LEADING = (EXPERIMENT, ROW)


@dataclass(frozen=True)
class Count:
    """Repeats that measured something, of those that were meant to."""

    measured: int
    planned: int


@dataclass(frozen=True)
class Figure:
    """A figure of several repeats.

    Attributes:
        value: Their mean, median or combination.
        spread: The sample standard deviation of a mean of two or more.
        count: Repeats that gave it.
    """

    value: float
    spread: float | None
    count: int


@dataclass(frozen=True)
class Hits:
    """Hits and keys of each repeat; None where a repeat has none."""

    hits: tuple[int | None, ...]
    num_keys: tuple[int | None, ...]


Cell = str | Count | Figure | Hits
Cells = Mapping[Column, Cell]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: A short name.
        title: One line.
        caption: Sentences below it.
        columns: Its columns.
        rows: What each row has in them; a row may lack some.
    """

    name: str
    title: str
    caption: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Cells, ...]


def table_of(results: Results) -> Table:
    """Return an experiment's table.

    Columns: the row; n, its repeats; every value that was measured, as mean and sample standard deviation; key accuracy, hits
    over keys; the hits themselves; the median of log10 p; all p-values combined by Fisher's method, where each repeat has keys
    of its own, and under another heading where they share keys, as that is no p-value; published figures.
    """
    rows = tuple(_cells(row, shared_keys=results.shared_keys) for row in results.rows)
    columns = ordered(rows)
    return Table(results.experiment, results.title, tuple(_caption(results.entries, columns, rows)), columns, rows)


def ordered(rows: Sequence[Cells]) -> tuple[Column, ...]:
    """Return the columns that rows have, in their order."""
    found = dict.fromkeys(column for row in rows for column in row)
    return tuple(sorted(found, key=lambda column: column.place))


def merged(tables: Sequence[Table]) -> Table:
    """Return one table of several, with a leading column that names the experiment."""
    rows = tuple({EXPERIMENT: table.name, **row} for table in tables for row in table.rows)
    caption = tuple(f"{table.name}: {sentence}" for table in tables for sentence in table.caption)
    title = "; ".join(dict.fromkeys(table.title for table in tables))
    return Table("-".join(dict.fromkeys(table.name for table in tables)), title, caption, ordered(rows), rows)


def choose(tables: Sequence[Table], wanted: Sequence[str]) -> list[Table]:
    """Keep some columns, in the order asked for; the row's name always leads.

    Args:
        tables: One table or more; a column need not be in all of them.
        wanted: Keys of columns or their other names, with spaces or underscores: `accuracy`, `hits`, `median`, `combined`,
            `published`.

    Raises:
        TaggantError: If no table has such a column.
    """
    every = list(dict.fromkeys(column for table in tables for column in table.columns if column not in LEADING))
    chosen: dict[Column, None] = {}
    for name in wanted:
        plain = name.strip().replace(" ", "_")
        found = [column for column in every if plain in (column.key, column.choice)]
        if not found and plain != ROW.key:
            there = ", ".join(column.key for column in every)
            raise TaggantError(f"columns={name!r} is in no table; write some of {there}")
        chosen |= dict.fromkeys(found)
    lead = [[column for column in table.columns if column in LEADING] for table in tables]
    kept = [[column for column in chosen if column in table.columns] for table in tables]
    return [replace(table, columns=(*first, *rest)) for table, first, rest in zip(tables, lead, kept, strict=True)]


def _cells(row: Row, *, shared_keys: bool) -> dict[Column, Cell]:
    cells: dict[Column, Cell] = {ROW: row.name, COUNT: Count(len(row.measured), len(row.repeats))}
    for name in dict.fromkeys(name for repeat in row.repeats for name in repeat.values):
        if name not in (*COUNTS, LOG10_P):
            cells[_column(name)] = _figure([repeat.values[name] for repeat in row.repeats if name in repeat.values])
    cells |= _test_cells(row.repeats, shared_keys)
    for name, text in row.published.items():
        cells[Column(f"published_{_plain(name)}", f"published {name}", "text", PUBLISHED, "published")] = text
    return cells


def _test_cells(repeats: Sequence[Repeat], shared_keys: bool) -> dict[Column, Cell]:
    cells: dict[Column, Cell] = {}
    asked = [repeat.values for repeat in repeats if "hits" in repeat.values]
    if asked:
        cells[KEY_ACCURACY] = _figure([values["hits"] / values["num_keys"] for values in asked])
        cells[HITS] = Hits(_integers(repeats, "hits"), _integers(repeats, "num_keys"))
    tested = [repeat for repeat in repeats if LOG10_P in repeat.values]
    if tested:
        values = [repeat.values[LOG10_P] for repeat in tested]
        together = combine(values, [repeat.seed for repeat in tested], shared_keys=shared_keys)
        cells[MEDIAN] = Figure(median(values), None, len(values))
        cells[FISHER if together.p_value else SUMMARY] = Figure(together.log10, None, len(values))
    return cells


def _integers(repeats: Sequence[Repeat], name: str) -> tuple[int | None, ...]:
    return tuple(int(repeat.values[name]) if "hits" in repeat.values else None for repeat in repeats)


def _figure(values: Sequence[float]) -> Figure:
    mean, sd = mean_sd(values)
    return Figure(mean, sd, len(values))


def _column(name: str) -> Column:
    heading = " ".join(_plain(name).split("_"))
    if _plain(name) == KEY_ACCURACY.key:  # measured by the experiment itself; hits / keys replaces it
        return KEY_ACCURACY
    return (
        Column(_plain(name), f"{heading}, %", "share", VALUES)
        if is_share(name)
        else Column(_plain(name), heading, "value", VALUES)
    )


def _plain(name: str) -> str:
    return name.replace(" ", "_")


def _caption(entries: Mapping[str, Any], columns: Sequence[Column], rows: Sequence[Cells]) -> list[str]:
    commit = entries["commit"] or "unknown"
    repeats = "1 repeat" if entries["repeats"] == 1 else f"{entries['repeats']} repeats"
    sentences = [
        f"Profile {entries['profile']}: {repeats} from seed {entries['first_seed']}, "
        f"{entries['hours']:.2g} hours on {entries['hardware']}, commit {commit}."
    ]
    if any(isinstance(cell, Figure) and cell.spread is not None for row in rows for cell in row.values()):
        sentences.append("± is the sample standard deviation over the repeats.")
    if SUMMARY in columns:
        sentences.append("Repeats that share keys depend on one another, so their summary is not a p-value.")
    if unfinished := entries["unfinished"]:
        names = [str(name) for name in unfinished]
        more = ", …" if len(names) > NAMES_SHOWN else ""
        sentences.append(f"Commands that did not finish: {len(names)} ({', '.join(names[:NAMES_SHOWN])}{more}).")
    if isinstance(command := entries.get("command"), str):
        sentences.append(f"Made by `{command}`.")
    return sentences

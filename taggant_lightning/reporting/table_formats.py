"""Tables as Markdown, CSV and LaTeX. Numbers for readers are rounded and have real minus signs; CSV holds all their digits."""

import csv
import io
import math
import re
from collections.abc import Callable, Sequence

from taggant_lightning.outside import cell, shown
from taggant_lightning.reporting.table import LEADING, Cell, Cells, Column, Count, Figure, Hits, Table, choose, merged

ABSENT = "–"
MINUS = "−"
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    MINUS: "$-$", "±": r"$\pm$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\to$",
    "–": "--", "…": r"\ldots{}", "ε": r"$\varepsilon$", "<": "$<$", ">": "$>$", "|": r"$|$",
}  # fmt: skip


def formatted(tables: Sequence[Table], style: str, wanted: Sequence[str] | None = None) -> str:
    """Return tables in one of the styles: Markdown's one below the other, in CSV and LaTeX a single one led by the experiment.

    Args:
        tables: One or more.
        style: One of `STYLES`.
        wanted: The columns to keep, as `choose` takes them; None keeps all.

    Raises:
        TaggantError: If no table has a column that is wanted.
    """
    if style != "markdown" and len(tables) > 1:
        tables = [merged(tables)]
    return "\n".join(STYLES[style](table) for table in (tables if wanted is None else choose(tables, wanted)))


def markdown(table: Table) -> str:
    """Return a table as Markdown, below its title."""
    lines = [[column.heading for column in table.columns], *texts(table)]
    first, *rest = (f"| {' | '.join(_one_line(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    rule = "|".join(" --- " if column.kind == "text" else " ---: " for column in table.columns)
    return "\n".join([f"### {_one_line(table.title)}", "", first, f"|{rule}|", *rest, "", *map(_one_line, table.caption), ""])


def latex(table: Table) -> str:
    """Return a LaTeX table in the style of booktabs."""
    alignment = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    body = [" & ".join(map(escaped, line)) + r" \\" for line in texts(table)]
    caption = escaped(" ".join([table.title.rstrip(".") + ".", *table.caption]))
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', table.name)}}}",
            rf"  \begin{{tabular}}{{{alignment}}}",
            r"    \toprule",
            "    " + " & ".join(escaped(column.heading) for column in table.columns) + r" \\",
            r"    \midrule",
            *(f"    {line}" for line in body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """Return text as LaTeX shows it: special characters escaped, minus signs and the like as mathematics, `code` as code."""
    shown = "".join(_LATEX.get(sign, sign) for sign in _one_line(text).replace("--", "-\0-"))
    shown = shown.replace("\0", "{}")  # two hyphens, as options of commands begin, would become a dash
    return re.sub("`([^`]*)`", r"\\texttt{\1}", shown.replace("log10 p", r"$\log_{10} p$"))


def comma_separated(table: Table) -> str:
    """Return a CSV table for programs.

    Measured values have three columns: NAME_mean, NAME_sd and NAME_n, the repeats that gave them. Shares are of one, not of a
    hundred. Numbers have all their digits; what is absent is empty. A text that a spreadsheet would take for a formula has an
    apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell(name) for column in table.columns for name in _fields(column)])
    for row in table.rows:
        writer.writerow([cell(value) for column in table.columns for value in _values(column, row.get(column))])
    return text.getvalue()


STYLES: dict[str, Callable[[Table], str]] = {"markdown": markdown, "csv": comma_separated, "latex": latex}
SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex"}


def _fields(column: Column) -> list[str]:
    if column.kind in ("value", "share"):
        return [f"{column.key}_mean", f"{column.key}_sd", f"{column.key}_n"]
    if column.kind == "log10":
        return [column.key, f"{column.key}_n"]
    return {"count": ["n", "repeats"], "hits": ["hits", "num_keys"]}.get(column.kind, [column.key])


def _values(column: Column, content: Cell | None) -> list[str | float | None]:
    if isinstance(content, Figure):
        spread = [] if column.kind == "log10" else [content.spread]
        return [content.value, *spread, content.count]
    if isinstance(content, Count):
        return [content.measured, content.planned]
    if isinstance(content, Hits):
        return [" ".join("-" if n is None else str(n) for n in numbers) for numbers in (content.hits, content.num_keys)]
    return [None] * len(_fields(column)) if content is None else [content]


def texts(table: Table) -> list[list[str]]:
    """Return what a reader sees in each cell, row by row."""
    return [[_text(column, row) for column in table.columns] for row in table.rows]


def _text(column: Column, row: Cells) -> str:
    cell = row.get(column)
    if cell is None:
        return ABSENT
    if isinstance(cell, Figure):
        measured = next(count.measured for count in row.values() if isinstance(count, Count))
        fewer = f" (n = {cell.count})" if cell.count < measured else ""
        return _figure(cell, column.kind) + fewer
    if isinstance(cell, Count):
        return str(cell.measured) if cell.measured == cell.planned else f"{cell.measured} of {cell.planned}"
    if isinstance(cell, Hits):
        return _hits(cell)
    # Published figures may have a hyphen for a minus.
    return cell if column in LEADING else re.sub(r"(?<![\w.])-(?=[\d.])", MINUS, cell)


def _hits(cell: Hits) -> str:
    keys = {number for number in cell.num_keys if number is not None}
    if len(keys) == 1:
        return f"{', '.join(ABSENT if hits is None else str(hits) for hits in cell.hits)} of {keys.pop()}"
    pairs = zip(cell.hits, cell.num_keys, strict=True)
    return ", ".join(ABSENT if hits is None else f"{hits}/{number}" for hits, number in pairs)


def _figure(figure: Figure, kind: str) -> str:
    value, spread = figure.value, figure.spread
    if kind == "share":
        value, spread, digits = 100 * value, None if spread is None else 100 * spread, 1
    elif kind == "log10":
        digits = 1 if abs(value) >= 10 else 2
    else:
        digits = decimals(max(abs(value), spread or 0.0))
    return number(value, digits) if spread is None else f"{number(value, digits)} ± {number(spread, digits)}"


def decimals(size: float) -> int:
    """Return how many decimals show three digits of a number of this size, at most nine."""
    return 0 if size == 0 else min(9, max(0, 2 - math.floor(math.log10(size))))


def number(value: float, digits: int) -> str:
    """Return a number with this many decimals and a real minus sign; what rounds to zero has no sign."""
    text = f"{value:.{digits}f}"
    return f"{MINUS}{text[1:]}" if text.startswith("-") and float(text) != 0 else text.removeprefix("-")


def _one_line(text: str) -> str:
    return shown(" ".join(text.split()), None)

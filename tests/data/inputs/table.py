"""Writes the table of docs/inputs.md: `python -m tests.data.inputs.table`."""

from pathlib import Path

from tests.data.inputs.archives import ARCHIVES, ARRAYS
from tests.data.inputs.pictures import FILES, Kind

DOCUMENT = Path("docs/inputs.md")
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
VERBS = {
    "exact": ("read exactly", ""),
    "converted": ("converted, and said", "a picture "),
    "refused": ("refused", ""),
    "left out": ("left out, and counted", ""),
}


def written() -> str:
    """Return the table between its marks."""
    parts = []
    for title, kinds in (("A file in a class folder", FILES), ("A zip archive", ARCHIVES), ("An .npz file", ARRAYS)):
        parts += ["", f"| {title} | what happens |", "| --- | --- |", *map(row, kinds)]
    return "\n".join([BEGIN, *parts, "", END])


def row(kind: Kind) -> str:
    """Return a row."""
    verb, _, words = kind.becomes.partition(": ")
    return f"| {kind.what} | {VERBS[verb][0]}{f': {words}' if words else ''} |"


if __name__ == "__main__":
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(text[: text.index(BEGIN)] + written() + text[text.index(END) + len(END) :])

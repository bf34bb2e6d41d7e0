"""Texts from outside, as terminal, log, page and CSV may show them: every character visible, none that acts."""

import re
import sys
import unicodedata
from typing import Any, TextIO

VALUE, LINE = 200, 4000  # characters that are shown of one value, and of a whole line
MARKS = 2  # combining marks on one letter; a pile of them reaches into other lines
_CUT = " […] "
# Letters and marks that show nothing, although Unicode counts them neither as control nor as format characters.
_INVISIBLE = frozenset(
    chr(point)
    for first, last in (
        (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800), (0x3164, 0x3164),
        (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF),
    )
    for point in range(first, last + 1)
)  # fmt: skip
_SPACES = re.compile(r"[^\S\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]{3,}")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def shown(text: object, limit: int | None = VALUE) -> str:
    r"""Return a text as one line that does nothing to whatever shows it.

    Line ends, control characters (terminal sequences begin with one), marks that change the direction of writing, characters
    without width and lone surrogates become escapes such as `\n`, `\x1b` and `\u202e`; letters of all scripts stay. A long row
    of spaces, which would push what follows to the start of a terminal's line, becomes a short one. It does nothing to what it
    returned before.

    Args:
        text: A text, or what `str` makes one of.
        limit: Most characters; of a longer text the middle is left out, so that a sentence keeps its end. None for all.
    """
    return _harmless(_SPACES.sub("  ", str(text)), limit)


def _harmless(whole: str, limit: int | None) -> str:
    if limit is not None and len(whole) > limit:
        end = limit // 4
        whole = whole[: limit - end - len(_CUT)] + _CUT + whole[len(whole) - end :]
    if whole.isascii() and whole.isprintable():
        return whole
    return _bare("".join(_visible(letter) for letter in whole))


def cleaned(value: Any) -> Any:
    """Return a value of dicts, lists and texts with every text in it, names of entries too, as `shown` returns it, uncut.

    Line ends stay: a page shows them as spaces, and within commands they are its own.
    """
    if isinstance(value, str):
        return "\n".join(shown(line, None) for line in value.split("\n"))
    if isinstance(value, dict):
        return {cleaned(name): cleaned(content) for name, content in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(cleaned(content) for content in value)
    return value


def say(text: object = "", *, file: TextIO | None = None, flush: bool = False, limit: int | None = LINE) -> None:
    """Print one line, whatever the text holds; the terminal's encoding does not matter.

    Args:
        text: The line, without its end; what comes from outside may stand in it as it is.
        file: Where to; None for standard output.
        flush: As `print` takes it.
        limit: As `shown` takes it.
    """
    stream = sys.stdout if file is None else file
    line = _harmless(str(text), limit)  # its columns stay
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=flush)


def cell(value: Any) -> Any:
    """Return a cell of a CSV file: a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = shown(value, None)
    return f"'{text}" if value.lstrip(" ").startswith(_FORMULA) else text


def encodable(text: str) -> bool:
    """Return whether UTF-8 can hold a text: words of a command line in another encoding have surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _visible(letter: str) -> str:
    """Return a character as it is, or as an escape where it would show nothing, or act."""
    space = unicodedata.category(letter) == "Zs"
    if (letter.isprintable() or space) and letter not in _INVISIBLE:
        return letter
    return ascii(letter)[1:-1]


def _bare(text: str) -> str:
    """Leave out the combining marks that are too many for one letter."""
    kept, marks = [], 0
    for letter in text:
        marks = marks + 1 if unicodedata.category(letter) in ("Mn", "Me") else 0
        if marks <= MARKS:
            kept.append(letter)
    return "".join(kept)

"""JSON from outside, with its work bounded before anything is built: size, depth, values and digits."""

import json
import re
from typing import Any

DEEPEST = 64  # levels; answers of services have five
VALUES = 500_000  # values and brackets; a hundred thousand labels with scores have less
DIGITS = 100  # characters of a number; Python's own floats are written with at most 24
LONG_NUMBER = re.compile(rb"[-+.0-9eE]{%d}" % (DIGITS + 1))
BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class TooMuchError(ValueError):
    """JSON that asks for more than is read; its text says what of."""


class Pairs(dict[str, Any]):
    """A JSON object that names something twice: a dictionary of the last values, which also keeps all of them.

    Attributes:
        pairs: Names and values in the order of the text.
    """

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def bounded_json(text: bytes) -> Any:
    """Read JSON in UTF-8.

    Args:
        text: The whole text; whoever got it has bounded its length.

    Returns:
        What `json.loads` would; an object with a doubled name is a `Pairs`.

    Raises:
        TooMuchError: If it is deeper than `DEEPEST`, holds more than `VALUES` values, or a number longer than `DIGITS`.
        ValueError: If it is no JSON, or no UTF-8.
    """
    if text.count(b'"') > 4 * VALUES:
        raise TooMuchError(f"more than {VALUES:,} values")
    # Without escapes every second piece between quotes lies outside of the strings.
    outside = b" ".join(text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    if sum(outside.count(mark) for mark in (b",", b"[", b"{")) > VALUES:
        raise TooMuchError(f"more than {VALUES:,} values")
    if LONG_NUMBER.search(outside):
        raise TooMuchError(f"a number of more than {DIGITS} digits")
    depth = 0
    for bracket in outside.translate(None, BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEEPEST:
            raise TooMuchError(f"more than {DEEPEST} levels")
    return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Pairs(pairs)

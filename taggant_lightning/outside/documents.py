"""JSON from outside, read within bounds: bytes, values, depth and digits are limited before anything is made of them."""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

DOCUMENT = 16 * 2**20  # bytes of a record, header, manifest, ledger's entry …
HEAVY = 256 * 2**20  # bytes of what holds images, or whole rankings of all keys
DIGITS = 40  # of a number as it is written; a float needs 25 at most
DEPTH = 32
CONTAINERS, VALUES = 1_000_000, 12_000_000  # 10,000 rankings of 1,000 classes are ten million values


def read_bounded(path: Path, limit: int = DOCUMENT) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file.
        limit: Most bytes.

    Raises:
        OSError: If it is missing or cannot be read.
        ValueError: If it is larger, or a pipe or a device, which may have no end.
    """
    # A pipe that nobody writes to would be waited for without end.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is a pipe or a device and no file")
        content = file.read(min(limit, status.st_size) + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit:,} bytes")
    return content


def parse_json(content: bytes | str, *, pairs: Any = None, endless: bool = False) -> Any:
    """Return what a JSON text holds.

    Args:
        content: The text, UTF-8 where it is bytes.
        pairs: What makes a value of an object's (name, value) pairs; None for a dict, in which no name may come twice.
        endless: Whether NaN and numbers beyond a float's range are allowed: scores of somebody else's model have them.

    Raises:
        ValueError: If it is no JSON, or holds NaN, a name twice, a number without end, too many values, or too deep ones.
    """
    text = content.decode() if isinstance(content, bytes) else content
    containers = text.count("[") + text.count("{")
    if containers > CONTAINERS or text.count(",") > VALUES:
        raise ValueError("it holds too many values")
    try:
        value = json.loads(
            text,
            object_pairs_hook=pairs or _once,
            parse_constant=float if endless else _no_constant,
            parse_int=lambda digits: int(_short(digits)),
            parse_float=float if endless else _finite,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if containers > DEPTH:  # no text with fewer can be deeper
        _refuse_depth(value)
    return value


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH + 1):
        inner: list[Any] = []
        for content in level:
            parts = content.values() if isinstance(content, dict) else content if isinstance(content, list | tuple) else ()
            inner += [part for part in parts if isinstance(part, dict | list | tuple)]
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested more than {DEPTH} deep")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that comes twice: two readers could take different values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _short(digits: str) -> str:
    if len(digits) > DIGITS:
        raise ValueError(f"the number {digits[:10]}… has {len(digits):,} digits")
    return digits


def _finite(digits: str) -> float:
    number = float(_short(digits))
    if not math.isfinite(number):
        raise ValueError(f"the number {digits} is beyond what a computer reckons with")
    return number

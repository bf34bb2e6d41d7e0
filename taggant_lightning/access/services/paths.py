"""Paths into JSON: dotted names and numbers, and `*` for every element of a list."""

import re
from collections.abc import Sequence
from typing import Any

Path = tuple[str, ...]
STAR = "*"
LONGEST = 32  # steps of a path


class MissingError(LookupError):
    """A path that leads to nothing in a JSON value."""


def parse(text: str) -> Path:
    """Return the steps of a path such as `predictions.0.label` or `predictions.*.label`.

    Raises:
        ValueError: If a step is empty, there are two `*`, or more than `LONGEST` steps.
    """
    steps = tuple(text.split("."))
    if not all(steps):
        raise ValueError("a step is empty")
    if len(steps) > LONGEST:
        raise ValueError(f"it has more than {LONGEST} steps")
    if steps.count(STAR) > 1:
        raise ValueError("it has more than one *")
    return steps


def look_up(value: Any, path: Sequence[str]) -> Any:
    """Return what a path leads to; the list of what it leads to in each element where it has a `*`.

    Args:
        value: What JSON can hold.
        path: Steps; a number counts from 0 in a list and is a name in an object.

    Returns:
        What is there. With a `*`, None stands for an element in which the rest of the path leads to nothing.

    Raises:
        MissingError: If a step leads to nothing; behind a `*`, if it does so in every element of a list that is not empty.
    """
    for i, step in enumerate(path):
        if step == STAR:
            if not isinstance(value, list):
                raise MissingError(".".join(path[: i + 1]))
            found = [find(element, path[i + 1 :]) for element in value]
            if found and all(element is None for element in found):
                raise MissingError(".".join(path))
            return found
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and _number(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            raise MissingError(".".join(path[: i + 1]))
    return value


def find(value: Any, path: Sequence[str]) -> Any:
    """Return what a path leads to, as `look_up`; None if it leads to nothing."""
    try:
        return look_up(value, path)
    except MissingError:
        return None


def put(base: Any, path: Sequence[str], value: Any) -> Any:
    """Return a JSON value with one more value in it; the base is left as it is.

    Args:
        base: An object, a list, or None for what the path begins with.
        path: Steps without `*`; a number is a place in a list, an existing one or the next.
        value: What to put there.

    Raises:
        ValueError: If the base holds something else on the way, or a list would get a hole.
    """
    if not path:
        return value
    step, rest = path[0], path[1:]
    if step == STAR:
        raise ValueError("it has a *, and an image goes to one place")
    if _number(step) and (base is None or isinstance(base, list)):
        elements, place = list(base or ()), int(step)
        if place > len(elements):
            raise ValueError(f"place {place} of a list of {len(elements)}")
        below = elements[place] if place < len(elements) else None
        return [*elements[:place], put(below, rest, value), *elements[place + 1 :]]
    if base is not None and not isinstance(base, dict):
        raise ValueError(f"{step!r} lies in something that is no object")
    return {**(base or {}), step: put((base or {}).get(step), rest, value)}


def _number(step: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", step) is not None

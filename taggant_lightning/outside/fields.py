"""What the entries of a record must be, as tables of small rules: types, ranges, sizes, before anything is made of them."""

import math
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taggant_lightning.outside.text import shown

Rule = Callable[[Any, str], None]
TEXT = 10_000  # characters of a text that people write
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def whole(least: int, most: int) -> Rule:
    """A whole number in a range; `true` is none."""

    def check(value: Any, name: str) -> None:
        if type(value) is not int or not least <= value <= most:
            raise _wrong(name, value, f"a whole number in {least}..{most}")

    return check


def number(least: float = -1e15, most: float = 1e15) -> Rule:
    """A finite number in a range."""

    def check(value: Any, name: str) -> None:
        real = type(value) in (int, float) and math.isfinite(value)
        if not real or not least <= value <= most:
            raise _wrong(name, value, f"a number in {least:g}..{most:g}")

    return check


def text(most: int = TEXT) -> Rule:
    """A text; `shown` makes it harmless wherever it is shown."""

    def check(value: Any, name: str) -> None:
        if not isinstance(value, str) or len(value) > most:
            raise _wrong(name, value, f"a text of at most {most:,} characters")

    return check


def matching(pattern: str, wanted: str) -> Rule:
    """A text that a regular expression matches as a whole, such as `[0-9a-f]{64}`."""
    compiled = re.compile(pattern)

    def check(value: Any, name: str) -> None:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise _wrong(name, value, wanted)

    return check


def one_of(*values: str) -> Rule:
    """One of some texts."""

    def check(value: Any, name: str) -> None:
        if not isinstance(value, str) or value not in values:
            raise _wrong(name, value, f"one of {', '.join(values)}")

    return check


def flag(value: Any, name: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(name, value, "true or false")


def or_null(rule: Rule) -> Rule:
    """What another rule allows, or null."""

    def check(value: Any, name: str) -> None:
        if value is not None:
            rule(value, name)

    return check


def each(rule: Rule, most: int, least: int = 0) -> Rule:
    """A list whose members another rule allows."""

    def check(value: Any, name: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise _wrong(name, value, f"a list of {least}..{most:,} members")
        for place, member in enumerate(value):
            rule(member, f"{name}[{place}]")

    return check


def ordinals(below: int, most: int) -> Rule:
    """A list of whole numbers in 0..below−1 or null: one check for all, as a ranking has many."""

    def check(value: Any, name: str) -> None:
        if not isinstance(value, list) or len(value) > most:
            raise _wrong(name, value, f"a list of at most {most:,} labels")
        if not all(label is None or (type(label) is int and 0 <= label < below) for label in value):
            raise _wrong(name, value, f"a list of labels in 0..{below - 1}")

    return check


def fields(required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None, *, more: Rule | None = None) -> Rule:
    """An object.

    Args:
        required: Entries that it has, with their rules.
        optional: Entries that it may have.
        more: The rule of any other entry; None refuses others.
    """
    rules = {**required, **(optional or {})}

    def check(value: Any, name: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(name, value, "an object")
        for missing in (entry for entry in required if entry not in value):
            raise ValueError(f"{_within(name, missing)} is missing")
        for entry, content in value.items():
            rule = rules.get(entry, more)
            if rule is None:
                raise ValueError(f"{_within(name, entry)} is unknown")
            rule(content, _within(name, entry))

    return check


def anything(values: int = 2_000, depth: int = 6) -> Rule:
    """Any JSON that a person may still read: for parts of a record that nothing is computed from."""

    def check(value: Any, name: str) -> None:
        left, level = values, [value]
        for _ in range(depth + 1):
            inner: list[Any] = []
            for content in level:
                members: Sequence[Any] = ()
                if isinstance(content, dict):
                    members = list(content.values())
                    for entry in content:
                        text(200)(entry, f"a name in {name}")
                elif isinstance(content, list):
                    members = content
                elif isinstance(content, str):
                    text()(content, name)
                inner += members
            left -= len(inner)
            if left < 0:
                raise ValueError(f"{name} holds more than {values:,} values")
            if not inner:
                return
            level = inner
        raise ValueError(f"{name} is nested too deeply")

    return check


def _within(name: str, entry: str) -> str:
    return shown(f"{name}.{entry}" if name else entry)


def _wrong(name: str, value: Any, wanted: str) -> ValueError:
    return ValueError(f"{name or 'the content'}={shown(_SHORT.repr(value), 60)} is not {wanted}")

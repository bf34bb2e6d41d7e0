"""What an attacker writes into a record: one entry of a good one replaced, taken out, renamed or repeated."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

ESC = "\x1b[2J\x1b[Hverified\x1b[8m"
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.0, -0.0, 0.5, 1e308, -1e308, 5e-324, "", "x", "1",
    ESC, "\ud800", "a\nholds    number: yes", "\u202egnp.exe", "../../etc/passwd", "/dev/zero", "\x00", "=1+1", "9" * 50,
    "x" * 200_000, "0" * 64, "2026-W45", [], [[]], [None], [1, 2, 3], list(range(5000)), [0] * 3000, ["x"] * 3000, {}, {"x": 1},
    {"": {}}, {"a": {"b": {"c": {"d": [1, {"e": 2}]}}}}, [[[[[[[[[[1]]]]]]]]]],
)  # fmt: skip
# What JSON or Python would not write: put in as text.
TEXTS = ("NaN", "-Infinity", "1e999", "1" * 5000, "[" * 3000 + "]" * 3000, "[" * 200 + "]" * 200, '{"a":1,"a":2}')
MARK = "here goes the text"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Go through every place of a JSON value; of long lists the first two members and the last."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))
    elif isinstance(value, list):
        for place in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            yield from places(value[place], (*path, place))


@st.composite
def bent(draw: st.DrawFn, good: Any) -> str:
    """Draw a JSON text: a good value with one or two of its places bent."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(value))))
        how = draw(st.sampled_from(("replace", "replace", "replace", "text", "remove", "add", "double")))
        new = draw(st.sampled_from(VALUES)) if how in ("replace", "add") else MARK
        if not path:
            value = new if how in ("replace", "text") else value
            continue
        holder = value
        for name in path[:-1]:
            holder = holder[name]
        if how == "remove":
            del holder[path[-1]]
        elif how == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(("more", ESC, "", "\ud800", "x" * 5000)))] = new
        elif how == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[path[-1]]))
        elif how in ("replace", "text"):
            holder[path[-1]] = new
    return json.dumps(value).replace(f'"{MARK}"', draw(st.sampled_from(TEXTS)))

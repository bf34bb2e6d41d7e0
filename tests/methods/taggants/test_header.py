"""Headers that a stranger hands over: each entry is checked before anything rests on it."""

import copy
from typing import Any

import pytest

from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.header import check_header
from taggant_lightning.methods.taggants.keys import KeySet

KEYS = KeySet.draw(
    num_keys=6, num_classes=5, shape=(1, 4, 4), batches=[2, 4], secret=bytes(16), beacon=("ab12", "round 1 of the beacon")
)


def test_what_is_drawn_is_well_formed() -> None:
    for test in ("binomial_top_k", "rank_score", "sequential_top_k"):
        check_header(KeySet.draw(num_keys=2, num_classes=5, shape=(3, 4, 4), test=test).header)
    check_header(KEYS.header)
    older = {"num_keys": 2, "num_classes": 5, "shape": (3, 4, 4), "version": 1}
    check_header(KeySet.draw(**older).header)
    check_header(KeySet.draw(**older, beacon=("ab12", "round 1")).header)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), "x"), (("num_keys",), 6.0), (("num_keys",), True), (("num_keys",), 10**9), (("num_classes",), 1),
        (("shape",), [1, 4]), (("shape",), [1, 4, -4]), (("batches",), [6, -6, 6]), (("batches",), [2, 3]), (("batches",), []),
        (("batches",), [2.0, 4]), (("statement",), 3), (("demo_only",), 0), (("test",), 5), (("test", "top_k"), 9),
        (("test", "name"), "best"), (("derivation",), 5), (("derivation", "grid"), 5), (("derivation", "grid"), 0),
        (("derivation", "source"), "images"), (("derivation", "more"), 1), (("beacon",), []), (("beacon", "value"), "AB12"),
        (("beacon", "value"), "a b12"), (("beacon", "source"), " "), (("beacon", "seeds"), ["00" * 32]), (("more",), 1),
        (("seeds",), "00"), (("seeds",), None), (("beacon", "value"), ""), (("test", "top_k"), True),
        (("uses",), "best"), (("uses",), ["rest"]), (("format",), []), (("format",), "taggant-lightning/keyset/v1"),
    ],
)  # fmt: skip
def test_what_is_not(path: tuple[str, ...], value: Any) -> None:
    header = copy.deepcopy(KEYS.header)
    holder = header
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    with pytest.raises(TaggantError):
        check_header(header)


@pytest.mark.parametrize("header", [None, [], {}, {"format": "x"}, 3])
def test_no_header_at_all(header: Any) -> None:
    with pytest.raises(TaggantError, match="not a KeySet header"):
        check_header(header)

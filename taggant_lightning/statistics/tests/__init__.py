"""The tests of significance that keys can fix, found by name in one table.

Each knows what it needs of an answer, its exact null, its number and its words, so that no other room branches on a name. They
know ranks and classes, and no keys, models or files.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from taggant_lightning.errors import TaggantError
from taggant_lightning.outside import shown
from taggant_lightning.statistics.tests.base import Outcome, SignificanceTest, Words
from taggant_lightning.statistics.tests.binomial_top_k import BinomialTopK
from taggant_lightning.statistics.tests.rank_score import RankScore
from taggant_lightning.statistics.tests.sequential_top_k import SequentialTopK

TESTS: dict[str, type[SignificanceTest]] = {kind.name: kind for kind in (BinomialTopK, RankScore, SequentialTopK)}
USUAL = BinomialTopK.name

__all__ = ["TESTS", "USUAL", "Outcome", "SignificanceTest", "Words", "make_test", "paid", "read_test", "validity"]


def make_test(
    name: str, *, num_classes: int, top_k: int | None = None, bet: float | None = None, stop: float | None = None
) -> SignificanceTest:
    """Return a test with what a person gave.

    Args:
        name: `binomial_top_k` (hits in the top k), `rank_score` (the sum of integer scores of the key labels' ranks) or
            `sequential_top_k` (a bet on hits in the top k, key by key in their order, which may stop early).
        num_classes: C.
        top_k: k, 1..C; None for 1. The rank test looks at whole rankings and takes none.
        bet: Rate of hits that the sequential test bets on, between k/C and 1; None for 0.5, or half way to 1 above that.
        stop: log10 p at which the sequential test stops; None for −6.

    Raises:
        TaggantError: If an argument lies outside its range or does not belong to the test.
    """
    if name not in TESTS:
        raise TaggantError(f"test={name!r} is unknown; write one of {', '.join(TESTS)}")
    kind, parameters = TESTS[name], {"top_k": top_k, "bet": bet, "stop": stop}
    given = {argument: value for argument, value in parameters.items() if value is not None}
    for argument in ("bet", "stop"):
        if argument in given and not kind.may_stop_early:
            early = ", ".join(other.name for other in TESTS.values() if other.may_stop_early)
            raise TaggantError(f"{argument}={given[argument]} belongs to the test {early}, and test={name}; leave it out")
    return kind.make(num_classes=num_classes, **given)


def read_test(description: Any, num_classes: int) -> SignificanceTest:
    """Return the test that a header or a record describes.

    Args:
        description: As `SignificanceTest.description` gives it; from anybody.
        num_classes: C.

    Raises:
        TaggantError: If it is none that this program writes.
    """
    said = f"test={shown(repr(description))} is not one this program knows"
    if not isinstance(description, Mapping) or str(description.get("name")) not in TESTS:
        raise TaggantError(f"{said}; its name is one of {', '.join(TESTS)}")
    try:
        test = TESTS[description["name"]].read(description, num_classes)
    except TaggantError as error:
        raise TaggantError(f"{said}: {error}") from None
    except (KeyError, TypeError, ValueError, OverflowError):
        raise TaggantError(f"{said}: a parameter is missing or is no number") from None
    made = test.description
    # `true` is no 1, and -6 no -6.0: another spelling would be another commitment.
    if made != dict(description) or any(type(value) is not type(_usual(test)[name]) for name, value in made.items()):
        raise TaggantError(f"{said}; it would be {_usual(test)}")
    return test


def _usual(test: SignificanceTest) -> dict[str, Any]:
    """Return a description in the types in which this program writes it."""
    types = {"name": str, "unit": int, "top_k": int, "bet": float, "stop_at_log10_p": float}
    return {name: types[name](value) for name, value in test.description.items()}


def paid(log10_p: float, ways: int) -> float:
    """Return log10 p after what was chosen is paid for: the p-value times the number of ways to choose, at most 1."""
    return min(0.0, log10_p + math.log10(ways))


def validity(test: SignificanceTest, *, incomplete: int, ways: int) -> Literal["exact", "conservative"]:
    """Return whether a p-value is exact, or an upper bound: the one rule for both.

    Args:
        test: The test.
        incomplete: How many answers name fewer of the owner's classes than it looks at; a hit is then less likely than it
            assumes.
        ways: In how many ways what was asked could be chosen; the number is multiplied by it.
    """
    return "conservative" if incomplete or test.bounds_only or ways > 1 else "exact"

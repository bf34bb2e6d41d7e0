"""The one primary test that a KeySet fixes beforehand, and what it makes of the ranks of the key labels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.record_fields import MOST_CLASSES
from taggant_lightning.outside.fields import fields, number, one_of, whole
from taggant_lightning.statistics.binomial import binomial_log10_p
from taggant_lightning.statistics.rank_score import UNIT, rank_score_log10_p, rank_scores
from taggant_lightning.statistics.sequential import log10_wealth, sequential_log10_p
from taggant_lightning.taggants.hits import count_hits

TOP_K, RANK_SCORE, SEQUENTIAL = "binomial_top_k", "rank_score", "sequential_top_k"
TESTS = (TOP_K, RANK_SCORE, SEQUENTIAL)
BET, STOP = 0.5, -6.0
LOWEST_STOP = -1e9
_TEST = fields(
    {"name": one_of(*TESTS)},
    {
        "top_k": whole(1, MOST_CLASSES),
        "unit": whole(1, UNIT),
        "bet": number(0, 1),
        "stop_at_log10_p": number(LOWEST_STOP, 0),
    },
)


@dataclass(frozen=True)
class Outcome:
    """What a test found.

    Attributes:
        log10_p: Base-10 logarithm of the p-value, at most 0.
        details: Numbers of the test, for the record: hits, and the score or the stake where there is one.
    """

    log10_p: float
    details: dict[str, Any]


def make_test(name: str, *, num_classes: int, top_k: int | None, bet: float | None, stop: float | None) -> dict[str, Any]:
    """Return the description of a test that goes into the KeySet's header, and so into its commitment.

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
    for argument, value in (("bet", bet), ("stop", stop)):
        if value is not None and name != SEQUENTIAL:
            raise TaggantError(f"{argument}={value} belongs to the test {SEQUENTIAL}, and test={name}; leave it out")
    if name == RANK_SCORE:
        if top_k is not None:
            raise TaggantError(f"top_k={top_k} is given, and the test {RANK_SCORE} looks at whole rankings; leave it out")
        return {"name": name, "unit": UNIT}
    k = 1 if top_k is None else top_k
    if not 1 <= k <= num_classes:
        raise TaggantError(f"top_k={k} must lie in 1..num_classes, and num_classes={num_classes}")
    if name == TOP_K:
        return {"name": name, "top_k": k}
    rate = k / num_classes
    bet = (max(BET, (1 + rate) / 2) if rate >= BET else BET) if bet is None else bet
    if not rate < bet < 1:
        raise TaggantError(f"bet={bet} must lie between the chance of a hit, {rate:g}, and 1; 0.5 is usual")
    stop = STOP if stop is None else stop
    if not LOWEST_STOP <= stop < 0:
        raise TaggantError(
            f"stop={stop} must be below 0 and from {LOWEST_STOP:g}: the log10 p at which the test stops, for instance -6"
        )
    return {"name": name, "top_k": k, "bet": bet, "stop_at_log10_p": stop}


def arguments_of(test: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `KeySet.draw` that make a header's test.

    Raises:
        KeyError: If a parameter is missing.
    """
    found: dict[str, Any] = {"test": test["name"]}
    if test["name"] != RANK_SCORE:
        found["top_k"] = test["top_k"]
    if test["name"] == SEQUENTIAL:
        found |= {"bet": test["bet"], "stop": test["stop_at_log10_p"]}
    return found


def check_test(test: dict[str, Any], num_classes: int) -> None:
    """Refuse a header's test that `make_test` would not have made.

    Raises:
        TaggantError: If it is unknown or its parameters are out of range.
        KeyError: If a parameter is missing.
        TypeError: If a parameter has another type.
    """
    try:
        _TEST(test, "test")
    except ValueError as error:
        raise TaggantError(str(error)) from None
    arguments = {"top_k": None, "bet": None, "stop": None, **arguments_of(test)}
    made = make_test(arguments.pop("test"), num_classes=num_classes, **arguments)
    types = {"name": str, "unit": int, "top_k": int, "bet": float, "stop_at_log10_p": float}
    whole = all(type(value) is types[name] for name, value in made.items())  # True is no 1, and -6 no -6.0
    if made != test or not whole:
        raise TaggantError(f"test={test} is not one this program knows; it would be {made}")


def places_of(header: dict[str, Any]) -> int:
    """Return how many places of an answer the test looks at."""
    test = header["test"]
    return int(header["num_classes"] if test["name"] == RANK_SCORE else test["top_k"])


def evaluate(test: dict[str, Any], ranks: NDArray[np.int64], num_classes: int) -> Outcome:
    """Run a test.

    Args:
        test: As `make_test` returns it.
        ranks: (n,) int64 ranks of the key labels from 1, in key order; above C where label or answer is missing, which counts
            against the claimant: no hit, or the score of rank C.
        num_classes: C.
    """
    top_k = int(test.get("top_k", 1))
    if test["name"] == SEQUENTIAL:
        ranks = ranks[: stopping_place(test, ranks, num_classes)]
    hits, rate = count_hits(ranks, top_k), top_k / num_classes
    details: dict[str, Any] = {"hits": hits, "num_keys": len(ranks), "top_k": top_k, "num_classes": num_classes, "rate": rate}
    if test["name"] == TOP_K:
        return Outcome(binomial_log10_p(hits, len(ranks), rate), details)
    if test["name"] == RANK_SCORE:
        scores = rank_scores(num_classes, test["unit"])
        total = int(scores[np.minimum(ranks, num_classes) - 1].sum())
        details |= {
            "score": total,
            "score_expected": float(scores.mean()) * len(ranks),
            "score_highest": int(scores[0]) * len(ranks),
        }
        return Outcome(rank_score_log10_p(total, len(ranks), num_classes, test["unit"]), details)
    flags = (ranks <= top_k).tolist()
    log10_p = sequential_log10_p(flags, rate, test["bet"])
    # Its path would tell of every key whether it hit, and the record is public.
    return Outcome(log10_p, {**details, "largest_log10_stake": -log10_p})


def stopping_place(test: dict[str, Any], ranks: NDArray[np.int64], num_classes: int) -> int:
    """Return how many keys a sequential test looks at: up to the one that decides it, or all; the rest tell nothing."""
    wealth = log10_wealth((ranks <= test["top_k"]).tolist(), test["top_k"] / num_classes, test["bet"])
    reached = (place + 1 for place, stake in enumerate(wealth) if stake >= -float(test["stop_at_log10_p"]))
    return next(reached, len(ranks))


def may_stop(test: dict[str, Any], ranks: NDArray[np.int64], num_classes: int) -> bool:
    """Return whether a sequential test has reached the level at which it was fixed to stop; other tests never stop early."""
    if test["name"] != SEQUENTIAL or not len(ranks):
        return False
    return evaluate(test, ranks, num_classes).log10_p <= float(test["stop_at_log10_p"])

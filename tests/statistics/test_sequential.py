"""The sequential test: by hand, Ville's bound by exact enumeration, and what peeking does without it."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taggant_lightning.statistics import sequential_log10_p
from taggant_lightning.statistics.sequential import log10_wealth


def test_by_hand() -> None:
    assert 10 ** log10_wealth([True, False], 0.1, 0.5)[1] == pytest.approx(0.5 / 0.1 * 0.5 / 0.9)
    assert sequential_log10_p([True, True, False], 0.1, 0.5) == pytest.approx(-math.log10(25))
    assert sequential_log10_p([], 0.1, 0.5) == 0
    assert sequential_log10_p([False] * 9, 0.1, 0.5) == 0


@pytest.mark.parametrize(("rate", "bet"), [(0.1, 0.5), (0.3, 0.4), (0.01, 0.9)])
def test_ville_by_enumeration(rate: float, bet: float) -> None:
    """Over all 2^12 sequences with their null probabilities: the largest p-value ≤ α has probability at most α."""
    found = []
    for hits in itertools.product([False, True], repeat=12):
        probability = math.prod(rate if hit else 1 - rate for hit in hits)
        found.append((10 ** sequential_log10_p(hits, rate, bet), probability))
    for level in (0.5, 0.1, 0.01, 1e-3, 1e-6):
        assert sum(q for p, q in found if p <= level) <= level * (1 + 1e-9)
    mean = sum(10 ** log10_wealth(h, rate, bet)[-1] * math.prod(rate if x else 1 - rate for x in h)
               for h in itertools.product([False, True], repeat=8))  # fmt: skip
    assert mean == pytest.approx(1)


@given(st.lists(st.booleans(), max_size=60), st.booleans())
def test_more_queries_never_take_evidence_back(hits: list[bool], more: bool) -> None:
    assert sequential_log10_p([*hits, more], 0.2, 0.6) <= sequential_log10_p(hits, 0.2, 0.6) <= 0


@pytest.mark.parametrize(
    ("rate", "bet", "message"), [(0, 0.5, "rate=0"), (1, 0.5, "rate=1"), (0.2, 0.2, "bet=0.2"), (0.2, 1, "bet=1")]
)
def test_wrong_arguments(rate: float, bet: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sequential_log10_p([True], rate, bet)

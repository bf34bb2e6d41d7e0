"""Curves and shares found: against counting, and ties credited to nobody."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from taggant_lightning.adversary.roc import area, found_at, most_suspicious, roc, threshold
from taggant_lightning.errors import TaggantError

scores = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=40).map(np.array)


@given(signed=scores, others=scores, rate=st.floats(0, 1))
def test_no_threshold_that_keeps_the_rate_finds_more_unless_it_splits_ties(
    signed: np.ndarray, others: np.ndarray, rate: float
) -> None:
    allowed = [t for t in [-math.inf, *others.tolist()] if (others > t).sum() <= rate * len(others) + 1e-9]
    assert (others > threshold(others, rate)).sum() <= rate * len(others) + 1e-9
    assert found_at(signed, others, rate) == max((signed > t).mean() for t in allowed)


@given(signed=scores, others=scores)
def test_area_is_sklearns(signed: np.ndarray, others: np.ndarray) -> None:
    is_signed = np.arange(len(signed) + len(others)) < len(signed)
    assert area(signed, others) == pytest.approx(roc_auc_score(is_signed, np.concatenate([signed, others])))


def test_ties_find_nothing() -> None:
    assert found_at(np.ones(50), np.ones(200), 0.05) == 0
    assert area(np.ones(50), np.ones(200)) == 0.5
    others = np.concatenate([np.zeros(90), np.ones(10)])  # 10 % share the threshold's score
    assert found_at(np.ones(3), others, 0.05) == 0
    assert found_at(np.ones(3), others, 0.1) == 1
    assert found_at(np.full(3, 2.0), others, 0) == 1


def test_exact_counts() -> None:
    others = np.arange(100.0)
    assert threshold(others, 0.01) == 98
    assert threshold(others, 0.29) == 70  # 0.29 * 100 is a little below 29
    assert threshold(others, 1) == -math.inf
    assert found_at(np.array([98.5, 98.0, 3.0, 120.0]), others, 0.01) == 0.5


def test_curve() -> None:
    rng = np.random.default_rng(0)
    signed, others = rng.normal(1, 1, 300), rng.normal(0, 1, 500)
    curve = roc(signed, others)
    assert len(curve.false_positives) == len(curve.found) == 100
    assert curve.false_positives[0] == pytest.approx(1 / 500)
    assert curve.false_positives[-1] == pytest.approx(1)
    assert curve.found[-1] == 1
    assert curve.found[0] == (signed > np.sort(others)[-2]).mean()
    assert (np.diff(curve.found) >= 0).all()
    assert roc(signed, others[:1]) == ([1.0], [1.0])


def test_removal() -> None:
    removed = most_suspicious(np.array([1.0, 5.0, 5.0, 2.0, 5.0]), 0.4)
    assert removed.tolist() == [False, True, True, False, False]


def test_wrong_input() -> None:
    some = np.arange(4.0)
    with pytest.raises(TaggantError, match=r"rate=1.5 must lie in \[0, 1\]"):
        found_at(some, some, 1.5)
    with pytest.raises(TaggantError, match="0 signed and 4 unsigned"):
        area(some[:0], some)
    with pytest.raises(TaggantError, match="not finite"):
        roc(np.array([math.nan]), some)
    for share in (0.0, 0.01, 0.99, 1.0, -1.0, math.nan):
        with pytest.raises(TaggantError, match="must remove at least one and keep at least one"):
            most_suspicious(some, share)

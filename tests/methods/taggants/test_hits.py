"""Rankings and hits: ties, NaN, missing and repeated answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.hits import count_hits, key_ranks


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (4, 6), elements=st.floats(-3, 3, width=16)))
def test_ranks_are_a_permutation_and_ties_go_to_the_lowest_class(scores: np.ndarray) -> None:
    for row, answer in zip(scores, rank(scores), strict=True):
        assert sorted(answer.labels) == list(range(6))
        assert list(answer.labels) == sorted(range(6), key=lambda c: (-row[c], c))


def test_ties_do_not_favour_the_claimant() -> None:
    """A constant model hits only the keys whose label is among the k lowest classes."""
    labels = np.array([0, 1, 2, 3, 4, 5])
    ranks = key_ranks(rank(np.zeros((6, 6))), labels, 6)
    assert ranks.tolist() == [1, 2, 3, 4, 5, 6]
    assert count_hits(ranks, 2) == 2


def test_nan_and_missing_count_against_the_claimant() -> None:
    scores = np.array([[3.0, 1, 0], [np.nan, 1, 0], [3, np.nan, np.nan], [np.inf, 0, -np.inf]])
    ranks = key_ranks(rank(scores), np.array([0, 1, 0, 0]), 3)
    assert ranks.tolist() == [1, 4, 4, 1]
    assert count_hits(ranks, 3) == 2


def test_short_rankings() -> None:
    answers = [Answer(1, (2, 0)), Answer(0, (1,)), Answer(2, ())]
    assert key_ranks(answers, np.array([0, 0, 1]), 3).tolist() == [4, 2, 4]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([Answer(0, (0,))], "1 answers for 2 keys"),
        ([Answer(0, (0,)), Answer(0, (0,))], "each key must be answered exactly once"),
        ([Answer(0, (0,)), Answer(1, (0,)), Answer(1, (0,))], "3 answers for 2 keys"),
        ([Answer(0, (0,)), Answer(1, (3,))], "query 1: an answer lies outside 0..2"),
        ([Answer(0, (0,)), Answer(1, (1, 1))], "query 1: the answer names a label twice"),
    ],
)
def test_refused(answers: list[Answer], message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        key_ranks(answers, np.array([0, 1]), 3)

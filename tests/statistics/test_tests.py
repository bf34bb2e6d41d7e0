"""The three tests a KeySet can fix: against independent formulae, what counts against the claimant, wrong parameters."""

from typing import Any

import numpy as np
import pytest

from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.statistics import binomial_log10_p, rank_score_log10_p, rank_scores, sequential_log10_p
from taggant_lightning.statistics.tests import TESTS, SignificanceTest, make_test, paid, read_test, validity
from taggant_lightning.verdict.verdict import judge

RANKS = np.array([1, 3, 11, 2, 10, 1])


def made(name: str, **more: Any) -> SignificanceTest:
    return make_test(name, num_classes=10, **more)


def test_top_k() -> None:
    outcome = made("binomial_top_k", top_k=2).evaluate(RANKS)
    assert outcome.details["hits"] == 3
    assert outcome.log10_p == binomial_log10_p(3, 6, 0.2)


def test_rank_score() -> None:
    outcome = made("rank_score").evaluate(RANKS)
    scores = rank_scores(10)
    total = int(scores[0] + scores[2] + 0 + scores[1] + scores[9] + scores[0])  # an unlisted label takes rank C
    assert outcome.details["score"] == total
    assert outcome.log10_p == rank_score_log10_p(total, 6, 10)


def test_sequential() -> None:
    test = made("sequential_top_k", top_k=2, bet=0.7, stop=-1.0)
    outcome = test.evaluate(RANKS)
    assert outcome.log10_p == sequential_log10_p([True, False, False, True, False, True], 0.2, 0.7)
    assert not test.decided(RANKS[:1])
    assert test.decided(np.array([1, 1]))
    assert not made("binomial_top_k").decided(np.ones(9, dtype=np.int64))
    assert not test.decided(RANKS[:0])


@pytest.mark.parametrize("name", ["binomial_top_k", "rank_score", "sequential_top_k"])
def test_in_a_keyset(name: str, tmp_path: Any) -> None:
    keys = KeySet.draw(num_keys=6, num_classes=10, shape=(1, 4, 4), test=name, secret=bytes(16))
    keys.save(tmp_path / "k")
    again = KeySet.load(tmp_path / "k")
    assert again.test.description == keys.test.description == keys.header["test"]
    arguments = dict(again.test.arguments)
    assert make_test(arguments.pop("test"), num_classes=10, **arguments).description == again.test.description
    record = judge(RANKS, again)
    assert record.validity == "conservative"  # one label is missing, or the test is always-valid
    full = judge(np.minimum(RANKS, 10), again)
    assert full.validity == ("conservative" if name == "sequential_top_k" else "exact")
    assert record.details["test"] == keys.test.description
    other = KeySet.draw(num_keys=6, num_classes=10, shape=(1, 4, 4), test=name, top_k=None if name == "rank_score" else 2)
    assert other.commitment != keys.commitment


def test_defaults() -> None:
    assert made("sequential_top_k").description == {"name": "sequential_top_k", "top_k": 1, "bet": 0.5, "stop_at_log10_p": -6.0}
    assert made("sequential_top_k", top_k=6).description["bet"] == 0.8
    assert made("rank_score").description == {"name": "rank_score", "unit": 1024}


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("best", {}, "test='best' is unknown; write one of binomial_top_k, rank_score, sequential_top_k"),
        ("rank_score", {"top_k": 3}, "top_k=3 is given, and the test rank_score looks at whole rankings"),
        ("binomial_top_k", {"bet": 0.5}, "bet=0.5 belongs to the test sequential_top_k"),
        ("rank_score", {"stop": -6.0}, "stop=-6.0 belongs to the test sequential_top_k"),
        ("binomial_top_k", {"top_k": 11}, "top_k=11 must lie in 1..num_classes"),
        ("sequential_top_k", {"bet": 0.05}, "bet=0.05 must lie between the chance of a hit, 0.1, and 1"),
        ("sequential_top_k", {"top_k": 10}, "bet=1.0 must lie between"),
        ("sequential_top_k", {"stop": 0.0}, "stop=0.0 must be below 0"),
    ],
)
def test_wrong_parameters(name: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        made(name, **more)


@pytest.mark.parametrize(
    ("description", "why"),
    [
        ({"name": "rank_score", "unit": 7}, "unit=7 is not 1024"),
        ({"name": "rank_score", "unit": 1024.0}, "it would be .*1024}"),
        ({"name": "binomial_top_k"}, "is missing"),
        ({"name": "binomial_top_k", "top_k": "2"}, "is no number"),
        ({"name": "binomial_top_k", "top_k": True}, "it would be .*'top_k': 1}"),
        ({"name": "binomial_top_k", "top_k": 2, "bet": 0.5}, "it would be"),
        ({"name": "sequential_top_k", "top_k": 2, "bet": 0.5, "stop_at_log10_p": -6}, "it would be .*-6.0}"),
        ({"name": "sequential_top_k", "top_k": 2, "bet": float("nan"), "stop_at_log10_p": -6.0}, "bet=nan must lie"),
        ({"name": ["rank_score"]}, "its name is one of"),
        ("binomial_top_k", "its name is one of"),
        (None, "its name is one of"),
    ],
)
def test_a_header_that_no_program_wrote(description: Any, why: str) -> None:
    with pytest.raises(TaggantError, match=why):
        read_test(description, 10)


@pytest.mark.parametrize("test", [made(name) for name in TESTS], ids=TESTS)
def test_the_statistic_against_its_null_gives_the_number(test: SignificanceTest) -> None:
    """The sum of the null from the observed value on is the p-value, where the number is exact; a picture shows both."""
    ranks = np.random.default_rng(2).integers(1, 11, (40, 6))
    null = test.null(6)
    assert np.isclose(null.sum(), 1)
    with np.errstate(divide="ignore"):
        assert np.allclose(test.log10_null(6), np.log10(null))
    for row, value in zip(ranks, test.statistic(ranks), strict=True):
        outcome = test.evaluate(row[: test.looked_at(row)])
        if not test.may_stop_early:
            assert outcome.details["num_keys"] == 6
            assert test.observed(outcome.details) == value
            assert np.isclose(outcome.log10_p, np.log10(null[value:].sum()), atol=1e-9)
        assert np.isclose(test.recompute(outcome.details), outcome.log10_p)


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("rank_score", {"score": 10**6}, "score=1000000, and 1 hits of 6 keys give"),
        ("rank_score", {"score_expected": 1.0}, "is not that of the test"),
        ("sequential_top_k", {"largest_log10_stake": 9.0}, "largest_log10_stake=9.0, and its hits and misses give"),
    ],
)
def test_figures_that_its_hits_do_not_allow(name: str, change: dict[str, Any], why: str) -> None:
    test = made(name)
    details = test.evaluate(np.array([5, 2, 9, 3, 7, 1])).details
    with pytest.raises(ValueError, match=why):
        test.recompute({**details, **change})


def test_what_makes_a_number_conservative() -> None:
    top_k, sequential = made("binomial_top_k"), made("sequential_top_k")
    assert validity(top_k, incomplete=0, ways=1) == "exact"
    assert {validity(top_k, incomplete=1, ways=1), validity(top_k, incomplete=0, ways=2)} == {"conservative"}
    assert validity(sequential, incomplete=0, ways=1) == "conservative"
    assert paid(-3.0, 10) == -2.0
    assert paid(-0.5, 10) == 0.0


def test_a_null_that_is_too_large_to_draw() -> None:
    with pytest.raises(ValueError, match="the null of 10000 keys and 10 classes is too large to draw"):
        made("rank_score").check_drawable(10_000)

"""The three tests a KeySet can fix: against independent formulae, what counts against the claimant, wrong parameters."""

from typing import Any

import numpy as np
import pytest

from taggant_lightning.errors import TaggantError
from taggant_lightning.statistics import binomial_log10_p, rank_score_log10_p, rank_scores, sequential_log10_p
from taggant_lightning.taggants.keys import KeySet
from taggant_lightning.taggants.primary import arguments_of, check_test, evaluate, make_test, may_stop
from taggant_lightning.taggants.verdict import detect

RANKS = np.array([1, 3, 11, 2, 10, 1])
NOTHING: dict[str, Any] = {"top_k": None, "bet": None, "stop": None}


def made(name: str, **more: Any) -> dict[str, Any]:
    return make_test(name, num_classes=10, **{**NOTHING, **more})


def test_top_k() -> None:
    outcome = evaluate(made("binomial_top_k", top_k=2), RANKS, 10)
    assert outcome.details["hits"] == 3
    assert outcome.log10_p == binomial_log10_p(3, 6, 0.2)


def test_rank_score() -> None:
    outcome = evaluate(made("rank_score"), RANKS, 10)
    scores = rank_scores(10)
    total = int(scores[0] + scores[2] + 0 + scores[1] + scores[9] + scores[0])  # an unlisted label takes rank C
    assert outcome.details["score"] == total
    assert outcome.log10_p == rank_score_log10_p(total, 6, 10)


def test_sequential() -> None:
    test = made("sequential_top_k", top_k=2, bet=0.7, stop=-1.0)
    outcome = evaluate(test, RANKS, 10)
    assert outcome.log10_p == sequential_log10_p([True, False, False, True, False, True], 0.2, 0.7)
    assert not may_stop(test, RANKS[:1], 10)
    assert may_stop(test, np.array([1, 1]), 10)
    assert not may_stop(made("binomial_top_k"), np.ones(9, dtype=np.int64), 10)
    assert not may_stop(test, RANKS[:0], 10)


@pytest.mark.parametrize("name", ["binomial_top_k", "rank_score", "sequential_top_k"])
def test_in_a_keyset(name: str, tmp_path: Any) -> None:
    keys = KeySet.draw(num_keys=6, num_classes=10, shape=(1, 4, 4), test=name, secret=bytes(16))
    keys.save(tmp_path / "k")
    again = KeySet.load(tmp_path / "k")
    assert again.test == keys.test
    assert make_test(arguments_of(again.test)["test"], num_classes=10, **{**NOTHING, **{
        k: v for k, v in arguments_of(again.test).items() if k != "test"}}) == again.test  # fmt: skip
    record = detect(RANKS, again)
    assert record.validity == "conservative"  # one label is missing, or the test is always-valid
    full = detect(np.minimum(RANKS, 10), again)
    assert full.validity == ("conservative" if name == "sequential_top_k" else "exact")
    assert record.details["test"] == keys.test
    other = KeySet.draw(num_keys=6, num_classes=10, shape=(1, 4, 4), test=name, top_k=None if name == "rank_score" else 2)
    assert other.commitment != keys.commitment


def test_defaults() -> None:
    assert made("sequential_top_k") == {"name": "sequential_top_k", "top_k": 1, "bet": 0.5, "stop_at_log10_p": -6.0}
    assert made("sequential_top_k", top_k=6)["bet"] == 0.8
    assert made("rank_score") == {"name": "rank_score", "unit": 1024}


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


def test_a_header_that_no_program_wrote() -> None:
    with pytest.raises(TaggantError, match="is not one this program knows"):
        check_test({"name": "rank_score", "unit": 7}, 10)
    with pytest.raises(KeyError):
        check_test({"name": "binomial_top_k"}, 10)

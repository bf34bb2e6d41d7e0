"""Every test keeps its null for models that answer oddly, and the control sees planted mistakes; all of them in tests/slow."""

import numpy as np
import pytest

from taggant_lightning.methods.taggants.hits import count_hits, key_ranks
from taggant_lightning.statistics import sequential_log10_p
from tests.answerers import EXACT, SHORT, Answerer, labels_of, refusals
from tests.control import control_of, excess_of, score_tail, top_k_tail, transform
from tests.mutants import CASES, TOP, C, K, scored

LEVEL, KEYSETS = 1e-3, 250


def ranks_of(answerer: Answerer) -> list[np.ndarray]:
    return [key_ranks(answerer(n, K, C), labels_of(n, K, C), C) for n in range(KEYSETS)]


@pytest.mark.parametrize("answerer", EXACT, ids=lambda a: a.__name__)
def test_exact_tests_keep_their_null(answerer: Answerer) -> None:
    ranks = ranks_of(answerer)
    assert control_of(transform(score_tail(K, C), [scored(r) for r in ranks])) > LEVEL
    for k in (1, TOP):
        assert control_of(transform(top_k_tail(K, k, C), [count_hits(r, k) for r in ranks])) > LEVEL


@pytest.mark.parametrize("answerer", [*EXACT, *SHORT], ids=lambda a: a.__name__)
def test_no_p_value_is_too_small(answerer: Answerer) -> None:
    ranks = ranks_of(answerer)
    assert excess_of([score_tail(K, C)[scored(r)] for r in ranks]) > LEVEL
    for k in (1, TOP):
        assert excess_of([top_k_tail(K, k, C)[count_hits(r, k)] for r in ranks]) > LEVEL
    assert excess_of([sequential_log10_p((r <= TOP).tolist(), TOP / C, 0.5) for r in ranks]) > LEVEL


def test_the_one_sided_control_sees_small_p_values() -> None:
    uniform = np.log10(np.random.default_rng(0).random(2000))
    assert excess_of(uniform) > LEVEL
    assert excess_of(uniform - np.log10(1.5)) < LEVEL
    assert excess_of(np.zeros(2000)) == 1


QUICK = ("ties for the claimant", "unlisted label right behind the list", "optional stopping on the binomial p")


@pytest.mark.parametrize("case", [c for c in CASES if c.name in QUICK], ids=lambda c: c.name)
@pytest.mark.parametrize("mutant", [False, True])
def test_the_control_tells_planted_mistakes(case, mutant) -> None:
    values = case.run(mutant, KEYSETS)
    assert ((excess_of if case.one_sided else control_of)(values) < LEVEL) == mutant


def test_dropping_refusals_that_do_not_know_the_labels_leaves_the_null_exact() -> None:
    """The control is right not to see it: that such keys count as misses is a convention, and costs the claimant."""
    u = []
    for n, ranks in enumerate(ranks_of(refusals)):
        kept = ranks[ranks <= C]
        u += transform(top_k_tail(len(kept), TOP, C), [count_hits(kept, TOP)], seed=n).tolist()
    assert control_of(u) > LEVEL

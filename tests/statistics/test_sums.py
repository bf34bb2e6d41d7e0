"""The transform against the convolution term by term, which it stands in for where that takes too long."""

import numpy as np
import pytest

from taggant_lightning.statistics import rank_score
from taggant_lightning.statistics.rank_score import rank_score_log10_p, rank_score_pmf, rank_scores
from taggant_lightning.statistics.sums import sum_of_many


@pytest.mark.parametrize(("trials", "classes"), [(2, 5), (10, 10), (40, 30), (100, 10), (7, 300)])
def test_the_same_as_term_by_term(trials: int, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = rank_scores(classes)
    highest = trials * int(scores[0])
    totals = sorted({1, highest // 7, int(scores.mean() * trials), highest // 2, highest - 1000, highest})
    slow = [rank_score_log10_p(total, trials, classes) for total in totals]
    slow_pmf = rank_score_pmf(trials, classes)
    monkeypatch.setattr(rank_score, "MOST_TERMS", 0)
    np.testing.assert_allclose([rank_score_log10_p(total, trials, classes) for total in totals], slow, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(rank_score_pmf(trials, classes), slow_pmf, rtol=0, atol=1e-12 * slow_pmf.max())


def test_many_keys_take_no_longer() -> None:
    scores = rank_scores(10)
    values = [rank_score_log10_p(int(share * 10_000 * scores[0]), 10_000, 10) for share in (0.2, 0.5, 1.0)]
    assert values[0] > -1e-9 > values[1]
    assert values[2] == pytest.approx(-10_000, rel=1e-9)


def test_a_window_of_a_sum_is_where_its_mass_is() -> None:
    low, found = sum_of_many(np.array([0.5, 0.5]), 100_000)
    assert low > 0
    assert found.sum() == pytest.approx(1, abs=1e-10)
    assert low + int(found.argmax()) == 50_000

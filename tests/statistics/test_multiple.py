"""Holm by hand and against a slow reference, twice the mean, wrong input."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taggant_lightning.statistics import holm_log10_p, twice_mean_log10_p


def test_holm_by_hand() -> None:
    adjusted = [10**p for p in holm_log10_p([math.log10(p) for p in (0.01, 0.04, 0.03, 0.005)])]
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_log10_p([]) == []
    assert holm_log10_p([-400.0]) == [-400.0]


@given(st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=8))
def test_holm_rejects_as_its_procedure_does(ps: list[float]) -> None:
    """Reject while the i-th smallest p is at most α / (m − i + 1), and stop at the first that is not."""
    adjusted = holm_log10_p([math.log10(p) for p in ps])
    for level in (0.001, 0.05, 0.3):
        rejected, order = set(), sorted(range(len(ps)), key=lambda i: ps[i])
        for place, index in enumerate(order):
            if ps[index] > level / (len(ps) - place):
                break
            rejected.add(index)
        clear = [i for i, a in enumerate(adjusted) if abs(10**a - level) > 1e-12]
        assert all((10 ** adjusted[i] <= level) == (i in rejected) for i in clear)


def test_twice_mean() -> None:
    assert 10 ** twice_mean_log10_p([-1, -2, -3]) == pytest.approx(2 * (0.1 + 0.01 + 0.001) / 3)
    assert twice_mean_log10_p([0.0, -5.0]) == 0
    assert twice_mean_log10_p([-400.0, -400.0]) == pytest.approx(-400 + math.log10(2))


@pytest.mark.parametrize("wrong", [[0.1], [-math.inf], [math.nan]])
def test_wrong_arguments(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="at most 0"):
        holm_log10_p(wrong)
    with pytest.raises(ValueError, match="at most 0"):
        twice_mean_log10_p(wrong)
    with pytest.raises(ValueError, match="empty"):
        twice_mean_log10_p([])

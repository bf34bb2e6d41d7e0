"""Mean, deviation, median and combination of repeats: against numpy, and against the published table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taggant_lightning.statistics import binomial_log10_p, combine, fisher_log10_p, mean_sd, median

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9)


@given(VALUES)
def test_as_numpy(values: list[float]) -> None:
    mean, sd = mean_sd(values)
    assert mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-7)
    assert sd == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-6)
    assert median(values) == pytest.approx(np.median(values), rel=1e-12, abs=1e-12)


def test_one_value_has_no_deviation() -> None:
    assert mean_sd([0.25]) == (0.25, None)
    assert median([-3.0]) == -3.0


@pytest.mark.parametrize(
    ("hits", "percent", "log10_p"),
    [
        ((8, 9, 9, 9), (87.5, 5.0), -59.6),
        ((2, 3, 3, 5), (32.5, 12.6), -13.8),
        ((3, 3, 4, 5), (37.5, 9.6), -16.9),
        ((2, 3, 3, 3), (27.5, 5.0), -10.4),
    ],
)
def test_published_table(hits: tuple[int, ...], percent: tuple[float, float], log10_p: float) -> None:
    mean, sd = mean_sd([100 * h / 10 for h in hits])
    assert sd is not None
    assert (round(mean, 1), round(sd, 1)) == percent
    combined = combine([binomial_log10_p(h, 10, 0.01) for h in hits], [200, 201, 202, 203], shared_keys=False)
    assert combined.p_value
    assert round(combined.log10, 1) == log10_p


def test_shared_keys_are_no_p_value() -> None:
    values = [-3.0, -5.0]
    assert combine(values, [1, 2], shared_keys=False).p_value
    for seeds, shared in (([1, 2], True), ([1, 1], False)):
        combined = combine(values, seeds, shared_keys=shared)
        assert not combined.p_value
        assert combined.log10 == fisher_log10_p(values)
    assert combine([-3.0], [1], shared_keys=False).log10 == pytest.approx(-3.0, abs=1e-12)


def test_refusals() -> None:
    for function in (mean_sd, median):
        with pytest.raises(ValueError, match="values is empty"):
            function([])
    with pytest.raises(ValueError, match="log10_ps has 2 entries and seeds 1"):
        combine([-1.0, -2.0], [1], shared_keys=False)
    with pytest.raises(ValueError, match="log10_ps is empty"):
        combine([], [], shared_keys=False)

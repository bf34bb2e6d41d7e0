"""Tails against exact rational arithmetic, published figures and planted mistakes."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taggant_lightning.statistics import binomial_log10_p, fisher_log10_p


def log10_of(value: Fraction) -> float:
    """log10 of a fraction of any size."""

    def log10(n: int) -> float:
        shift = max(0, n.bit_length() - 900)
        return math.log10(n >> shift) + shift * math.log10(2)

    return log10(value.numerator) - log10(value.denominator)


def exact_tail(hits: int, trials: int, rate: Fraction) -> Fraction:
    """P[Bin(trials, rate) >= hits] in whole numbers over one denominator; sums of fractions would look for common factors."""
    hit, miss = rate.numerator, rate.denominator - rate.numerator
    ways = sum(math.comb(trials, j) * hit**j * miss ** (trials - j) for j in range(hits, trials + 1))
    return Fraction(ways, rate.denominator**trials)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_binomial_agrees_with_rational_arithmetic(data: st.DataObject) -> None:
    trials = data.draw(st.integers(1, 120))
    hits = data.draw(st.integers(0, trials))
    rate = data.draw(st.one_of(st.floats(1e-12, 1.0), st.sampled_from([1e-300, 0.5, 1.0, 1 - 2**-40])))
    truth = log10_of(exact_tail(hits, trials, Fraction(rate)))
    found = binomial_log10_p(hits, trials, rate)
    assert abs(found - truth) <= 1e-9 * max(1, abs(truth))
    assert found <= 0


@pytest.mark.parametrize(
    ("hits", "trials", "rate"), [(700, 2000, 0.1), (2000, 2000, 1e-5), (195, 2000, 0.1), (1999, 2000, 0.97)]
)
def test_binomial_with_many_trials(hits: int, trials: int, rate: float) -> None:
    truth = log10_of(exact_tail(hits, trials, Fraction(rate)))
    assert abs(binomial_log10_p(hits, trials, rate) - truth) <= 1e-9 * max(1, abs(truth))


def test_hundred_of_hundred_does_not_underflow() -> None:
    assert binomial_log10_p(100, 100, 1e-5) == pytest.approx(-500, abs=1e-9)


@pytest.mark.parametrize(
    ("hits", "log10_p"), enumerate([-1.02, -2.37, -3.94, -5.70, -7.62, -9.69, -11.93, -14.35, -17.00, -20.00], 1)
)
def test_published_single_model_values(hits: int, log10_p: float) -> None:
    assert binomial_log10_p(hits, 10, 0.01) == pytest.approx(log10_p, abs=0.005)


@pytest.mark.parametrize(
    ("hits", "published"), [((8, 9, 9, 9), -59.6), ((2, 3, 3, 5), -13.8), ((3, 3, 4, 5), -16.9), ((2, 3, 3, 3), -10.4)]
)
def test_published_fisher_values(hits: tuple[int, ...], published: float) -> None:
    assert fisher_log10_p([binomial_log10_p(h, 10, 0.01) for h in hits]) == pytest.approx(published, abs=0.05)


def test_fisher_against_scipy_and_far_beyond_it() -> None:
    from scipy.stats import combine_pvalues

    values = [0.3, 0.02, 0.9, 1e-4]
    expected = math.log10(combine_pvalues(values, method="fisher").pvalue)
    assert fisher_log10_p([math.log10(v) for v in values]) == pytest.approx(expected, abs=1e-9)
    assert fisher_log10_p([-500.0]) == pytest.approx(-500, rel=1e-12)
    assert fisher_log10_p([0.0, 0.0]) == 0.0
    x = 1000 * math.log(10)
    assert fisher_log10_p([-500.0, -500.0]) == pytest.approx(-1000 + math.log10(1 + x), rel=1e-12)


def test_zero_hits_is_exactly_zero() -> None:
    assert binomial_log10_p(0, 7, 0.3) == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((11, 10, 0.1), "hits=11 must lie in 0..trials, and trials=10"),
        ((-1, 10, 0.1), "hits=-1 must lie"),
        ((0, 0, 0.1), "trials=0 must be at least 1"),
        ((1, 10, 0.0), "rate=0.0 must lie in"),
        ((1, 10, 1.1), "rate=1.1 must lie in"),
        ((1, 10, float("nan")), "rate=nan must lie in"),
        ((1.5, 10, 0.1), "hits=1.5 is not a whole number"),
    ],
)
def test_binomial_refuses(arguments: tuple[int, int, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        binomial_log10_p(*arguments)


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "empty"), ([0.1], "contains 0.1"), ([float("nan")], "contains nan"), ([-math.inf], "contains -inf")],
)
def test_fisher_refuses(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fisher_log10_p(values)

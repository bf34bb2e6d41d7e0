"""The rank test against enumeration with fractions, far tails against big integers, and its null by simulation."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from taggant_lightning.statistics.rank_score import rank_score_log10_p, rank_score_pmf, rank_scores


def exact_tail(total: int, trials: int, num_classes: int, unit: int) -> Fraction:
    """Count by convolution of Python integers, which neither round nor underflow."""
    ways = {0: 1}
    for _ in range(trials):
        longer: dict[int, int] = {}
        for (have, count), score in itertools.product(ways.items(), rank_scores(num_classes, unit).tolist()):
            longer[have + score] = longer.get(have + score, 0) + count
        ways = longer
    return Fraction(sum(count for have, count in ways.items() if have >= total), num_classes**trials)


def log10(value: Fraction) -> float:
    """log10 of a fraction whose parts exceed every float."""

    def of(n: int) -> float:
        shift = max(0, n.bit_length() - 60)
        return math.log10(n >> shift) + shift * math.log10(2)

    return of(value.numerator) - of(value.denominator)


def test_scores_by_hand() -> None:
    assert rank_scores(4).tolist() == [2048, 1024, 425, 0]
    assert rank_scores(1000)[0] == round(1024 * math.log2(1000))
    assert rank_scores(100, unit=8)[-1] == 0


def test_no_score_depends_on_how_a_logarithm_rounds() -> None:
    for num_classes in range(2, 1500):
        exact = -1024 * np.log2(np.arange(1, num_classes + 1) / num_classes)
        assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-7


@pytest.mark.parametrize(("trials", "num_classes", "unit"), [(1, 2, 1024), (3, 5, 1024), (4, 10, 16), (6, 3, 7), (2, 30, 1024)])
def test_every_total_against_fractions(trials: int, num_classes: int, unit: int) -> None:
    highest = trials * int(rank_scores(num_classes, unit)[0])
    for total in {0, 1, highest // 3, highest // 2, highest - 1, highest}:
        expected = log10(exact_tail(total, trials, num_classes, unit))
        assert rank_score_log10_p(total, trials, num_classes, unit) == pytest.approx(expected, abs=1e-9, rel=1e-9)


def test_far_below_what_a_float_holds() -> None:
    trials, num_classes, unit = 250, 20, 2
    highest = trials * int(rank_scores(num_classes, unit)[0])
    for share in (0.6, 0.95, 1.0):
        total = int(share * highest)
        found = rank_score_log10_p(total, trials, num_classes, unit)
        expected = log10(exact_tail(total, trials, num_classes, unit))
        assert found == pytest.approx(expected, abs=1e-9, rel=1e-9)
    assert found == pytest.approx(-trials * math.log10(num_classes))
    assert found < -320


def test_tail_sums_the_probabilities() -> None:
    mass = rank_score_pmf(10, 100, 1024)
    assert mass.sum() == pytest.approx(1, abs=1e-12)
    for total in (20_000, 25_000, 40_000):
        assert 10 ** rank_score_log10_p(total, 10, 100) == pytest.approx(mass[total:].sum(), rel=1e-9)


def test_simulated_null() -> None:
    rng = np.random.default_rng(0)
    totals = rank_scores(50)[rng.integers(0, 50, size=(20_000, 12))].sum(axis=1)
    for level in (0.5, 0.1, 0.01):
        mass = rank_score_pmf(12, 50)
        least = int(np.searchsorted(-np.cumsum(mass[::-1])[::-1], -level))
        share = 10 ** rank_score_log10_p(least, 12, 50)
        assert abs((totals >= least).mean() - share) < 4 * math.sqrt(share / 20_000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1, 0, 10), "trials=0"), ((-1, 3, 10), "total=-1"), ((10**9, 3, 10), "must lie in 0.."), ((0, 3, 1), "num_classes=1")],
)
def test_wrong_arguments(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_score_log10_p(*arguments)

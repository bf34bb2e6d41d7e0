"""The same answers scored against fresh random labels: a look at whether the exact null holds for this very model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.statistics.tests import SignificanceTest

DRAWS, SEED = 10_000, 0
BINS, SMALLEST = 20, 0.01  # bins of about equal mass, none with less than the smallest
LEVEL = 0.05


@dataclass(frozen=True)
class Fresh:
    """What fresh labels gave.

    Attributes:
        values: (draws,) int64, hits or score of each draw.
        null: (values,) float64, the exact probability of each value from 0.
        fit: p-value of a two-sided χ² test of the values against the null; None where the answers are incomplete, so that the
            null is only a bound, or there is one value only.
        share: Share of draws whose p-value is at most `LEVEL`.
        exact: What that share is under the null.
        incomplete: Answers that give less than the test looks at.
    """

    values: NDArray[np.int64]
    null: NDArray[np.float64]
    fit: float | None
    share: float
    exact: float
    incomplete: int


def fresh_labels(
    answers: Sequence[Sequence[int | None] | None],
    test: SignificanceTest,
    num_classes: int,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Fresh:
    """Score answers against labels drawn anew, as a fresh secret would draw them: uniform and independent.

    For the sequential test hits are counted over the keys that were asked.

    Args:
        answers: K rankings of the owner's classes, best first; None for a refusal, or at a place that maps to none of them.
        test: The KeySet's.
        num_classes: C.
        draws: How often labels are drawn.
        seed: Of the draws.

    Returns:
        Aggregates, which tell nothing of the true labels.

    Raises:
        ValueError: If an answer names a class outside 0..C−1.
        IndexError: As ValueError, for classes above C−1.
    """
    ranks = rank_table(answers, num_classes)
    labels = np.random.default_rng(seed).integers(0, num_classes, (draws, len(ranks)))
    drawn = ranks[np.arange(len(ranks)), labels]
    values, null, places = test.statistic(drawn), test.null(len(ranks)), test.places
    incomplete = sum(a is None or len(a) < places or None in a[:places] for a in answers)
    tails = np.minimum(1.0, null[::-1].cumsum()[::-1])  # P[value >= t]
    critical = int(np.searchsorted(-tails, -LEVEL))  # the smallest value whose p-value is at most the level
    exact = float(tails[critical]) if critical < len(tails) else 0.0
    fit = None if incomplete else goodness_of_fit(values, null)
    return Fresh(values, null, fit, float((values >= critical).mean()), exact, incomplete)


def rank_table(answers: Sequence[Sequence[int | None] | None], num_classes: int) -> NDArray[np.int64]:
    """Return the rank that each class has in each answer, (K, C) int64 from 1; C + 1 where the answer does not name it.

    Raises:
        ValueError: If an answer names a class below 0.
        IndexError: If an answer names a class above C − 1.
    """
    ranks = np.full((len(answers), num_classes), num_classes + 1, dtype=np.int64)
    for row, answer in zip(ranks, answers, strict=True):
        for place, label in enumerate((answer or ())[:num_classes], start=1):
            if label is not None:
                if label < 0:
                    raise ValueError(f"label={label} must lie in 0..{num_classes - 1}")
                row[label] = place
    return ranks


def goodness_of_fit(values: NDArray[np.int64], null: NDArray[np.float64]) -> float | None:
    """Return the p-value of a χ² test of values against their distribution, or None where all its mass is at one place.

    Args:
        values: (n,) int64 in 0..len(null)−1.
        null: Probability of each value.
    """
    from scipy.special import chdtrc

    below = np.minimum(null.cumsum() - null, 1 - 1e-12)
    number = (below * BINS).astype(np.int64)  # of each value's bin
    mass = np.bincount(number, weights=null, minlength=BINS)
    counts = np.bincount(number[values], minlength=BINS).astype(np.float64)
    bins: list[list[float]] = []
    for m, count in zip(mass, counts, strict=True):
        if bins and (m < SMALLEST or bins[-1][0] < SMALLEST):
            bins[-1] = [bins[-1][0] + m, bins[-1][1] + count]
        else:
            bins.append([float(m), float(count)])
    if len(bins) < 2:
        return None
    expected, found = np.array(bins).T * np.array([[len(values)], [1]])
    return float(chdtrc(len(bins) - 1, ((found - expected) ** 2 / expected).sum()))

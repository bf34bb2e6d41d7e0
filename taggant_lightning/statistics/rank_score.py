"""The rank test: a sum of integer scores of the key labels' ranks, with its exact null by convolution.

A label drawn uniformly and independently of a ranking of C classes has a rank uniform on 1..C, whatever the ranking. Each rank
earns round(−unit · log2(rank / C)), so the sum over keys is a sum of independent integers with a known distribution.
"""

import math

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.statistics.sums import sum_of_many

UNIT = 1024
MOST_TERMS = 2e9  # additions of the direct convolution, seconds; more are left to a Fourier transform


def rank_scores(num_classes: int, unit: int = UNIT) -> NDArray[np.int64]:
    """Return the score of each rank.

    Args:
        num_classes: C, at least 2.
        unit: Points for halving the rank, at least 1.

    Returns:
        (C,) int64, not increasing; entry r−1 is the score of rank r, and the last one is 0.

    Raises:
        ValueError: If an argument is too small.
    """
    if num_classes < 2 or unit < 1:
        raise ValueError(f"num_classes={num_classes} must be at least 2 and unit={unit} at least 1")
    ranks = np.arange(1, num_classes + 1)
    scores: NDArray[np.int64] = np.rint(-unit * np.log2(ranks / num_classes)).astype(np.int64)
    return scores


def rank_score_log10_p(total: int, trials: int, num_classes: int, unit: int = UNIT) -> float:
    """Return log10 P[S >= total] for the sum S of the scores of `trials` independent uniform ranks.

    The scores are tilted (each probability times e^{θ score}) so that the observed total is near the middle of what is
    convolved; every term stays positive, and the tilt is divided out again. So the tail is exact where its probability is far
    below what a float holds. Absolute error of the logarithm at most 1e-9 · max(1, |log10 p|).

    Args:
        total: Observed sum, 0..trials · score of rank 1.
        trials: Number of keys, at least 1.
        num_classes: C.
        unit: As for `rank_scores`.

    Returns:
        A number at most 0.0; exactly 0.0 for total = 0. Takes seconds at most.

    Raises:
        ValueError: If total lies outside its range or trials is below 1.
    """
    scores = rank_scores(num_classes, unit)
    _check(total, trials, int(scores[0]))
    if total == 0:
        return 0.0
    tilt = _tilt(total / trials, scores)
    weights, log_norm = _tilted(scores, tilt)
    lowest, mass = _sum_distribution(scores, weights, trials, total)
    above = np.arange(lowest, lowest + len(mass)) - total
    kept = above >= 0
    tail = float((mass[kept] * np.exp(-tilt * above[kept])).sum())
    log_p = trials * (log_norm - math.log(num_classes)) - tilt * total + math.log(tail)
    return min(0.0, log_p / math.log(10))


def rank_score_pmf(trials: int, num_classes: int, unit: int = UNIT) -> NDArray[np.float64]:
    """Return P[S = t] for t = 0..trials · score of rank 1; for pictures and checks, as far tails underflow to 0."""
    scores = rank_scores(num_classes, unit)
    _check(0, trials, int(scores[0]))
    _, mass = _sum_distribution(scores, np.full(num_classes, 1 / num_classes), trials, 0)
    return mass


def _check(total: int, trials: int, highest: int) -> None:
    if trials < 1:
        raise ValueError(f"trials={trials} must be at least 1: a test needs one query or more")
    if not 0 <= total <= trials * highest:
        raise ValueError(f"total={total} must lie in 0..{trials * highest}, the sum for {trials} keys that all rank first")


def _tilt(mean: float, scores: NDArray[np.int64]) -> float:
    """Return a θ ≥ 0 whose tilted scores have about the given mean; any θ gives the same tail, a good one no underflow."""
    highest = float(scores[0])

    def tilted_mean(tilt: float) -> float:
        weights, _ = _tilted(scores, tilt)
        return float((weights * scores).sum())

    low, high = 0.0, 1 / highest
    if tilted_mean(low) >= mean:
        return 0.0
    while tilted_mean(high) < mean and high * highest < 600:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if tilted_mean(middle) < mean else (low, middle)
    return high


def _tilted(scores: NDArray[np.int64], tilt: float) -> tuple[NDArray[np.float64], float]:
    """Return tilted probabilities of the scores and the logarithm of their norm Σ e^{θ score}."""
    raw = np.exp(tilt * (scores - scores[0]))
    norm = float(raw.sum())
    return raw / norm, tilt * float(scores[0]) + math.log(norm)


def _sum_distribution(
    scores: NDArray[np.int64], weights: NDArray[np.float64], trials: int, total: int
) -> tuple[int, NDArray[np.float64]]:
    """Convolve `trials` copies of the scores' distribution, leaving out sums from which `total` is out of reach.

    Returns:
        The smallest sum that was kept, and the probability of each from there on.
    """
    distinct, place = np.unique(scores, return_inverse=True)
    merged = np.bincount(place, weights=weights)
    highest = int(distinct[-1])
    if trials**2 / 2 * highest * len(distinct) > MOST_TERMS:
        single = np.zeros(highest + 1)
        single[distinct] = merged
        return sum_of_many(single, trials, whole=total == 0)
    lowest, mass = 0, np.ones(1)
    for step in range(1, trials + 1):
        longer = np.zeros(len(mass) + highest)
        for score, weight in zip(distinct.tolist(), merged.tolist(), strict=True):
            longer[score : score + len(mass)] += weight * mass
        reach = max(lowest, total - (trials - step) * highest)
        lowest, mass = reach, longer[reach - lowest :]
    return lowest, mass

"""The control: do the statistics of a test agree with their exact null, on both sides, or is a conservative p too small?

`python -m tests.control docs/results/nulls.json` prints the p-value of what `benchmarks/nulls.py` wrote.
"""

import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from taggant_lightning.statistics import binomial_log10_p
from taggant_lightning.statistics.rank_score import rank_score_pmf

LEVELS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


def control_of(u: ArrayLike, *, bins: int = 8, seed: int = 0) -> float:
    """Return the p-value of a two-sided goodness-of-fit test of numbers against the uniform distribution on [0, 1].

    They are counted in bins, and the χ² statistic is compared with its exact null by simulation. Too many small numbers, too
    few, and too even ones all show.
    """
    rng = np.random.default_rng(seed)
    u = np.clip(np.asarray(u, dtype=np.float64), 0, 1 - 1e-12)
    expected = len(u) / bins

    def statistic(binned: NDArray[np.int64]) -> NDArray[np.float64]:
        return ((binned - expected) ** 2 / expected).sum(axis=-1)

    found = statistic(np.bincount((u * bins).astype(int), minlength=bins))
    simulated = statistic(rng.multinomial(len(u), [1 / bins] * bins, size=20_000))
    return float((1 + (simulated >= found - 1e-9).sum()) / 20_001)


def excess_of(log10_p: ArrayLike, levels: Sequence[float] = LEVELS) -> float:
    """Return the p-value of a one-sided test that P(p ≤ α) is at most α: for conservative and always-valid p-values.

    At each level the count of p-values at or below it is compared with the binomial; the smallest of these, times their
    number, is the answer.
    """
    p = np.asarray(log10_p, dtype=np.float64)
    counts = [int((p <= np.log10(level) + 1e-12).sum()) for level in levels]
    smallest = min(binomial_log10_p(count, len(p), level) for count, level in zip(counts, levels, strict=True))
    return min(1.0, len(levels) * 10**smallest)


@cache
def top_k_tail(trials: int, top_k: int, num_classes: int) -> NDArray[np.float64]:
    """Return log10 P[hits ≥ h] for h = 0..trials."""
    return np.array([binomial_log10_p(hits, trials, top_k / num_classes) for hits in range(trials + 1)])


@cache
def score_tail(trials: int, num_classes: int) -> NDArray[np.float64]:
    """Return log10 P[S ≥ s] for every total s of the rank test; for totals whose probability a float holds."""
    tail: NDArray[np.float64] = np.minimum(0.0, np.log10(np.cumsum(rank_score_pmf(trials, num_classes)[::-1])[::-1]))
    return tail


def transform(log10_tail: NDArray[np.float64], values: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
    """Return numbers uniform on [0, 1] if the values have this tail, a large value near 1.

    That is the probability integral transform, with the jump at a value filled by a seeded uniform number.
    """
    at_least = np.append(10**log10_tail, 0.0)
    values = np.asarray(values, dtype=np.int64)
    above, mass = at_least[values + 1], at_least[values] - at_least[values + 1]
    result: NDArray[np.float64] = 1 - (above + np.random.default_rng(seed).random(len(values)) * mass)
    return result


def control(counts: Sequence[int], trials: int, rates: float | Sequence[float], *, bins: int = 8, seed: int = 0) -> float:
    """Return the p-value of a two-sided goodness-of-fit test of counts against Bin(trials, rate); rates may differ."""
    rng = np.random.default_rng(seed)
    counts, rates = np.asarray(counts), np.broadcast_to(rates, len(counts))
    below = binom.cdf(counts - 1, trials, rates)
    return control_of(below + rng.random(len(counts)) * binom.pmf(counts, trials, rates), bins=bins, seed=seed)


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text())
    counts = [row["hits"] for row in found["rows"]]
    print(f"goodness of fit: p = {control(counts, found['num_keys'], found['rate'], bins=6):.2f}")

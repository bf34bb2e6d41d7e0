"""The control: do counts of hits agree with the exact binomial, on both sides?

`python -m tests.control docs/results/nulls.json` prints the p-value of what `benchmarks/nulls.py` wrote.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binom


def control(counts: Sequence[int], trials: int, rates: float | Sequence[float], *, bins: int = 8, seed: int = 0) -> float:
    """Return the p-value of a two-sided goodness-of-fit test of counts against Bin(trials, rate).

    Each count becomes a number uniform on [0, 1] under the null (the probability integral transform, with the jump at the
    count filled by a seeded uniform number), these are counted in bins, and the χ² statistic is compared with its exact null
    by simulation. Too many hits, too few, and too even ones all show.
    """
    rng = np.random.default_rng(seed)
    counts, rates = np.asarray(counts), np.broadcast_to(rates, len(counts))
    below = binom.cdf(counts - 1, trials, rates)
    u = np.clip(below + rng.random(len(counts)) * binom.pmf(counts, trials, rates), 0, 1 - 1e-12)
    expected = len(counts) / bins

    def statistic(binned: np.ndarray) -> np.ndarray:
        return ((binned - expected) ** 2 / expected).sum(axis=-1)

    found = statistic(np.bincount((u * bins).astype(int), minlength=bins))
    simulated = statistic(rng.multinomial(len(counts), [1 / bins] * bins, size=20_000))
    return float((1 + (simulated >= found - 1e-9).sum()) / 20_001)


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text())
    counts = [row["hits"] for row in found["rows"]]
    print(f"goodness of fit: p = {control(counts, found['num_keys'], found['rate'], bins=6):.2f}")

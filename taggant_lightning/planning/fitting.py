"""Fits a device's rates to measured points."""

from collections.abc import Sequence

import numpy as np

from taggant_lightning.planning.counting import Work
from taggant_lightning.planning.devices import Rates


def fit_rates(works: Sequence[Work], seconds: Sequence[float]) -> Rates:
    """Fit rates by least squares of the relative errors, none of them negative.

    Args:
        works: Work of each point.
        seconds: What each point took, seconds.

    Returns:
        The rates.

    Raises:
        ValueError: If there are fewer points than rates, or a time that is not positive.
    """
    from scipy.optimize import nnls

    if len(works) != len(seconds) or len(works) < 5 or min(seconds) <= 0:
        raise ValueError(f"{len(works)} pieces of work and {len(seconds)} times; give five or more, and positive times")
    rows = np.array([[w.forward, w.backward, w.matmul, w.moved, w.kernels] for w in works]) / np.array(seconds)[:, None]
    # Rates differ by many orders of magnitude; columns of about 1 keep the solver from taking small ones for zero.
    scale = rows.max(axis=0)
    scale[scale == 0] = 1.0
    found, _ = nnls(rows / scale, np.ones(len(works)))
    return Rates(*(found / scale).tolist())


def relative_errors(rates: Rates, works: Sequence[Work], seconds: Sequence[float]) -> list[float]:
    """Return predicted over measured seconds, minus 1, of each point."""
    return [rates.seconds(work) / taken - 1 for work, taken in zip(works, seconds, strict=True)]

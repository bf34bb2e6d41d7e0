"""How well suspicion finds signed images: shares found at a rate of false alarms, curves, removal. Pure functions.

Equal numbers never flatter who searches: an image counts as found only if its score lies above the threshold.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError
from taggant_lightning.release.traces import separation

POINTS = 100


class Roc(NamedTuple):
    """A curve.

    Attributes:
        false_positives: Allowed share of unsigned images above the threshold, ascending.
        found: Share of signed images above it.
    """

    false_positives: list[float]
    found: list[float]


def area(signed: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the area under the curve: the chance that a signed image is the more suspicious, ties counted half.

    Args:
        signed: (M,) scores of signed images.
        others: (N,) scores of unsigned images.
    """
    _check(signed, others)
    return separation(signed, others).auc


def threshold(others: NDArray[np.float64], rate: float) -> float:
    """Return the lowest score that at most a share of the unsigned images lies above.

    Args:
        others: (N,) scores of unsigned images.
        rate: The share, in [0, 1].

    Returns:
        One of the scores; minus infinity where all may lie above.

    Raises:
        TaggantError: If the share lies outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise TaggantError(f"rate={rate} must lie in [0, 1]: the share of unsigned images that may raise an alarm")
    allowed = math.floor(rate * len(others) + 1e-9)  # 0.29 * 100 is a little below 29
    return -math.inf if allowed >= len(others) else float(np.sort(others)[len(others) - 1 - allowed])


def found_at(signed: NDArray[np.float64], others: NDArray[np.float64], rate: float) -> float:
    """Return the share of signed images above the threshold of a rate of false alarms.

    Args:
        signed: (M,) scores of signed images.
        others: (N,) scores of unsigned images.
        rate: Allowed share of unsigned images above the threshold.
    """
    _check(signed, others)
    return float((signed > threshold(others, rate)).mean())


def roc(signed: NDArray[np.float64], others: NDArray[np.float64], points: int = POINTS) -> Roc:
    """Return the curve at rates of false alarms that are evenly spaced on a logarithmic axis, from one image to all.

    Args:
        signed: (M,) scores of signed images.
        others: (N,) scores of unsigned images.
        points: How many.
    """
    _check(signed, others)
    rates = np.geomspace(1 / len(others), 1, points) if len(others) > 1 else np.ones(1)
    return Roc([float(r) for r in rates], [found_at(signed, others, min(1.0, float(r))) for r in rates])


def most_suspicious(scores: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Return which images a filter removes: the share with the highest scores; of equal ones those that come first.

    Args:
        scores: (N,).
        share: Of all images, in (0, 1).

    Returns:
        (N,) bool.

    Raises:
        TaggantError: If the share removes no image, or all of them.
    """
    count = round(share * len(scores)) if 0 < share < 1 else 0
    if not 0 < count < len(scores):
        raise TaggantError(
            f"remove={share} of {len(scores)} images must remove at least one and keep at least one; write a share such as 0.05"
        )
    removed = np.zeros(len(scores), dtype=bool)
    removed[np.argsort(-scores, kind="stable")[:count]] = True
    return removed


def _check(signed: NDArray[np.float64], others: NDArray[np.float64]) -> None:
    if not len(signed) or not len(others):
        raise TaggantError(f"{len(signed)} signed and {len(others)} unsigned images cannot be told apart; both are needed")
    if not (np.isfinite(signed).all() and np.isfinite(others).all()):
        raise TaggantError("a score is not finite, and only finite ones can be ordered; check the detector's input")

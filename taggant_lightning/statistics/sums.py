"""The distribution of a sum of many independent integers, by a Fourier transform: for sums that take too long term by term."""

import math

import numpy as np
from numpy.typing import NDArray

_NATS = 80.0  # what lies outside of the window has a probability below e^−80 on each side
_NOISE = 1e-14  # of the largest mass; a transform gives no smaller ones


def sum_of_many(mass: NDArray[np.float64], trials: int, *, whole: bool = False) -> tuple[int, NDArray[np.float64]]:
    """Return the distribution of the sum of `trials` independent copies of an integer.

    Only a window around the mean is kept, outside of which Bernstein's inequality leaves next to nothing. Within it the error
    is about `trials` · 1e-16 of the largest mass, far less than the sum of a tail that begins near the mean needs.

    Args:
        mass: Probabilities of 0..len−1.
        trials: How many copies, at least 1.
        whole: Whether to return all sums from 0 on; masses that the transform cannot tell from none are then 0.

    Returns:
        The smallest sum of the window, and the probability of each from there on.
    """
    values, highest = np.arange(len(mass)), len(mass) - 1
    mean = float((mass * values).sum())
    variance = float((mass * (values - mean) ** 2).sum())
    linear = _NATS * highest / 3
    reach = math.ceil(linear + math.sqrt(linear**2 + 2 * _NATS * trials * variance))
    low = 0 if whole else max(0, math.floor(trials * mean) - reach)
    high = trials * highest if whole else min(trials * highest, math.ceil(trials * mean) + reach)
    size = _even_length(high - low + 1)
    # The transform counts sums modulo its length; in the window no two are the same.
    folded = np.bincount(values % size, weights=mass, minlength=size)
    cyclic = np.fft.irfft(np.fft.rfft(folded) ** trials, size)
    found = np.maximum(cyclic[np.arange(low, high + 1) % size], 0.0)
    if whole:
        found[found < _NOISE * found.max()] = 0.0
    return low, found


def _even_length(least: int) -> int:
    """Return the smallest even number of factors 2, 3 and 5 from `least` on, which transforms are quick for."""
    best: int = 1 << max(1, (least - 1).bit_length())
    five = 1
    while five < best:
        three = five
        while three < best:
            two = 2 * three
            while two < least:
                two *= 2
            best = min(best, two)
            three *= 3
        five *= 5
    return best

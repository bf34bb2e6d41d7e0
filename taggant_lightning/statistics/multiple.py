"""Several tests at once: Holm's correction, and twice the mean, which holds whatever the tests share."""

import math
from collections.abc import Sequence


def holm_log10_p(log10_ps: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (Holm 1979), valid whatever the dependence between the tests.

    The i-th smallest of m p-values is multiplied by m − i + 1, and none may fall below a smaller one's.

    Args:
        log10_ps: log10 of the p-values of all tests that were made, each at most 0.

    Returns:
        log10 of the adjusted p-values, at most 0.0, in the order given.

    Raises:
        ValueError: If an entry is above 0 or not finite.
    """
    _check(log10_ps)
    adjusted, largest = [0.0] * len(log10_ps), -math.inf
    for place, index in enumerate(sorted(range(len(log10_ps)), key=lambda i: log10_ps[i])):
        largest = max(largest, min(0.0, log10_ps[index] + math.log10(len(log10_ps) - place)))
        adjusted[index] = largest
    return adjusted


def twice_mean_log10_p(log10_ps: Sequence[float]) -> float:
    """Return log10 of twice the arithmetic mean of p-values, itself a p-value under any dependence (Rüschendorf 1982).

    Args:
        log10_ps: log10 of the p-values, one or more, each at most 0.

    Returns:
        A number at most 0.0.

    Raises:
        ValueError: If the sequence is empty, or an entry is above 0 or not finite.
    """
    _check(log10_ps)
    if not log10_ps:
        raise ValueError("log10_ps is empty; give one log10 p or more")
    top = max(log10_ps)
    mean = math.log10(math.fsum(10 ** (value - top) for value in log10_ps) / len(log10_ps)) + top
    return min(0.0, mean + math.log10(2))


def _check(log10_ps: Sequence[float]) -> None:
    for value in log10_ps:
        if not (value <= 0 and math.isfinite(value)):
            raise ValueError(f"log10_ps contains {value}; a log10 of a p-value is finite and at most 0")

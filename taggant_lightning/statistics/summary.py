"""What a table of repeated runs says of them: mean, sample standard deviation, median, and their p-values combined."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from taggant_lightning.statistics.fisher import fisher_log10_p


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (n − 1 in the denominator).

    Args:
        values: One number or more.

    Returns:
        Mean and deviation; no deviation for one value, which tells nothing of its spread.

    Raises:
        ValueError: If there are no values.
    """
    if not values:
        raise ValueError("values is empty; give one number or more")
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def median(values: Sequence[float]) -> float:
    """Return the median; of an even number of values, the mean of the two in the middle.

    Raises:
        ValueError: If there are no values.
    """
    if not values:
        raise ValueError("values is empty; give one number or more")
    return float(statistics.median(values))


@dataclass(frozen=True)
class Combined:
    """Several tests as one number.

    Attributes:
        log10: Fisher's combination of the p-values, as a base-10 logarithm.
        p_value: Whether that is a p-value: only where each test had keys of its own.
    """

    log10: float
    p_value: bool


def combine(log10_ps: Sequence[float], seeds: Sequence[int], *, shared_keys: bool) -> Combined:
    """Combine the p-values of repeats by Fisher's method.

    Args:
        log10_ps: log10 of each repeat's p-value, at most 0.
        seeds: The seed of each repeat. Keys are drawn from it, so two repeats of one seed share their keys.
        shared_keys: Whether all repeats share their keys whatever their seeds.

    Returns:
        The combination. Where keys are shared the tests depend on one another, and it is a summary, not a p-value.

    Raises:
        ValueError: If the lengths differ, there are no values, or one is no log10 of a p-value.
    """
    if len(log10_ps) != len(seeds):
        raise ValueError(f"log10_ps has {len(log10_ps)} entries and seeds {len(seeds)}; give one seed for each")
    fresh = not shared_keys and len(set(seeds)) == len(seeds)
    return Combined(fisher_log10_p(log10_ps), fresh)

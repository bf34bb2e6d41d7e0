"""Fisher's combination of p-values, as a base-10 logarithm that never underflows."""

import math
from collections.abc import Sequence


def fisher_log10_p(log10_ps: Sequence[float]) -> float:
    """Combine p-values by Fisher's method.

    With X = −2 Σ ln p_r and R p-values, X follows χ² with 2R degrees of freedom under the null, whose upper tail is the
    finite sum e^{−x} Σ_{j<R} x^j / j! with x = X/2. Across models that share keys this is a summary, not a p-value.

    Args:
        log10_ps: Base-10 logarithms of the p-values, each at most 0.

    Returns:
        log10 of the combined p-value, at most 0.0; absolute error at most 1e-9 · max(1, |result|).

    Raises:
        ValueError: If the sequence is empty, or an entry is above 0, not a number or infinite.
    """
    values = [float(v) for v in log10_ps]
    if not values:
        raise ValueError("log10_ps is empty; give one log10 p or more")
    for v in values:
        if not (v <= 0 and math.isfinite(v)):
            raise ValueError(f"log10_ps contains {v}; a log10 of a p-value is finite and at most 0")
    x = -math.fsum(values) * math.log(10)
    if x == 0:
        return 0.0
    terms = [j * math.log(x) - math.lgamma(j + 1) for j in range(len(values))]
    top = max(terms)
    return min(0.0, (top + math.log(math.fsum(math.exp(t - top) for t in terms)) - x) / math.log(10))

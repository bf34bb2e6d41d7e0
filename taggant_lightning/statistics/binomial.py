"""The upper tail of the binomial distribution, as a base-10 logarithm that never underflows."""

import math


def _log_pmf(hits: int, trials: int, rate: float) -> float:
    """Return ln P[Bin(trials, rate) = hits], by the saddle-point form of Loader (2000).

    The form is a sum of small terms where `gammaln` would subtract large ones.
    """
    from scipy.special import xlog1py, xlogy

    if hits == 0:
        return float(xlog1py(trials, -rate))
    if hits == trials:
        return float(xlogy(trials, rate))
    misses = trials - hits
    body = _stirling_error(trials) - _stirling_error(hits) - _stirling_error(misses)
    body -= _deviance(hits, trials * rate) + _deviance(misses, trials * (1 - rate))
    return body + 0.5 * (math.log(trials) - math.log(2 * math.pi * hits) - math.log(misses))


def _stirling_error(n: int) -> float:
    """Return ln n! minus Stirling's approximation (n + 1/2) ln n − n + ln √(2π)."""
    if n < 16:
        return math.lgamma(n + 1) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2 * math.pi)
    m = n * n
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / m) / m) / m) / m) / n


def _deviance(x: float, mean: float) -> float:
    """Return x ln(x/mean) + mean − x, by a series where x is close to the mean."""
    if abs(x - mean) > 0.1 * (x + mean):
        return x * (math.log(x) - math.log(mean)) + mean - x
    v = (x - mean) / (x + mean)
    total, term, j = (x - mean) * v, 2 * x * v, 1
    while True:
        term *= v * v
        new = total + term / (2 * j + 1)
        if new == total:
            return total
        total, j = new, j + 1


def binomial_log10_p(hits: int, trials: int, rate: float) -> float:
    """Return log10 P[Bin(trials, rate) >= hits].

    The leading term comes in the log domain; the terms above it follow by their ratios
    P[j+1]/P[j] = (trials − j)/(j + 1) · rate/(1 − rate). Below the mean the tail is one minus the lower tail, summed the same
    way downwards. Absolute error at most 1e-9 · max(1, |log10 p|).

    Args:
        hits: Number of successes, 0..trials.
        trials: Number of trials, at least 1.
        rate: Probability of a success, in (0, 1].

    Returns:
        A number at most 0.0; exactly 0.0 for hits = 0; finite unless the rate itself underflows.

    Raises:
        ValueError: If hits lies outside 0..trials, trials is below 1, or rate lies outside (0, 1].
    """
    for name, value in (("hits", hits), ("trials", trials)):
        if isinstance(value, bool) or int(value) != value:
            raise ValueError(f"{name}={value!r} is not a whole number")
    if trials < 1:
        raise ValueError(f"trials={trials} must be at least 1: a test needs one query or more")
    if not 0 <= hits <= trials:
        raise ValueError(f"hits={hits} must lie in 0..trials, and trials={trials}")
    if not 0 < rate <= 1:
        raise ValueError(f"rate={rate} must lie in (0, 1]: the chance of one hit, for instance top_k / num_classes")
    hits, trials, rate = int(hits), int(trials), float(rate)
    if hits == 0 or rate == 1:
        return 0.0
    odds = rate / (1 - rate)
    if hits > trials * rate:
        log_tail = _log_pmf(hits, trials, rate) + _log_sum_of_ratios(hits, trials, odds)
    else:
        # The lower tail P[X <= hits - 1] is an upper tail of the misses.
        misses = trials - hits + 1
        log_lower = _log_pmf(hits - 1, trials, rate) + _log_sum_of_ratios(misses, trials, 1 / odds)
        log_tail = math.log1p(-math.exp(log_lower))
    return min(0.0, log_tail / math.log(10))


def binomial_log10_pmf(hits: int, trials: int, rate: float) -> float:
    """Return log10 P[Bin(trials, rate) = hits] for hits in 0..trials and a rate in (0, 1); it never underflows."""
    return _log_pmf(hits, trials, rate) / math.log(10)


def _log_sum_of_ratios(start: int, trials: int, odds: float) -> float:
    """Return ln Σ_{j >= start} P[j]/P[start]; the ratios fall, so the sum ends once a term no longer counts."""
    total = term = 1.0
    for j in range(start, trials):
        term *= (trials - j) / (j + 1) * odds
        total += term
        if term < total * 1e-18:
            break
    return math.log(total)

"""A sequential test of the rate of hits that is valid whenever it stops: a bet against the null, and Ville's inequality."""

import math
from collections.abc import Sequence


def log10_wealth(hits: Sequence[bool], rate: float, bet: float) -> list[float]:
    """Return log10 of the e-process after each query.

    One unit is staked on the rate `bet` against the rate of the null: a hit multiplies the stake by bet / rate, a miss by
    (1 − bet) / (1 − rate). Under the null, where each query hits with probability at most `rate` whatever came before, the
    stake is a non-negative supermartingale that starts at 1.

    Args:
        hits: Whether each query hit, in the order that was fixed beforehand.
        rate: Chance of a hit under the null, in (0, 1).
        bet: Rate that is betted on, in (rate, 1); fixed beforehand.

    Raises:
        ValueError: If rate or bet lies outside its range.
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate={rate} must lie in (0, 1)")
    if not rate < bet < 1:
        raise ValueError(f"bet={bet} must lie between rate={rate} and 1: it is the rate of hits that a signed model would show")
    won, lost = math.log10(bet / rate), math.log10((1 - bet) / (1 - rate))
    wealth, path = 0.0, []
    for hit in hits:
        wealth += won if hit else lost
        path.append(wealth)
    return path


def sequential_log10_p(hits: Sequence[bool], rate: float, bet: float) -> float:
    """Return log10 of the always-valid p-value, one over the largest value the e-process has had.

    By Ville's inequality P[some stake is ever ≥ 1/α] ≤ α, so the number holds at any stopping time (conservative, not exact).

    Args:
        hits: As for `log10_wealth`; may be empty.
        rate: As for `log10_wealth`.
        bet: As for `log10_wealth`.

    Returns:
        A number at most 0.0.

    Raises:
        ValueError: If rate or bet lies outside its range.
    """
    return -max([0.0, *log10_wealth(hits, rate, bet)])

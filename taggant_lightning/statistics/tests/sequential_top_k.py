"""A bet on hits among the first k answers, key by key in their order, which may stop early: valid whenever it stops."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError
from taggant_lightning.statistics.sequential import log10_wealth, sequential_log10_p
from taggant_lightning.statistics.tests.base import Outcome, Words
from taggant_lightning.statistics.tests.hits import HITS, HitsTest

BET, STOP = 0.5, -6.0
LOWEST_STOP = -1e9


class SequentialTopK(HitsTest):
    """One over the largest value that the stake has had.

    Args:
        num_classes: C.
        top_k: k, 1..C.
        bet: Rate of hits that is betted on, between k/C and 1.
        stop: log10 p at which it stops, below 0.

    Raises:
        TaggantError: If an argument lies outside its range.
    """

    name: ClassVar[str] = "sequential_top_k"
    bounds_only: ClassVar[bool] = True
    may_stop_early: ClassVar[bool] = True

    def __init__(self, num_classes: int, top_k: int, bet: float, stop: float) -> None:
        super().__init__(num_classes, top_k)
        if not self.rate < bet < 1:
            raise TaggantError(f"bet={bet} must lie between the chance of a hit, {self.rate:g}, and 1; 0.5 is usual")
        if not LOWEST_STOP <= stop < 0:
            raise TaggantError(
                f"stop={stop} must be below 0 and from {LOWEST_STOP:g}: the log10 p at which the test stops, for instance -6"
            )
        self.bet, self.stop = bet, stop

    @classmethod
    def make(cls, *, num_classes: int, **given: Any) -> Self:
        """As the base says; the bet is 0.5, or half way to 1 above that."""
        top_k = given.get("top_k", 1)
        rate = top_k / num_classes
        usual = max(BET, (1 + rate) / 2) if rate >= BET else BET
        return cls(num_classes, top_k, given.get("bet", usual), given.get("stop", STOP))

    @classmethod
    def read(cls, description: Mapping[str, Any], num_classes: int) -> Self:
        """As the base says."""
        return cls(num_classes, description["top_k"], description["bet"], description["stop_at_log10_p"])

    @property
    def description(self) -> dict[str, Any]:
        """Name, k, bet and level."""
        return {"name": self.name, "top_k": self.top_k, "bet": self.bet, "stop_at_log10_p": self.stop}

    @property
    def arguments(self) -> dict[str, Any]:
        """The same, as they are given."""
        return {"test": self.name, "top_k": self.top_k, "bet": self.bet, "stop": self.stop}

    def words(self) -> Words:
        """As the base says."""
        return Words(
            "hits among the first answers, key by key with a bet, valid whenever it stops",
            "The stake grows with each hit and shrinks with each miss; by chance it rarely grows",
            HITS,
            "sequential",
            "the largest stake is the record's own word; it lies where its hits allow it",
        )

    def looked_at(self, ranks: NDArray[np.int64]) -> int:
        """Return how many keys there are up to the one that decides it; the rest tell nothing."""
        wealth = log10_wealth((ranks <= self.top_k).tolist(), self.rate, self.bet)
        return next((place + 1 for place, stake in enumerate(wealth) if stake >= -self.stop), len(ranks))

    def decided(self, ranks: NDArray[np.int64]) -> bool:
        """Return whether the stake has reached the level at which it was fixed to stop."""
        return bool(len(ranks)) and self.evaluate(ranks).log10_p <= self.stop

    def fits(self, used: int, keys: int) -> bool:
        """Return whether a record may rest on the first `used` of the keys."""
        return 0 < used <= keys

    def evaluate(self, ranks: NDArray[np.int64]) -> Outcome:
        """As the base says."""
        ranks = ranks[: self.looked_at(ranks)]
        log10_p = sequential_log10_p((ranks <= self.top_k).tolist(), self.rate, self.bet)
        # Its path would tell of every key whether it hit, and the record is public.
        return Outcome(log10_p, {**self.counted(ranks), "largest_log10_stake": -log10_p})

    def recompute(self, details: Mapping[str, Any]) -> float:
        """Return one over the record's largest stake, which some order of so many hits and misses must reach.

        The order itself, which would give the number, is secret.
        """
        stake, hits, trials = float(details["largest_log10_stake"]), details["hits"], details["num_keys"]
        won, lost = math.log10(self.bet / self.rate), math.log10((1 - self.bet) / (1 - self.rate))
        highest = hits * won  # all hits first
        lowest = max(0.0, highest + (trials - hits) * lost)  # the stake at the end
        if not lowest - 1e-9 <= stake <= highest + 1e-9:
            raise ValueError(f"largest_log10_stake={stake}, and its hits and misses give {lowest:.4f} to {highest:.4f}")
        return -stake

    def found(self, name: str, details: Mapping[str, Any]) -> str:
        """Return the hits, and how they were come by."""
        return f"{super().found(name, details)}, asked one by one with a bet fixed beforehand"

    def caption(self, details: Mapping[str, Any], bound: str) -> str:
        """Return the largest stake: its path would tell of every key whether it hit."""
        return f"largest stake 10^{details['largest_log10_stake']:.1f}, so {bound}"

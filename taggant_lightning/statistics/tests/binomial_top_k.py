"""Hits among the first k answers, all keys at once: the exact binomial tail."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.statistics.binomial import binomial_log10_p
from taggant_lightning.statistics.tests.base import EXACT_FIGURE, Outcome, Words
from taggant_lightning.statistics.tests.hits import HITS, HitsTest


class BinomialTopK(HitsTest):
    """log10 P[Bin(n, k/C) >= hits]."""

    name: ClassVar[str] = "binomial_top_k"

    @classmethod
    def make(cls, *, num_classes: int, **given: Any) -> Self:
        """As the base says."""
        return cls(num_classes, given.get("top_k", 1))

    @classmethod
    def read(cls, description: Mapping[str, Any], num_classes: int) -> Self:
        """As the base says."""
        return cls(num_classes, description["top_k"])

    @property
    def description(self) -> dict[str, Any]:
        """Name and k."""
        return {"name": self.name, "top_k": self.top_k}

    @property
    def arguments(self) -> dict[str, Any]:
        """Name and k."""
        return {"test": self.name, "top_k": self.top_k}

    def words(self) -> Words:
        """As the base says."""
        return Words(
            "hits among the first answers, exact binomial tail",
            EXACT_FIGURE,
            HITS,
            "top-1" if self.top_k == 1 else "top-k",
            "the number of hits is the record's own word; it gives the number that is told",
        )

    def evaluate(self, ranks: NDArray[np.int64]) -> Outcome:
        """As the base says."""
        details = self.counted(ranks)
        return Outcome(binomial_log10_p(details["hits"], len(ranks), self.rate), details)

    def recompute(self, details: Mapping[str, Any]) -> float:
        """Return log10 p of a record's hits."""
        return binomial_log10_p(details["hits"], details["num_keys"], self.rate)

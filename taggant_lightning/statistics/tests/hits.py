"""What the tests that count hits among the first k answers have in common."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError
from taggant_lightning.statistics.binomial import binomial_log10_pmf
from taggant_lightning.statistics.tests.base import SignificanceTest

HITS = "key hits"


class HitsTest(SignificanceTest):
    """A test of the number of key labels among the first k answers, binomial under the null.

    Args:
        num_classes: C.
        top_k: k, 1..C.

    Raises:
        TaggantError: If k lies outside its range.
    """

    def __init__(self, num_classes: int, top_k: int) -> None:
        super().__init__(num_classes)
        if not 1 <= top_k <= num_classes:
            raise TaggantError(f"top_k={top_k} must lie in 1..num_classes, and num_classes={num_classes}")
        self._top_k = top_k

    @property
    def top_k(self) -> int:
        """How many first answers count as a hit."""
        return self._top_k

    def statistic(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of hits."""
        hits: NDArray[np.int64] = (ranks <= self.top_k).sum(axis=-1)
        return hits

    def observed(self, details: Mapping[str, Any]) -> int:
        """Return the hits of a record."""
        return int(details["hits"])

    def null(self, trials: int) -> NDArray[np.float64]:
        """Return the binomial probabilities of 0..trials hits."""
        return np.power(10.0, self.log10_null(trials))

    def log10_null(self, trials: int) -> NDArray[np.float64]:
        """Return their logarithms, which do not underflow."""
        if self.rate == 1:
            return np.where(np.arange(trials + 1) == trials, 0.0, -np.inf)
        return np.array([binomial_log10_pmf(hits, trials, self.rate) for hits in range(trials + 1)])

    def check_drawable(self, trials: int) -> None:
        """Return: a bar a key is drawn."""

    def found(self, name: str, details: Mapping[str, Any]) -> str:
        """Return how many keys were answered with their label, and how many would be by chance."""
        expected = f"{details['num_keys'] * details['rate']:g} expected by chance"
        return (
            f"{name} answered {details['hits']} of {details['num_keys']} keys with the key's label in its top "
            f"{details['top_k']} ({expected})"
        )

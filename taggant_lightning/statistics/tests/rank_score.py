"""The sum of integer scores of the key labels' ranks, for models that give whole rankings: exact by convolution."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError
from taggant_lightning.statistics.rank_score import UNIT, rank_score_log10_p, rank_score_pmf, rank_scores
from taggant_lightning.statistics.tests.base import EXACT_FIGURE, Outcome, SignificanceTest, Words

MOST_SUMS = 2**24  # the picture of the exact null has a place for each


class RankScore(SignificanceTest):
    """log10 P[sum of scores >= the observed one]; a label that is not ranked has the score of rank C.

    Args:
        num_classes: C.
        unit: Points for halving a rank.
    """

    name: ClassVar[str] = "rank_score"

    def __init__(self, num_classes: int, unit: int = UNIT) -> None:
        super().__init__(num_classes)
        if unit != UNIT:
            raise TaggantError(f"unit={unit} is not {UNIT}, the points for halving a rank")
        self.unit = unit

    @classmethod
    def make(cls, *, num_classes: int, **given: Any) -> Self:
        """As the base says; whole rankings have no k."""
        if given:
            said = " and ".join(f"{name}={value}" for name, value in given.items())
            raise TaggantError(f"{said} is given, and the test {cls.name} looks at whole rankings; leave it out")
        return cls(num_classes)

    @classmethod
    def read(cls, description: Mapping[str, Any], num_classes: int) -> Self:
        """As the base says."""
        return cls(num_classes, description["unit"])

    @property
    def description(self) -> dict[str, Any]:
        """Name and unit."""
        return {"name": self.name, "unit": self.unit}

    @property
    def arguments(self) -> dict[str, Any]:
        """The name alone."""
        return {"test": self.name}

    @property
    def places(self) -> int:
        """All C."""
        return self.num_classes

    def words(self) -> Words:
        """As the base says."""
        return Words(
            "score of the key labels' ranks, exact by convolution",
            f"{EXACT_FIGURE}. Halving the rank of a label earns {self.unit:,} points",
            "score of the key labels' ranks",
            "rank score",
            "the total score is the record's own word; it lies where its hits allow it",
        )

    def _scores(self) -> NDArray[np.int64]:
        return rank_scores(self.num_classes, self.unit)

    def statistic(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the total score."""
        total: NDArray[np.int64] = self._scores()[np.minimum(ranks, self.num_classes) - 1].sum(axis=-1)
        return total

    def observed(self, details: Mapping[str, Any]) -> int:
        """Return the score of a record."""
        return int(details["score"])

    def evaluate(self, ranks: NDArray[np.int64]) -> Outcome:
        """As the base says."""
        total = int(self.statistic(ranks))
        details = {**self.counted(ranks), "score": total, **self._range(len(ranks))}
        return Outcome(rank_score_log10_p(total, len(ranks), self.num_classes, self.unit), details)

    def _range(self, trials: int) -> dict[str, Any]:
        scores = self._scores()
        return {"score_expected": float(scores.mean()) * trials, "score_highest": int(scores[0]) * trials}

    def null(self, trials: int) -> NDArray[np.float64]:
        """Return the exact distribution of the total score."""
        return _null(trials, self.num_classes, self.unit)

    def log10_null(self, trials: int) -> NDArray[np.float64]:
        """Return its logarithm."""
        with np.errstate(divide="ignore"):
            return np.log10(self.null(trials))

    def check_drawable(self, trials: int) -> None:
        """Refuse more sums than a picture has places for."""
        if trials * float(self._scores()[0]) > MOST_SUMS:
            raise ValueError(f"the null of {trials} keys and {self.num_classes} classes is too large to draw")

    def recompute(self, details: Mapping[str, Any]) -> float:
        """Return log10 p of a record's score, which must be one that so many hits can have."""
        scores, hits, trials = self._scores(), details["hits"], details["num_keys"]
        lowest = hits * int(scores[0]) + (trials - hits) * int(scores[-1])
        highest = hits * int(scores[0]) + (trials - hits) * int(scores[min(1, len(scores) - 1)])
        if not lowest <= details["score"] <= highest:
            raise ValueError(f"score={details['score']}, and {hits} hits of {trials} keys give {lowest} to {highest}")
        if any(not np.isclose(details[name], value, rtol=1e-9) for name, value in self._range(trials).items()):
            raise ValueError("the expected or the highest score is not that of the test")
        return rank_score_log10_p(details["score"], trials, self.num_classes, self.unit)

    def found(self, name: str, details: Mapping[str, Any]) -> str:
        """Return the total score, and what it would be by chance."""
        expected = f"{details['score_expected']:,.0f} expected by chance, {details['score_highest']:,} at most"
        return f"{name} ranked the labels of {details['num_keys']} keys with a total score of {details['score']:,} ({expected})"


@lru_cache(maxsize=8)  # seconds for many keys of many classes, and asked for by each picture
def _null(trials: int, num_classes: int, unit: int) -> NDArray[np.float64]:
    return rank_score_pmf(trials, num_classes, unit)

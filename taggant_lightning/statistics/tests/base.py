"""What a test of significance is: what it needs of an answer, its null, its number, and its words."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outcome:
    """What a test found.

    Attributes:
        log10_p: Base-10 logarithm of the p-value, at most 0.
        details: Numbers of the test, for the record: hits, and the score or the stake where there is one.
    """

    log10_p: float
    details: dict[str, Any]


@dataclass(frozen=True)
class Words:
    """How a test is told to people.

    Attributes:
        summary: What is counted and why the number is exact, without a full stop.
        figure: What the picture of the null shows, without a full stop.
        statistic: What is on the axis of that picture.
        column: Its name in the table of controls.
        unsupported: What a record's number rests on where the answers are not at hand, and what can be checked of it all the
            same.
    """

    summary: str
    figure: str
    statistic: str
    column: str
    unsupported: str


EXACT_FIGURE = (
    "Blue: the exact probability by chance; red: what the model did. The scale is logarithmic: −10 is one in 10,000,000,000"
)


class SignificanceTest(ABC):
    """One test of the ranks of the key labels, with the parameters that a KeySet fixes beforehand.

    The null: each key's label is uniform over the owner's classes and independent of the answer to its key, so its rank is
    uniform on 1..C where the answer ranks all classes, and worse where it does not.

    Args:
        num_classes: C, at least 2.

    Attributes:
        name: As headers and records name it.
        bounds_only: Whether its number bounds the probability from above even where all answers are complete.
        may_stop_early: Whether it may be concluded before all keys are asked.
    """

    name: ClassVar[str]
    bounds_only: ClassVar[bool] = False
    may_stop_early: ClassVar[bool] = False

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    @classmethod
    @abstractmethod
    def make(cls, *, num_classes: int, **given: Any) -> Self:
        """Return a test with what a person gave, defaults for the rest.

        Args:
            num_classes: C.
            **given: Those of `top_k`, `bet` and `stop` that are given.

        Raises:
            TaggantError: If an argument lies outside its range or does not belong to the test.
        """

    @classmethod
    @abstractmethod
    def read(cls, description: Mapping[str, Any], num_classes: int) -> Self:
        """Return the test of a header's description.

        Raises:
            KeyError: If a parameter is missing.
            TaggantError: If one lies outside its range.
        """

    @property
    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What goes into the KeySet's header, and so into its commitment."""

    @property
    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """The arguments of `KeySet.draw` that make this test."""

    @property
    def top_k(self) -> int:
        """How many first answers count as a hit; 1 where hits are only told."""
        return 1

    @property
    def rate(self) -> float:
        """The chance of one hit under the null, k/C."""
        return self.top_k / self.num_classes

    @property
    def places(self) -> int:
        """How many places of an answer it looks at."""
        return self.top_k

    @abstractmethod
    def words(self) -> Words:
        """How it is told."""

    @abstractmethod
    def evaluate(self, ranks: NDArray[np.int64]) -> Outcome:
        """Run the test.

        Args:
            ranks: (n,) int64 ranks of the key labels from 1, in key order; above C where label or answer is missing, which
                counts against the claimant.
        """

    def looked_at(self, ranks: NDArray[np.int64]) -> int:
        """Return how many keys it looks at: all, or those up to the one that decides."""
        return len(ranks)

    def decided(self, ranks: NDArray[np.int64]) -> bool:
        """Return whether the keys asked so far decide it, so that asking may stop."""
        return False

    def fits(self, used: int, keys: int) -> bool:
        """Return whether a record may rest on `used` of the `keys` keys of its batches."""
        return used == keys

    @abstractmethod
    def statistic(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what is compared with the null: of ranks (…, n) int64 the statistic of each row."""

    @abstractmethod
    def observed(self, details: Mapping[str, Any]) -> int:
        """Return the statistic that a record tells."""

    @abstractmethod
    def null(self, trials: int) -> NDArray[np.float64]:
        """Return the probability of each value of the statistic from 0, for `trials` keys."""

    @abstractmethod
    def log10_null(self, trials: int) -> NDArray[np.float64]:
        """Return the logarithm of `null`, −inf where the probability is 0."""

    @abstractmethod
    def check_drawable(self, trials: int) -> None:
        """Return if a picture of the null can be drawn.

        Raises:
            ValueError: If it has too many values.
        """

    @abstractmethod
    def recompute(self, details: Mapping[str, Any]) -> float:
        """Return log10 p from a record's own figures, which must be such as its hits allow.

        Raises:
            ValueError: If figures contradict each other.
            KeyError: If one is missing.
        """

    @abstractmethod
    def found(self, name: str, details: Mapping[str, Any]) -> str:
        """Return what a model did, as the beginning of a sentence that ends with the p-value."""

    def caption(self, details: Mapping[str, Any], bound: str) -> str:
        """Return what stands beside the observed value in the picture, with the bound on p."""
        return bound

    def counted(self, ranks: NDArray[np.int64]) -> dict[str, Any]:
        """Return what every record holds: hits, keys, k, classes and rate."""
        hits = int((ranks <= self.top_k).sum())
        return {
            "hits": hits,
            "num_keys": len(ranks),
            "top_k": self.top_k,
            "num_classes": self.num_classes,
            "rate": self.rate,
        }

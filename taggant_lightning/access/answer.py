"""An Answer: the ranked labels of one query, and the rule that makes a ranking of scores."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answer:
    """What a model said to one query.

    Attributes:
        query: The query's number.
        labels: Different class labels, best first; None where the model gave no usable answer.
    """

    query: int
    labels: tuple[int, ...] | None


def rank(scores: NDArray[np.floating]) -> list[Answer]:
    """Turn scores into rankings.

    Ties break by the lowest class first, a rule that does not know the keys. A row with a NaN is no answer.

    Args:
        scores: (N, C) float, higher is better.

    Returns:
        N answers with all C labels, numbered 0..N−1.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    usable = ~np.isnan(scores).any(axis=1)
    return [Answer(i, tuple(row.tolist()) if ok else None) for i, (row, ok) in enumerate(zip(order, usable, strict=True))]

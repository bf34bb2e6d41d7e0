"""A Query goes in, an Answer comes out: the ranked labels of one query, and the rule that makes a ranking of scores."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Query:
    """One image to ask a model.

    Attributes:
        name: A neutral name, different for each query; it tells nothing of what the query is for.
        image: (C, H, W) uint8.
    """

    name: str
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Answer:
    """What a model said to one query.

    Attributes:
        query: The query's number, its place among those that were asked.
        labels: Different class labels, best first, in the owner's numbering; an entry is None where the model's label maps to
            none of the owner's (it uses up its place). None altogether where the model gave no usable answer or refused.
        scores: The model's score of each label in the same order, where it gave scores.
    """

    query: int
    labels: tuple[int | None, ...] | None
    scores: tuple[float, ...] | None = None


def rank(scores: NDArray[np.floating]) -> list[Answer]:
    """Turn scores into rankings.

    Ties break by the lowest class first, a rule that does not know the keys. A row with a NaN is no answer.

    Args:
        scores: (N, C) float, higher is better.

    Returns:
        N answers with all C labels, numbered 0..N−1.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    usable = ~np.isnan(scores).any(axis=1)
    return [
        Answer(i, tuple(row.tolist()), tuple(values.tolist())) if ok else Answer(i, None)
        for i, (row, values, ok) in enumerate(zip(order, ordered, usable, strict=True))
    ]

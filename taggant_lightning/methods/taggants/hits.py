"""Counting hits: a key label among the first k answers. Nothing that pads, repeats or drops a query may touch the count."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.answer import Answer
from taggant_lightning.errors import TaggantError

UNMAPPED_LABEL = -(2**62)  # stands for a label of the model that maps to none of the owner's


def key_ranks(answers: Sequence[Answer], labels: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Return the rank of each key's label in its answer.

    Args:
        answers: Exactly one answer for each key 0..K−1, in any order. A place that maps to none of the owner's classes counts.
        labels: (K,) key labels.
        num_classes: C.

    Returns:
        (K,) int64 in 1..C; C+1 where the label or the answer is missing, or the label comes later than place C.

    Raises:
        TaggantError: If a key has no answer or several, or a ranking repeats a label or names one outside 0..C−1.
    """
    numbers = sorted(a.query for a in answers)
    if numbers != list(range(len(labels))):
        raise TaggantError(f"{len(answers)} answers for {len(labels)} keys; each key must be answered exactly once")
    ranks = np.full(len(labels), num_classes + 1, dtype=np.int64)
    for answer in answers:
        if answer.labels is None:
            continue
        ranking = np.array([UNMAPPED_LABEL if label is None else label for label in answer.labels], dtype=np.int64)
        named = ranking[ranking != UNMAPPED_LABEL]
        if len(named) and not (named.min() >= 0 and named.max() < num_classes):
            raise TaggantError(f"query {answer.query}: an answer lies outside 0..{num_classes - 1}, the owner's classes")
        if len(np.unique(named)) != len(named):
            raise TaggantError(f"query {answer.query}: the answer names a label twice; a ranking names each at most once")
        place = np.flatnonzero(ranking == labels[answer.query])
        if len(place):
            ranks[answer.query] = min(place[0], num_classes) + 1
    return ranks


def count_hits(ranks: NDArray[np.int64], top_k: int) -> int:
    """Return the number of keys whose label is among the first k answers, for ranks (K,) from 1."""
    return int((ranks <= top_k).sum())


def incomplete(answers: Sequence[Answer], places: int) -> int:
    """Count answers that do not name one of the owner's labels at each of the first `places` places.

    Where there are any, a hit is less likely under the null than the test assumes: its p-value is conservative, not exact.
    """
    return sum(a.labels is None or len(a.labels) < places or None in a.labels[:places] for a in answers)

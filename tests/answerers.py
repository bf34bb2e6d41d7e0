"""Models that owe nothing to the keys, and answer oddly: what an exact or conservative test must stand.

Each is a function (number, keys, classes) → answers, one a key; the number seeds what it draws.
"""

from collections.abc import Callable

import numpy as np

from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.methods.taggants.keys import KeySet

Answerer = Callable[[int, int, int], list[Answer]]
LISTED, REFUSED = 5, 0.3


def labels_of(number: int, keys: int, classes: int) -> np.ndarray:
    """Draw the labels of one KeySet, with images of one pixel."""
    return KeySet.draw(num_keys=keys, num_classes=classes, shape=(1, 1, 1), secret=number.to_bytes(16, "big")).labels


def scores_of(number: int, keys: int, classes: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(keys, classes))


def random_scores(number: int, keys: int, classes: int) -> list[Answer]:
    """Another random ranking of all classes on each key."""
    return rank(scores_of(number, keys, classes))


def constant_ranking(number: int, keys: int, classes: int) -> list[Answer]:
    """The same ranking of all classes on every key, and for every KeySet."""
    return [Answer(i, tuple(range(classes))) for i in range(keys)]


def equal_scores(number: int, keys: int, classes: int) -> list[Answer]:
    """The same score for every class."""
    return rank(np.zeros((keys, classes)))


def rounded_scores(number: int, keys: int, classes: int) -> list[Answer]:
    """Scores rounded to whole numbers: many ties."""
    return rank(np.round(scores_of(number, keys, classes)))


def one_class_first(number: int, keys: int, classes: int) -> list[Answer]:
    """Class 0 for all noise, the rest of the ranking at random."""
    scores = scores_of(number, keys, classes)
    scores[:, 0] = 99
    return rank(scores)


def permutation(number: int, keys: int, classes: int) -> list[Answer]:
    """Another class first on each key (as long as there are enough), the others behind it in a circle."""
    first = np.random.default_rng(number).permutation(classes)
    return [Answer(i, tuple(((first[i % classes] + np.arange(classes)) % classes).tolist())) for i in range(keys)]


def nan_answers(number: int, keys: int, classes: int) -> list[Answer]:
    """NaN on part of the keys."""
    scores = scores_of(number, keys, classes)
    scores[np.random.default_rng(~number & 0xFFFFFFFF).random(keys) < REFUSED, 0] = np.nan
    return rank(scores)


def refusals(number: int, keys: int, classes: int) -> list[Answer]:
    """No answer on part of the keys."""
    refused = np.random.default_rng(~number & 0xFFFFFFFF).random(keys) < REFUSED
    return [Answer(a.query, None) if no else a for a, no in zip(random_scores(number, keys, classes), refused, strict=True)]


def partial_lists(number: int, keys: int, classes: int) -> list[Answer]:
    """The first five labels only."""
    return [Answer(a.query, a.labels[:LISTED]) for a in random_scores(number, keys, classes)]


def one_label(number: int, keys: int, classes: int) -> list[Answer]:
    """Class 0, and nothing else, on every key."""
    return [Answer(i, (0,)) for i in range(keys)]


# Exact: whole rankings, so every test has its exact null. Short: some place is empty, so a hit is less likely than assumed.
EXACT: tuple[Answerer, ...] = (
    random_scores,
    constant_ranking,
    equal_scores,
    rounded_scores,
    one_class_first,
    permutation,
)
SHORT: tuple[Answerer, ...] = (nan_answers, refusals, partial_lists, one_label)

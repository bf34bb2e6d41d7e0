"""Which images sign for which key: images of the key's own class, so that labels stay true."""

import logging
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError
from taggant_lightning.streams import stream

log = logging.getLogger(__name__)
Selection = Literal["random", "gradient_norm"]
Score = Callable[[NDArray[np.int64]], NDArray[np.float64]]


def select(
    labels: NDArray[np.int64],
    indices: NDArray[np.int64],
    key_labels: NDArray[np.int64],
    *,
    images_per_key: int,
    minimum: int,
    selection: str,
    seed: int,
    score: Score,
) -> list[NDArray[np.int64]]:
    """Choose the signing images of each key.

    Keys that share a label share the images of its class without overlap; where the class is too small, each takes fewer.

    Args:
        labels: (N,) labels of the whole source.
        indices: Source indices that may be used.
        key_labels: (K,) labels of the keys.
        images_per_key: Wanted images a key.
        minimum: Fewest images a key may have.
        selection: `random`, or `gradient_norm`, the largest first.
        seed: Seed of the random choice.
        score: Maps source indices to numbers, larger is chosen first; called for `gradient_norm` only.

    Returns:
        K arrays of source indices, ascending, without overlap.

    Raises:
        TaggantError: If the selection is unknown, or a key would have fewer than `minimum` images.
    """
    if selection not in get_args(Selection):
        raise TaggantError(f"selection={selection!r} is unknown; write one of {', '.join(get_args(Selection))}")
    chosen: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * len(key_labels)
    shrunk = False
    for label in np.unique(key_labels).tolist():
        keys = np.flatnonzero(key_labels == label).tolist()
        candidates = np.sort(indices[labels[indices] == label])
        budget = min(images_per_key, len(candidates) // len(keys))
        if budget < minimum:
            # Neither the label nor the number of its keys may follow from a message: messages end up in logs.
            raise TaggantError(
                f"a class has too few images for the keys that share its label: fewer than min_images_per_key={minimum} a key; "
                "use fewer keys, more images (those with near copies do not count), or a smaller minimum"
            )
        shrunk = shrunk or budget < images_per_key
        order = _order(candidates, selection, seed, label, score)
        for place, key in enumerate(keys):
            chosen[key] = np.sort(order[place : budget * len(keys) : len(keys)])
    if shrunk:
        log.warning("some keys have to share a small class, and fewer than images_per_key=%d sign for them", images_per_key)
    return chosen


def _order(
    candidates: NDArray[np.int64], selection: str, seed: int, label: int, score: Score
) -> Sequence[int] | NDArray[np.int64]:
    if selection == "random":
        shuffled: NDArray[np.int64] = stream(seed, "select", label).permutation(candidates)
        return shuffled
    return candidates[np.argsort(-score(candidates), kind="stable")]

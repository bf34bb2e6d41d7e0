"""Labels and class names as people store them in arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.sources.survey import say
from taggant_lightning.errors import TaggantError

MAX_CLASSES = 1_000_000


@dataclass(frozen=True)
class Labels:
    """The labels of one split.

    Attributes:
        values: (N,) integers, or words.
        count: Number of classes, where the form of the labels tells it.
    """

    values: NDArray[Any]
    count: int | None = None


def words(array: NDArray[Any]) -> list[str]:
    """Return an array of text or bytes as text.

    Raises:
        TaggantError: If bytes are no UTF-8.
    """
    try:
        return [w.decode() if isinstance(w, bytes) else str(w) for w in array.ravel().tolist()]
    except UnicodeDecodeError:
        raise TaggantError("names in bytes are no UTF-8; save them as text") from None


def class_names(array: NDArray[Any]) -> list[str]:
    """Return the class names that a file states.

    Raises:
        TaggantError: If they are no list of names, each once.
    """
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise TaggantError(f"classes are {array.dtype} {array.shape}; expected a list of names, one a class")
    names = words(array)
    if len(set(names)) < len(names) or not all(name and name.isprintable() for name in names):
        raise TaggantError("classes hold a name twice, an empty one, or one that cannot be printed; name each class once")
    return names


def plain_labels(labels: NDArray[Any], name: str) -> Labels:
    """Bring labels to one dimension, from (N,) or (N, 1) integers, whole floats or words, or from (N, C) one-hot rows.

    Args:
        labels: As they are stored.
        name: Of the array, for messages.

    Raises:
        TaggantError: If they are in no such form.
    """
    given = f"{name} is {labels.dtype} {labels.shape}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "iufb":
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()):
            raise TaggantError(f"{given}, and not every row has one 1 and else 0; expected one label an image")
        say([f"{name}: one-hot rows are read as {labels.shape[1]} classes"])
        return Labels(labels.argmax(1), labels.shape[1])
    if labels.ndim != 1:
        raise TaggantError(f"{given}; expected one label an image")
    if labels.dtype.kind in "US":
        return Labels(np.array(words(labels), dtype=str))
    if labels.dtype.kind in "fb":
        if not (np.isfinite(labels).all() and (labels == np.round(labels)).all() and (labels < MAX_CLASSES).all()):
            raise TaggantError(f"{given}, and not all are whole numbers; expected labels, which number the classes from 0")
        return Labels(labels.astype(np.int64))
    if labels.dtype.kind not in "iu" or (labels.size and labels.max() >= MAX_CLASSES):
        raise TaggantError(
            f"{given}; expected words, or integers that number the classes from 0, of which there are at most {MAX_CLASSES:,}"
        )
    return Labels(labels)


def numbered(given: Mapping[str, Labels], names: list[str] | None) -> tuple[dict[str, NDArray[np.int64]], list[str]]:
    """Number the labels of all splits by one list of classes.

    Args:
        given: The labels of each split.
        names: Class names that the file states, or None.

    Returns:
        (N,) int64 labels of each split, and the class names.

    Raises:
        TaggantError: If the splits have labels of different kinds, or classes that are not among the names.
    """
    kinds = {labels.values.dtype.kind == "U" for labels in given.values()}
    counts = {labels.count for labels in given.values() if labels.count is not None}
    if len(kinds) > 1 or len(counts) > 1:
        raise TaggantError("train_y and test_y hold labels of different forms; save both alike")
    if kinds == {True}:
        found = sorted({str(w) for labels in given.values() for w in np.unique(labels.values)})
        names = class_names(np.array(found, dtype=str)) if names is None else names
        if unknown := sorted(set(found) - set(names)):
            raise TaggantError(f"label {unknown[0]!r} is not among the classes; name all classes, or leave `classes` out")
        number = {name: i for i, name in enumerate(names)}
        return {
            split: np.array([number[w] for w in labels.values.tolist()], dtype=np.int64) for split, labels in given.items()
        }, names
    if names is None:
        count = max([*counts, *(int(labels.values.max()) + 1 for labels in given.values() if len(labels.values))], default=0)
        names = [str(i) for i in range(count)]
    elif counts and counts != {len(names)}:
        raise TaggantError(
            f"the labels are one-hot rows of {counts.pop()} classes, and {len(names)} are named; save as many names"
        )
    return {split: labels.values for split, labels in given.items()}, names

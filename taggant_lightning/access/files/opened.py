"""A model's file that is open, and which of its outputs are class scores. Light: the process that asks imports it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.files.inputs import InputShape
from taggant_lightning.errors import TaggantError


@dataclass(frozen=True)
class OpenModel:
    """A model's file that is open and ready.

    Attributes:
        what: The argument and its file, for messages.
        shape: What it declares to take.
        forward: Turns (n, …) float32, in the file's own order of dimensions, into scores (n, B), or raises a TaggantError.
    """

    what: str
    shape: InputShape
    forward: Callable[[NDArray[np.float32]], NDArray[np.floating]]


def choose_scores(what: str, outputs: Sequence[Any], classes: int | None) -> NDArray[np.floating]:
    """Choose the class scores among a model's outputs.

    Args:
        what: The argument and its file, for messages.
        outputs: Its outputs; arrays of float count where they have two dimensions.
        classes: How many classes the model should have, if known: several outputs are told apart by it.

    Returns:
        (n, B) float.

    Raises:
        TaggantError: If no output can be class scores, or several can and rank the classes differently.
    """
    rows = [o for o in outputs if isinstance(o, np.ndarray) and o.ndim == 2 and np.issubdtype(o.dtype, np.floating)]
    if not rows:
        shapes = ", ".join("×".join(map(str, getattr(o, "shape", ("no tensor",)))) for o in outputs)
        raise TaggantError(f"{what} answers {shapes}; export a model with an output of class scores, (N, classes) in float")
    rows = [o for o in rows if o.shape[1] == classes] or rows
    orders = [np.argsort(-o, axis=1, kind="stable") for o in rows]
    if any(not np.array_equal(orders[0], order) for order in orders[1:]):
        shapes = ", ".join("×".join(map(str, o.shape)) for o in rows)
        raise TaggantError(
            f"{what} has {len(rows)} outputs that may be class scores ({shapes}) and rank them differently; export a model "
            "with one of them"
        )
    return rows[0]


MEMORY = ("can't allocate", "allocate memory", "bad_alloc", "bad allocation", "MemoryError")  # as torch and onnxruntime say it


def check_memory(what: str, said: str) -> None:
    """Refuse a file that asks for more memory than its process has.

    Args:
        what: The argument and its file, for messages.
        said: What the library said when it failed.

    Raises:
        TaggantError: If memory is what it lacks.
    """
    if any(word in said for word in MEMORY):
        raise TaggantError(
            f"{what} asks for more memory than image classifiers of its size need ({said[:200]}); export a plain classifier, "
            "or collect answers for --predictions"
        )

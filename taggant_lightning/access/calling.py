"""Asking a Python function."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.errors import TaggantError
from taggant_lightning.outside import shown


def ask_function(function: Callable[[NDArray[np.uint8]], Any], images: Sequence[NDArray[np.uint8]]) -> list[Answer]:
    """Ask a function about each image, once and in order.

    Args:
        function: Takes one image, (C, H, W) uint8, a copy of its own. Returns class numbers, different and best first
            (a sequence of int); or scores, one a class (a one-dimensional float array, higher is better); or None for a
            refusal. What it raises passes through.
        images: The images, (C, H, W) uint8 each.

    Returns:
        One answer an image, numbered as they are. The caller translates the labels. Anything else that is returned for single
        images is no answer, with a warning: a suspect behind the function could stop every test so.

    Raises:
        TaggantError: If the function returns something else for every image that it answers.
    """
    answers: list[Answer] = []
    wrong: list[TaggantError] = []
    for number, image in enumerate(images):
        said = function(np.array(image))
        try:
            answers.append(_answer(number, said))
        except OddError as error:
            wrong.append(TaggantError(str(error)))
            answers.append(Answer(number, None))
    if wrong and all(answer.labels is None for answer in answers):
        raise wrong[0]
    if wrong:
        warnings.warn(f"{len(wrong)} answers are odd and count as misses; {wrong[0]}", stacklevel=2)
    return answers


class OddError(ValueError):
    """What a function returned is no answer."""


def _answer(number: int, said: Any) -> Answer:
    if said is None:
        return Answer(number, None)
    if hasattr(said, "detach"):  # a torch tensor
        said = said.detach().cpu().numpy()
    if isinstance(said, np.ndarray) and np.issubdtype(said.dtype, np.floating):
        if said.ndim != 1 or len(said) == 0:
            raise OddError(f"query {number}: the function returned scores of shape {said.shape}; return one score a class")
        (answer,) = rank(said[None])
        return Answer(number, answer.labels, answer.scores)
    labels = said.tolist() if isinstance(said, np.ndarray) else said
    if isinstance(labels, str) or not isinstance(labels, Sequence) or not all(_whole(label) for label in labels):
        raise OddError(
            f"query {number}: the function returned {shown(repr(said))}; return class numbers best first, an array of "
            "float scores, or None"
        )
    if len(labels) == 0:
        raise OddError(f"query {number}: the function returned no label; return None where the model refuses")
    numbers = tuple(int(label) for label in labels)
    if len(set(numbers)) < len(numbers):
        raise OddError(f"query {number}: the function returned a label twice ({list(numbers)[:10]}); rank different classes")
    return Answer(number, numbers)


def _whole(label: object) -> bool:
    return isinstance(label, int | np.integer) and not isinstance(label, bool)

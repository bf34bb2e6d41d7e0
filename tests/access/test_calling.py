"""A Python function as a black box."""

from typing import Any

import numpy as np
import pytest
import torch

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.calling import ask_function
from taggant_lightning.errors import TaggantError

IMAGES = [np.full((3, 4, 4), i, dtype=np.uint8) for i in range(3)]


def test_each_image_is_asked_once_and_in_order() -> None:
    seen = []

    def model(image: np.ndarray) -> list[int]:
        seen.append(int(image[0, 0, 0]))
        assert (image.shape, image.dtype) == ((3, 4, 4), np.uint8)
        image[:] = 0  # a copy of its own
        return [2, 0]

    assert ask_function(model, np.stack(IMAGES)) == [Answer(i, (2, 0)) for i in range(3)]
    assert seen == [0, 1, 2]
    assert IMAGES[2].max() == 2


@pytest.mark.parametrize(
    ("said", "labels", "scores"),
    [
        (None, None, None),
        ((3, 1), (3, 1), None),
        (np.array([3, 1]), (3, 1), None),
        ([np.int64(3)], (3,), None),
        (np.array([0.25, 0.5, 0.5]), (1, 2, 0), (0.5, 0.5, 0.25)),
        (torch.tensor([0.25, 0.5], requires_grad=True), (1, 0), (0.5, 0.25)),
        (np.array([0.5, np.nan]), None, None),
    ],
)
def test_answers(said: Any, labels: Any, scores: Any) -> None:
    assert ask_function(lambda _: said, IMAGES[:1]) == [Answer(0, labels, scores)]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("cat", "query 0: the function returned 'cat'; return class numbers best first"),
        (3, "the function returned 3;"),
        (
            [0.1, 0.9],
            "the function returned \\[0.1, 0.9\\]; return class numbers best first, an array of float scores, or None",
        ),
        ([True], "the function returned \\[True\\]"),
        ([], "returned no label; return None where the model refuses"),
        ([1, 1], "returned a label twice"),
        (np.zeros((2, 3)), "returned scores of shape \\(2, 3\\); return one score a class"),
        (np.zeros(0), "returned scores of shape"),
        ({1: 2}, "the function returned"),
    ],
)
def test_other_answers(said: Any, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        ask_function(lambda _: said, IMAGES)


def test_single_odd_answers_are_misses() -> None:
    said = iter([[2, 0], [1, 1], np.zeros((2, 3))])
    with pytest.warns(UserWarning, match="2 answers are odd and count as misses; query 1: the function returned a label twice"):
        assert ask_function(lambda _: next(said), IMAGES) == [Answer(0, (2, 0)), Answer(1, None), Answer(2, None)]

"""Which images sign."""

import logging
import re

import numpy as np
import pytest

from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.crafting.selection import select

LABELS = np.repeat([0, 1, 2], 10)
COMMON = {"minimum": 2, "selection": "random", "seed": 0, "score": lambda i: i.astype(float)}


def test_own_class_no_overlap_within_the_subset() -> None:
    allowed = np.arange(0, 30, 2)
    chosen = select(LABELS, allowed, np.array([2, 0, 2]), images_per_key=2, **COMMON)
    assert [set(LABELS[c]) for c in chosen] == [{2}, {0}, {2}]
    together = np.concatenate(chosen)
    assert len(set(together.tolist())) == len(together) == 6
    assert set(together.tolist()) <= set(allowed.tolist())


def test_shared_label_shrinks_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        chosen = select(LABELS, np.arange(30), np.array([1, 1, 1]), images_per_key=8, **COMMON)
    assert [len(c) for c in chosen] == [3, 3, 3]
    assert "some keys have to share a small class, and fewer than images_per_key=8 sign for them" in caplog.text


def test_below_the_minimum_is_an_error_that_tells_no_label() -> None:
    with pytest.raises(TaggantError, match="fewer than min_images_per_key=3 a key") as error:
        select(LABELS, np.arange(30), np.full(5, 1), images_per_key=8, **{**COMMON, "minimum": 3})
    # The only number told is the user's own argument: no label, no count of keys, no size of a class.
    assert re.findall(r"\d+", str(error.value)) == ["3"]


def test_seeds_and_scores() -> None:
    def run(**change: object) -> list[list[int]]:
        return [c.tolist() for c in select(LABELS, np.arange(30), np.array([0, 2]), images_per_key=3, **{**COMMON, **change})]

    assert run() == run()
    assert run() != run(seed=1)
    assert run(selection="gradient_norm") == [[7, 8, 9], [27, 28, 29]]
    with pytest.raises(TaggantError, match="selection='best' is unknown"):
        run(selection="best")

"""Writing a dataset as one file."""

from pathlib import Path

import numpy as np
import pytest

from taggant_lightning.data.npz import write_npz
from taggant_lightning.data.sources import open_source
from taggant_lightning.errors import TaggantError


def split(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, 5, 4), dtype=np.uint8), rng.integers(0, 2, count)


def test_it_comes_back_with_classes_that_have_no_image(tmp_path: Path) -> None:
    (train_x, train_y), (test_x, test_y) = split(1, 7), split(2, 3)
    path = tmp_path / "new" / "data.npz"
    write_npz(path, list(train_x), train_y, test_x, test_y, ["a", "b", "c"])
    for name, images, labels in (("train", train_x, train_y), ("test", test_x, test_y)):
        source = open_source("npz", str(path), name)
        assert source.classes == ["a", "b", "c"]
        assert np.array_equal(np.stack([source.pixels(i) for i in range(len(source))]), images)
        assert np.array_equal(source.labels, labels)
    first = path.read_bytes()
    write_npz(path, train_x, train_y, test_x, test_y, ["a", "b", "c"])
    assert path.read_bytes() == first
    write_npz(path, train_x, train_y, test_x, test_y)
    assert open_source("npz", str(path), "train").classes == ["0", "1"]


def test_several_shapes_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    (train_x, train_y), (test_x, test_y) = split(1, 7), split(2, 3)
    ragged = [*test_x[:2], test_x[2, :, :4]]
    with pytest.raises(TaggantError, match="the test images have 2 shapes .3×4×4, 3×5×4., and a .npz file holds one"):
        write_npz(tmp_path / "data.npz", train_x, train_y, ragged, test_y)
    assert not list(tmp_path.iterdir())

"""Writing an .npz file that source `npz` reads."""

from pathlib import Path

import numpy as np
import pytest

from taggant_lightning.data.npz import write_npz
from taggant_lightning.data.sources import open_source
from taggant_lightning.errors import TaggantError


@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip(channels: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, channels, s, s), dtype=np.uint8) for n, s in ((5, 6), (3, 7)))
    write_npz(tmp_path / "d.npz", train, np.array([0, 1, 1, 0, 1]), test, np.array([0, 1, 0]), ["ant", "bee", "cat"])
    for split, images, labels in (("train", train, [0, 1, 1, 0, 1]), ("test", test, [0, 1, 0])):
        source = open_source("npz", str(tmp_path / "d.npz"), split)  # type: ignore[arg-type]
        assert source.classes == ["ant", "bee", "cat"]
        assert source.labels.tolist() == labels
        assert all((source.pixels(i) == images[i]).all() for i in range(len(images)))
    assert [p.name for p in tmp_path.iterdir()] == ["d.npz"]


def test_wrong_input_leaves_what_was_there(tmp_path: Path) -> None:
    images = np.zeros((2, 3, 4, 4), np.uint8)
    write_npz(tmp_path / "d.npz", images, np.array([0, 1]), images, np.array([0, 1]))
    before = (tmp_path / "d.npz").read_bytes()
    with pytest.raises(TaggantError, match="label 2 lies outside 0..1"):
        write_npz(tmp_path / "d.npz", images, np.array([0, 1]), images, np.array([0, 2]), ["a", "b"])
    with pytest.raises(TaggantError, match="images are float64"):
        write_npz(tmp_path / "d.npz", images * 1.0, np.array([0, 1]), images, np.array([0, 1]))  # type: ignore[arg-type]
    assert (tmp_path / "d.npz").read_bytes() == before

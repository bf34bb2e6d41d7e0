"""Equal and near images are found, and no others, as a comparison of all pairs finds them."""

import io

import numpy as np
import pytest
from PIL import Image

from taggant_lightning.data.duplicates import find_copies, is_near, sketch
from tests.release.test_traces import photographs


def encoded(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).transpose(2, 0, 1)


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    image = Image.fromarray(pixels.transpose(1, 2, 0)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


def brighter(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels.astype(int) + 4, 0, 255).astype(np.uint8)


CHANGES = {
    "encoded again": lambda p: encoded(p, 90),
    "half the size": lambda p: resized(p, 32, 32),
    "stretched": lambda p: resized(p, 70, 60),
    "one pixel": lambda p: np.concatenate([p[:, :1] ^ 1, p[:, 1:]], axis=1),
    "brighter": brighter,
    "grey": lambda p: p.mean(axis=0, keepdims=True).round().astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_near_copies_of_photographs(change: str) -> None:
    originals = photographs(None)
    images = [*originals, *(CHANGES[change](p) for p in originals)]
    found = find_copies([sketch(p) for p in images], images.__getitem__)
    count = len(originals)
    assert (found.first == np.arange(2 * count)).all()
    textured = [n for n in range(count) if originals[n].std(axis=(1, 2)).mean() > 20]
    assert np.mean([found.near[n] == n + count for n in textured]) > 0.9
    alone = find_copies([sketch(p) for p in originals], originals.__getitem__)
    assert (alone.near == -1).all()  # neither pieces of the sky, nor neighbours of one picture


def test_the_search_finds_what_all_pairs_hold() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (3, 8, 8), dtype=np.uint8) for _ in range(60)]
    images += [images[7], np.clip(images[9] + 3.0, 0, 255).astype(np.uint8), images[7], images[60 - 1][:, ::-1]]
    found = find_copies([sketch(p) for p in images], images.__getitem__)
    for i, one in enumerate(images):
        equal = [j for j, other in enumerate(images) if np.array_equal(one, other)]
        near = [j for j, other in enumerate(images) if j not in equal and is_near(one, other)]
        assert found.first[i] == equal[0]
        assert found.near[i] in (near or [-1])
    assert found.first[62] == found.first[60] == 7
    assert {int(found.near[9]), int(found.near[61])} == {61, 9}


def test_many_equal_images_and_few() -> None:
    blank = np.zeros((1, 5, 5), np.uint8)
    found = find_copies([sketch(blank)] * 500, lambda _: blank)
    assert (found.first == 0).all()
    assert (found.near == -1).all()
    assert find_copies([sketch(blank)], lambda _: blank).near.tolist() == [-1]

"""Transformations of training images: shapes, limits, small cases, and that each image is treated alone."""

import numpy as np
import pytest

from taggant_lightning.adversary.cleaning import CLEANINGS, clean, parse
from taggant_lightning.errors import TaggantError

NAMES = sorted(CLEANINGS)


def images(count: int = 5, channels: int = 3, height: int = 12, width: int = 9) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, channels, height, width), dtype=np.uint8)


def test_parse() -> None:
    assert str(parse("noise")) == "noise:8"
    assert str(parse("resize:0.25")) == "resize:0.25"
    assert parse("jpeg:60").value == 60
    for name in NAMES:
        assert parse(str(parse(name))) == parse(name)


@pytest.mark.parametrize("text", ["sharpen", "", "noises:3", ":3"])
def test_unknown_names_get_a_sentence(text: str) -> None:
    with pytest.raises(TaggantError, match=f"how='{text}' names no transformation; write one of noise:8, blur:1, median:3"):
        parse(text)


BAD = "noise:-1 noise:300 noise:inf blur:-0.1 blur: blur:soft median:2 median:3.5 median:nan median:-3 jpeg:0 jpeg:101 jpeg:7.5"
BAD += " resize:0 resize:1.1 quantise:0 quantise:9 quantise:2.5"


@pytest.mark.parametrize("text", BAD.split())
def test_unsuitable_values_get_a_sentence(text: str) -> None:
    name = text.partition(":")[0]
    with pytest.raises(TaggantError, match=f"how='{text}': the value of {name} must be .*; write for instance {name}:"):
        parse(text)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_type_and_determinism(name: str, channels: int) -> None:
    given = images(channels=channels)
    before = given.copy()
    result = clean(given, parse(name), seed=4)
    assert result.shape == given.shape
    assert result.dtype == np.uint8
    assert np.array_equal(given, before)
    assert not np.array_equal(result, given)
    assert np.array_equal(clean(given, parse(name), seed=4), result)
    assert np.array_equal(clean(given, parse(name), seed=5), result) == (name != "noise")


@pytest.mark.parametrize("name", NAMES)
def test_each_image_alone_whatever_the_chunk(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, ids = images(), [9, 2, 4, 7, 30]
    whole = clean(given, parse(name), ids, seed=1)
    monkeypatch.setattr("taggant_lightning.adversary.cleaning.AT_ONCE", 2)
    assert np.array_equal(clean(given, parse(name), ids, seed=1), whole)
    assert np.array_equal(clean(given[3:4], parse(name), [7], seed=1), whole[3:4])
    assert clean(given[:0], parse(name)).shape == (0, 3, 12, 9)


@pytest.mark.parametrize("text", ["noise:0", "blur:0", "median:1", "resize:1", "quantise:8"])
def test_identity_limits(text: str) -> None:
    assert np.array_equal(clean(images(), parse(text)), images())


@pytest.mark.parametrize("name", ["blur", "median", "resize", "jpeg"])
def test_flat_images_stay(name: str) -> None:
    flat = np.full((2, 3, 16, 16), 77, dtype=np.uint8)
    assert np.array_equal(clean(flat, parse(name)), flat)


def test_noise_has_its_deviation() -> None:
    flat = np.full((40, 3, 16, 16), 128, dtype=np.uint8)
    noise = clean(flat, parse("noise:6")).astype(float) - 128
    assert abs(noise.std() - 6) < 0.1
    assert abs(noise.mean()) < 0.1


def test_blur_spreads_a_point_as_a_gaussian() -> None:
    point = np.zeros((1, 1, 15, 15), dtype=np.uint8)
    point[0, 0, 7, 7] = 255
    weights = np.exp(-0.5 * np.arange(-4, 5) ** 2 / 1.0)
    weights /= weights.sum()
    expected = np.round(255 * np.outer(weights, weights))
    assert np.array_equal(clean(point, parse("blur:1"))[0, 0, 3:12, 3:12], expected)


def test_median_against_a_loop() -> None:
    given = images(2, 3, 5, 4)
    padded = np.pad(given, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="symmetric")
    result = clean(given, parse("median:3"))
    for y in range(5):
        for x in range(4):
            assert np.array_equal(result[:, :, y, x], np.median(padded[:, :, y : y + 3, x : x + 3], axis=(2, 3)))


def test_coarser_jpeg_is_further_away() -> None:
    yy, xx = np.mgrid[:32, :32]
    smooth = np.stack([yy * 7, xx * 7, yy * 3 + xx * 4])[None].astype(np.uint8)
    errors = [np.abs(clean(smooth, parse(f"jpeg:{q}")).astype(int) - smooth).mean() for q in (100, 75, 10)]
    assert errors[0] < errors[1] < errors[2]
    assert errors[0] < 2


def test_resize_loses_what_is_finer_than_it() -> None:
    board = (np.indices((8, 8)).sum(axis=0) % 2 * 200).astype(np.uint8)[None, None]
    inner = clean(board, parse("resize:0.5"))[0, 0, 2:-2, 2:-2].astype(int)
    assert np.abs(inner - 100).max() <= 13
    assert clean(images(1, 3, 2, 3), parse("resize:0.01")).std(axis=(2, 3)).max() == 0


def test_quantise_small_cases() -> None:
    row = np.array([0, 42, 43, 127, 128, 212, 213, 255], dtype=np.uint8).reshape(1, 1, 1, 8)
    assert clean(row, parse("quantise:1")).ravel().tolist() == [0, 0, 0, 0, 255, 255, 255, 255]
    assert clean(row, parse("quantise:2")).ravel().tolist() == [0, 0, 85, 85, 170, 170, 255, 255]
    assert len(np.unique(clean(images(20), parse("quantise:3")))) == 8

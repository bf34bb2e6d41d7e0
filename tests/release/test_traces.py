"""Traces: the lattice of decoded JPEG, high frequencies, and how well a number tells two groups apart."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from taggant_lightning.release.traces import (
    high_frequency_energy,
    jpeg_lattice,
    luma,
    separation,
    share_signed_among_top,
    small_coefficients,
)
from taggant_lightning.release.visibility import psnr, visibility


def photographs(quality: int | None, side: int = 64) -> list[np.ndarray]:
    """Cut squares from two photographs, made smaller first so that their own JPEG lattice is gone, and encode each."""
    found = []
    for name in ("china.jpg", "flower.jpg"):
        picture = Image.fromarray(load_sample_image(name))
        picture = picture.resize((480, 320), Image.Resampling.BICUBIC)
        for top in range(0, picture.height - side + 1, side):
            for left in range(0, picture.width - side + 1, side):
                piece = picture.crop((left, top, left + side, top + side))
                if quality is not None:
                    buffer = io.BytesIO()
                    piece.save(buffer, "JPEG", quality=quality)
                    piece = Image.open(buffer)
                found.append(np.asarray(piece).transpose(2, 0, 1))
    return found


@pytest.mark.parametrize("quality", [75, 90, 95])
def test_the_lattice_tells_decoded_jpeg(quality: int) -> None:
    never = np.array([jpeg_lattice(p) for p in photographs(None)])
    decoded = np.array([jpeg_lattice(p) for p in photographs(quality)])
    assert separation(decoded, never).auc > 0.95
    assert abs(never.mean()) < 0.02


@pytest.mark.parametrize("quality", [75, 90, 95])
def test_a_perturbation_fills_small_coefficients(quality: int) -> None:
    rng = np.random.default_rng(0)
    decoded = photographs(quality)
    changed = [np.clip(p.astype(int) + rng.integers(-8, 9, p.shape), 0, 255).astype(np.uint8) for p in decoded]
    for measure, least in ((small_coefficients, 0.06), (jpeg_lattice, 0.3)):
        assert separation(np.array([measure(p) for p in changed]), np.array([measure(p) for p in decoded])).auc < least


def test_lattice_of_images_that_are_too_small() -> None:
    assert np.isnan(jpeg_lattice(np.zeros((3, 11, 40), np.uint8)))
    assert np.isnan(small_coefficients(np.zeros((3, 7, 40), np.uint8)))
    assert np.isfinite(jpeg_lattice(np.zeros((1, 12, 13), np.uint8)))


def test_high_frequency_energy_by_hand() -> None:
    stripes = np.zeros((1, 4, 4), np.uint8)
    stripes[0, :, ::2] = 10  # second differences: 0 down the columns, 20 in size along the rows
    assert high_frequency_energy(stripes) == pytest.approx(200.0)
    assert high_frequency_energy(np.full((3, 8, 8), 77, np.uint8)) == pytest.approx(0, abs=1e-20)
    assert high_frequency_energy(np.zeros((1, 2, 9), np.uint8)) == 0
    assert luma(np.full((3, 2, 2), 200, np.uint8)) == pytest.approx(200)


def test_separation_against_counting_pairs() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 6, 30).astype(float), rng.integers(1, 7, 40).astype(float)
    pairs = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    assert separation(a, b).auc == pytest.approx(np.mean(pairs))
    assert separation(a, b + 100).auc == 0
    assert separation(np.array([np.nan, 1.0]), np.array([1.0])).auc == 0.5
    assert separation(np.full(3, np.nan), b) == (0.5, 1.0)


def test_share_among_the_most_suspicious() -> None:
    signed, others = np.array([9.0, 8.0, 1.0]), np.array([8.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert share_signed_among_top(signed, others, 0.1) == 1
    assert share_signed_among_top(signed, others, 0.2) == 0.5  # of equal numbers the unsigned image comes first
    assert share_signed_among_top(signed, others, 0.3) == pytest.approx(2 / 3)
    assert share_signed_among_top(np.array([np.nan]), np.array([0.0]), 0.5) == 0


def test_visibility() -> None:
    before = np.full((3, 16, 16), 100, np.uint8)
    assert psnr(before, before + 1) == pytest.approx(20 * np.log10(255))
    assert psnr(before, before) == float("inf")
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, (3, 16, 16), dtype=np.uint8)
    found = visibility([(noise, noise), (before, before + 1)])
    assert found["psnr_mean"] == pytest.approx(20 * np.log10(255))
    assert found["ssim_mean"] == pytest.approx(1, abs=1e-3)
    assert found["lpips_mean"] is None
    assert visibility([(noise[:, :8], 255 - noise[:, :8])], "random")["lpips_mean"] > 0
    assert visibility([(noise[:, :8], noise[:, :8])])["ssim_mean"] is None
    assert set(visibility([]).values()) == {None}

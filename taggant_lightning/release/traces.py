"""What a reader without the originals can measure on one image, and how well a measure tells signed images. Pure functions."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HIGH = np.add.outer(np.arange(8), np.arange(8)) >= 5  # of a block's 8×8 frequencies
LUMA = np.array([0.299, 0.587, 0.114])  # of JPEG's YCbCr (ITU-R BT.601)


class Separation(NamedTuple):
    """How well a number tells two groups apart.

    Attributes:
        auc: Chance that a signed image has the larger number, ties counted half; 0.5 tells nothing.
        p_value: Of such an area or a more extreme one if the groups do not differ (Mann-Whitney, two-sided).
    """

    auc: float
    p_value: float


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the brightness (H, W) of an image (C, H, W) uint8, 0 to 255."""
    if pixels.shape[0] == 1:
        return np.asarray(pixels[0], dtype=np.float64)
    return np.asarray(np.tensordot(LUMA, pixels.astype(np.float64), axes=1))


def high_frequency_energy(pixels: NDArray[np.uint8]) -> float:
    """Return the mean square of the brightness's second differences, in squared 8-bit steps; 0 for sides below 3."""
    grey = luma(pixels)
    squares = [np.square(np.diff(grey, 2, axis=axis)).ravel() for axis in (0, 1)]
    return float(np.concatenate(squares).mean()) if min(grey.shape) >= 3 else 0.0


def small_coefficients(pixels: NDArray[np.uint8], shift: int = 0) -> float:
    """Return the share of high cosine coefficients of 8×8 blocks that are smaller than one 8-bit step.

    JPEG rounds coefficients to multiples, most of the high ones to zero, and decoding keeps them within rounding of it;
    whatever is added to the pixels afterwards fills them.

    Args:
        pixels: (C, H, W) uint8.
        shift: Pixels by which the blocks are moved, down and to the right.

    Returns:
        0 to 1; NaN where no block fits.
    """
    from scipy.fft import dctn

    grey = luma(pixels)[shift:, shift:]
    rows, columns = (side // 8 for side in grey.shape)
    if not rows or not columns:
        return float("nan")
    blocks = grey[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3)
    coefficients = dctn(blocks, axes=(2, 3), norm="ortho")
    return float((np.abs(coefficients[..., HIGH]) < 1).mean())


def jpeg_lattice(pixels: NDArray[np.uint8]) -> float:
    """Return how much the image looks like decoded JPEG: its small coefficients in JPEG's blocks minus those in moved ones.

    Returns:
        -1 to 1, about 0 for an image that never was JPEG; NaN for sides below 12 pixels.
    """
    return small_coefficients(pixels) - small_coefficients(pixels, shift=4)


def separation(signed: NDArray[np.float64], others: NDArray[np.float64]) -> Separation:
    """Return how well a number tells signed images from the others; images without the number (NaN) are left out.

    Args:
        signed: (M,) numbers of signed images.
        others: (N,) numbers of unsigned images.
    """
    from scipy.stats import mannwhitneyu

    signed, others = signed[np.isfinite(signed)], others[np.isfinite(others)]
    if not len(signed) or not len(others):
        return Separation(0.5, 1.0)
    found = mannwhitneyu(signed, others, method="asymptotic")
    p_value = float(found.pvalue)
    return Separation(float(found.statistic) / (len(signed) * len(others)), p_value if np.isfinite(p_value) else 1.0)


def share_signed_among_top(signed: NDArray[np.float64], others: NDArray[np.float64], share: float) -> float:
    """Return the share of signed images among the most suspicious ones.

    Args:
        signed: (M,) numbers of signed images; larger is more suspicious.
        others: (N,) numbers of unsigned images.
        share: Which share of all images counts as most suspicious.
    """
    values = np.nan_to_num(np.concatenate([signed, others]), nan=-np.inf)
    is_signed = np.arange(len(values)) < len(signed)
    # Of equal numbers the unsigned come first: this must not flatter who searches.
    order = np.lexsort((is_signed, -values))
    return float(is_signed[order[: max(1, round(share * len(values)))]].mean())

"""How visible a change is: PSNR, SSIM, LPIPS of pairs of images."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
SSIM_SIDE = 11  # of the usual window


def psnr(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio of two 8-bit images in decibels; infinite for equal ones."""
    error = float(np.mean((after.astype(np.float64) - before) ** 2))
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def visibility(pairs: Iterable[Pair], perceptual_weights: str | None = None, trunk: str = "alex") -> dict[str, float | None]:
    """Return means over pairs of original and changed image, each (C, H, W) uint8.

    Args:
        pairs: The pairs.
        perceptual_weights: File with the weights of LPIPS's trunk; None leaves LPIPS out.
        trunk: `alex`, `squeeze` or `vgg`.

    Returns:
        psnr_mean and psnr_min in decibels; ssim_mean, None where no image has sides of at least 11 pixels; lpips_mean, None
        without weights. None for all of them where nothing is changed.
    """
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    from taggant_lightning.models.perceptual import Perceptual

    measure = None if perceptual_weights is None else Perceptual(trunk, perceptual_weights)
    ratios, likeness, distances = [], [], []
    for before, after in pairs:
        ratios.append(psnr(before, after))
        a, b = (torch.from_numpy(x.astype(np.float32))[None] / 255 for x in (before, after))
        if min(before.shape[1:]) >= SSIM_SIDE:
            likeness.append(float(structural_similarity_index_measure(b, a, data_range=1.0)))  # type: ignore[arg-type]  # no images
        if measure is not None:
            with torch.no_grad():
                distances.append(float(measure(a, b)))
    finite = [r for r in ratios if np.isfinite(r)]
    return {
        "psnr_mean": float(np.mean(finite)) if finite else None,
        "psnr_min": min(finite, default=None),
        "ssim_mean": float(np.mean(likeness)) if likeness else None,
        "lpips_mean": float(np.mean(distances)) if distances else None,
    }

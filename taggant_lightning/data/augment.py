"""Augmentation recipes as pure, twice differentiable functions of images and of uniform numbers.

The randomness comes in as numbers, a row an image, so that the same image in the same epoch is augmented alike on any number
of processes and after any resume.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from taggant_lightning.errors import TaggantError

Recipe = Literal["none", "simple", "three_augment"]
# Uniform numbers that one image needs.
NUMBERS: dict[str, int] = {"none": 0, "simple": 3, "three_augment": 8}


def check_recipe(recipe: str) -> str:
    """Return the recipe's name.

    Raises:
        TaggantError: If it is unknown.
    """
    if recipe not in get_args(Recipe):
        raise TaggantError(f"augment={recipe!r} is unknown; write one of {', '.join(get_args(Recipe))}")
    return recipe


def crop_flip(images: Tensor, u: Tensor) -> Tensor:
    """Shift by up to an eighth of the side (reflected border) and mirror half of the images.

    Args:
        images: (N, C, H, W) float.
        u: (N, 3) float in [0, 1): vertical shift, horizontal shift, mirror.

    Returns:
        (N, C, H, W).
    """
    count, _, height, width = images.shape
    pad = max(1, min(height, width) // 8)
    shift = (u[:, :2].to(images.device) * (2 * pad + 1)).long()
    padded = F.pad(images, (pad, pad, pad, pad), mode="reflect")
    rows = shift[:, 0, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(count, width)
    mirrored = u[:, 2, None].to(images.device) < 0.5
    columns = shift[:, 1, None] + torch.where(mirrored, width - 1 - columns, columns)
    item = torch.arange(count, device=images.device)[:, None, None]
    return padded[item, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True).expand_as(images)


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with its own Gaussian of standard deviation sigma (N,), in pixels, kernel cut at 5 pixels."""
    radius = min(5, images.shape[-1] - 1, images.shape[-2] - 1)
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    count, channels = images.shape[:2]
    planes = F.pad(images, (radius, radius, radius, radius), mode="reflect").transpose(0, 1)  # (C, N, …): one group an image
    planes = F.conv2d(planes, kernel.view(count, 1, -1, 1), groups=count)
    planes = F.conv2d(planes, kernel.view(count, 1, 1, -1), groups=count)
    return planes.transpose(0, 1).reshape(images.shape[0], channels, *images.shape[2:])


def three_augment(images: Tensor, u: Tensor) -> Tensor:
    """Crop and flip, then one of grey, solarise (above 0.5) and blur (σ 0.08 to 1 pixel), then colour jitter of 0.3.

    After the 3-Augment of DeiT III (Touvron et al., 2022), with the shifted crop in place of the random resized one.

    Args:
        images: (N, C, H, W) float in [0, 1].
        u: (N, 8) float in [0, 1): three of `crop_flip`, choice, σ, brightness, contrast, saturation.

    Returns:
        (N, C, H, W) in [0, 1].
    """
    images = crop_flip(images, u[:, :3])
    u = u.to(device=images.device, dtype=images.dtype)
    choice = (u[:, 3] * 3).long().view(-1, 1, 1, 1)
    solarised = torch.where(images >= 0.5, 1 - images, images)
    blurred = _blur(images, 0.08 + 0.92 * u[:, 4])
    images = torch.where(choice == 0, _grey(images), torch.where(choice == 1, solarised, blurred))
    factors = (0.7 + 0.6 * u[:, 5:8]).view(-1, 3, 1, 1)
    images = (images * factors[:, 0:1]).clamp(0, 1)
    mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    images = (mean + (images - mean) * factors[:, 1:2]).clamp(0, 1)
    grey = _grey(images)
    return (grey + (images - grey) * factors[:, 2:3]).clamp(0, 1)


def augment(images: Tensor, u: Tensor, recipe: str) -> Tensor:
    """Apply a recipe.

    Args:
        images: (N, C, H, W) float in [0, 1].
        u: (N, NUMBERS[recipe]) float in [0, 1).
        recipe: `none`, `simple` or `three_augment`.

    Returns:
        (N, C, H, W) in [0, 1], differentiable with respect to `images`.

    Raises:
        TaggantError: If the recipe is unknown.
    """
    check_recipe(recipe)
    if recipe == "simple":
        return crop_flip(images, u)
    return three_augment(images, u) if recipe == "three_augment" else images

"""From stored pixels to the model's input: the same differentiable steps for training, crafting and keys."""

import torch.nn.functional as F
from torch import Tensor


def fit(images: Tensor, size: int) -> Tensor:
    """Scale the shorter side to `size` (bilinear, antialiased) and crop the centre.

    Args:
        images: (N, C, H, W) float in [0, 1].
        size: Side of the result in pixels.

    Returns:
        (N, C, size, size) float, differentiable with respect to `images`; the input itself where it fits already.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    scale = size / min(height, width)
    target = (max(size, round(height * scale)), max(size, round(width * scale)))
    if target != (height, width):
        images = F.interpolate(images, size=target, mode="bilinear", antialias=True, align_corners=False)
    return centre(images, size)


def centre(images: Tensor, size: int) -> Tensor:
    """Cut the middle out.

    Args:
        images: (N, C, H, W) with H and W at least `size`.
        size: Side of the result in pixels.

    Returns:
        (N, C, size, size), a view.
    """
    height, width = images.shape[-2:]
    top, left = (height - size) // 2, (width - size) // 2
    return images[..., top : top + size, left : left + size]

"""Colour profiles: pictures that carry one are brought to sRGB, in which published files, having none, are shown."""

import io
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
SAME = 3  # levels of 255: profiles that change colours by no more are sRGB under another name


def to_srgb(profile: bytes | None, mode: str) -> "Callable[[Image], Image] | None":
    """Return what brings pixels from a profile to sRGB.

    Args:
        profile: The ICC profile's bytes, or None.
        mode: Pillow's mode of the picture that carries it.

    Returns:
        A function of images of mode L, RGB or CMYK, which gives L or RGB; None where nothing is to be done: there is no
        profile, it is sRGB by what it does, it cannot be read, or it belongs to pixels of another kind.
    """
    if not isinstance(profile, bytes) or not profile:
        return None
    pixels = "L" if mode in ("1", "L", "LA") else "CMYK" if mode == "CMYK" else "RGB"
    return _transform(profile, pixels)


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> "Callable[[Image], Image] | None":
    from PIL import Image, ImageCms

    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if given.profile.xcolor_space.strip() != SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # a damaged profile; viewers leave it aside too
        return None

    def apply(image: Image.Image) -> Image.Image:
        converted = transform.apply(image)
        return converted.getchannel("G") if mode == "L" else converted

    if mode == "CMYK":
        return apply
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = levels[None] if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    moved = np.abs(np.asarray(apply(Image.fromarray(grid))).astype(int) - grid).max()
    return None if moved <= SAME else apply

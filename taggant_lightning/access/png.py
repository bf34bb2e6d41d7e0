"""An image as the bytes of a PNG file: how queries travel."""

import io

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError


def png(image: NDArray[np.uint8]) -> bytes:
    """Return an image as PNG, without loss and without metadata; the same image gives the same bytes.

    Args:
        image: (C, H, W) uint8; one channel is written as grey, three as RGB.

    Raises:
        TaggantError: If the image has another number of channels.
    """
    from PIL import Image

    channels = image.shape[0]
    if image.ndim != 3 or channels not in (1, 3):
        raise TaggantError(
            f"an image of shape {tuple(image.shape)} cannot travel as PNG, which holds one channel (grey) or three (RGB); "
            "ask the model from a file instead"
        )
    array = image[0] if channels == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()

"""An image as the bytes of a PNG file."""

import io

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError


def png(image: NDArray[np.uint8]) -> bytes:
    """Encode an image, without metadata; the same image gives the same bytes.

    Args:
        image: (1, H, W) grey or (3, H, W) RGB, uint8.

    Raises:
        TaggantError: If the image has another number of channels.
    """
    from PIL import Image

    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise TaggantError(f"an image of shape {image.shape} cannot be sent as PNG; keys need 1 channel (grey) or 3 (RGB)")
    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG")
    return stream.getvalue()

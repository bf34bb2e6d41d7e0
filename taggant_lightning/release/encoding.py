"""From pixels to bytes and back: one codec a release, always with the same settings and without metadata."""

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.pictures import as_array, read_picture
from taggant_lightning.errors import TaggantError

Codec = Literal["png", "webp"]
# Both keep every pixel. `exact` and `method` are WebP's: keep hidden colours, and spend a middling effort.
SETTINGS: dict[Codec, dict[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 6},
    "webp": {"format": "WEBP", "lossless": True, "quality": 75, "method": 4, "exact": True},
}


def encode(pixels: NDArray[np.uint8], codec: Codec) -> bytes:
    """Encode an image without loss.

    Args:
        pixels: (C, H, W) uint8 with 1 or 3 channels.
        codec: `png` or `webp`.

    Raises:
        TaggantError: If WebP, which stores colour only, is asked for a grey image.
    """
    from PIL import Image

    if codec == "webp" and pixels.shape[0] == 1:
        raise TaggantError("format=webp stores colour only, and these images are grey; write --format png")
    array = pixels[0] if pixels.shape[0] == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, **SETTINGS[codec])
    return buffer.getvalue()


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode an image as any picture is read, (C, H, W) uint8: grey stays one channel, all else becomes RGB.

    Raises:
        PictureError: If the bytes are no picture that is read, or a damaged one.
    """
    return as_array(read_picture(data))

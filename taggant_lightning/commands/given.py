"""Reading what several commands about keys are given: shapes, batches, secrets, folders of real images."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.commitment.guessable import guessable
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.outside.documents import read_bounded


def parse_batches(text: str | None) -> list[int] | None:
    """Read `0,1`; None for None.

    Raises:
        TaggantError: If a part is no whole number.
    """
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise TaggantError(f"batches={text!r} must be whole numbers with commas, for instance 0,1") from None


def numbers_of(text: str | None, name: str) -> list[float] | None:
    """Read numbers with commas; None for None.

    Raises:
        TaggantError: If a part is no number.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise TaggantError(
            f"{name}={text!r} must be numbers with commas, one a channel, for instance 0.485,0.456,0.406"
        ) from None


def source_of(keys: KeySet, folder: str | None) -> NDArray[np.uint8] | None:
    """Return the images that real keys were chosen from; None for noise keys.

    Raises:
        TaggantError: If a folder is given for noise keys, or cannot be read.
    """
    if folder is None:
        return None
    if keys.header["derivation"]["source"] == "noise":
        raise TaggantError(f"source={folder} is given, and these keys are noise; leave it out")
    return read_images(Path(folder), (keys.images.shape[1], keys.images.shape[2], keys.images.shape[3]))


def parse_shape(text: str) -> tuple[int, int, int]:
    """Read `C,H,W`.

    Raises:
        TaggantError: If the text is not three whole numbers.
    """
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise TaggantError(f"shape={text!r} must be three whole numbers: channels,height,width, for instance 3,32,32") from None
    return channels, height, width


def read_secret(path: Path) -> bytes:
    """Read a secret in hexadecimal.

    Raises:
        TaggantError: If the file is missing or holds something else, or a secret that others can guess.
    """
    try:
        secret = bytes.fromhex(read_bounded(path).decode())
    except OSError:
        raise TaggantError(f"secret-file={path} cannot be read; name a file with the secret in hexadecimal") from None
    except ValueError:
        raise TaggantError(
            f"secret-file={path} is not hexadecimal; write 64 digits, for instance from `openssl rand -hex 32`"
        ) from None
    if guessable(secret):
        raise TaggantError(
            f"secret-file={path} holds a secret that anybody can guess (short, typed, or a demonstration's); draw one with "
            "`openssl rand -hex 32`"
        )
    return secret


def read_images(folder: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Read all images of a folder, resized to one shape.

    Args:
        folder: Searched with its sub-folders, files in alphabetical order.
        shape: (C, H, W) of the result, C 1 (grey) or 3 (RGB).

    Returns:
        (N, C, H, W) uint8.

    Raises:
        TaggantError: If the folder holds no image or one cannot be read.
    """
    from PIL import Image

    from taggant_lightning.data.pictures import as_array
    from taggant_lightning.data.queries import pictures_below

    if not folder.is_dir():
        raise TaggantError(f"source={folder} is no folder; name one with held-out images")
    if shape[0] not in (1, 3):
        raise TaggantError(f"shape={shape} has {shape[0]} channels; images have 1 or 3")
    mode, size = "L" if shape[0] == 1 else "RGB", (shape[2], shape[1])
    arrays = [as_array(picture.convert(mode).resize(size, Image.Resampling.BICUBIC)) for picture in pictures_below(folder)]
    if not arrays:
        raise TaggantError(f"source={folder} holds no image; name a folder with held-out images")
    return np.ascontiguousarray(np.stack(arrays))

"""The one place that opens pictures: which formats, how large, how deep, which way up, in which colours.

Whatever the package reads as a picture goes through `open_picture`: data sets, releases, queries, images that keys are made of.
"""

import io
import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.profiles import to_srgb

if TYPE_CHECKING:
    from PIL.Image import Image

# By content, whatever the name says. Pillow has some thirty more, one of which starts another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM")
MAX_PIXELS = 100_000_000  # of one picture: 300 MB decoded
MAX_BYTES = 1 << 29  # of one encoded picture
GREY = ("1", "L", "LA")
COLOUR = ("RGB", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr")
HEAD = 4096  # bytes in which an AVIF file tells its depth
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright


class PictureError(ValueError):
    """Bytes that are not read as a picture; the message says why, without a name."""


@dataclass(frozen=True)
class Header:
    """What a picture's header tells.

    Attributes:
        grey: Whether it has one channel.
        changes: What reading will change, words of `CHANGES`.
    """

    grey: bool
    changes: tuple[str, ...]


# What reading changes, and how a line about it goes on after "pictures".
CHANGES = {
    "1": "of 1 bit, read as black 0 and white 255",
    "P": "with a palette, read in the colours that it names",
    "CMYK": "in CMYK, converted to RGB",
    "YCbCr": "in YCbCr, converted to RGB",
    "transparency": "that lose their transparency, so that hidden pixels show the colour stored beneath",
    "orientation": "turned upright, as their EXIF orientation says",
    "profile": "converted from their colour profile to sRGB",
}


def open_picture(file: BinaryIO) -> "Image":
    """Open a picture and read its header; pixels are not decoded yet.

    Args:
        file: Encoded bytes, seekable, at their beginning.

    Raises:
        PictureError: If the bytes are no picture of the formats that are read, or one that is too large, too deep, or several.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd tags, and of sizes that are judged below
            head = file.read(HEAD)
            file.seek(0)
            image = Image.open(file, formats=_formats())
            several = image.format != "MPO" and getattr(image, "is_animated", False)  # MPO: a JPEG with previews behind it
            deep = _is_deep(image, head)
    except UnidentifiedImageError:
        raise PictureError(f"no picture that is read: {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise PictureError(f"more than {MAX_PIXELS:,} pixels") from None
    except OSError as error:
        if error.errno is not None:  # of the disk
            raise
        raise PictureError(one_line(error)) from None
    except Exception as error:  # Pillow's decoders raise many types
        raise PictureError(one_line(error)) from None
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(f"{image.width} × {image.height} pixels, more than {MAX_PIXELS:,}")
    if deep:
        raise PictureError("more than 8 bits a channel; save it with 8, in the range of your choice")
    if image.mode not in GREY + COLOUR:
        raise PictureError(f"pixels of mode {image.mode}; save it in grey or RGB")
    if several:
        raise PictureError("several pictures in one file; save each as one of its own")
    return image


def header_of(file: BinaryIO) -> Header:
    """Read a picture's header, without decoding it: some hundred microseconds.

    Raises:
        PictureError: As `open_picture`.
    """
    image = open_picture(file)
    mode = "P" if image.mode == "PA" else image.mode
    found = [mode] if mode in CHANGES else []
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        found.append("transparency")
    if _orientation(image) != 1:
        found.append("orientation")
    if to_srgb(image.info.get("icc_profile"), image.mode) is not None:
        found.append("profile")
    return Header(image.mode in GREY, tuple(found))


def read_picture(data: bytes) -> "Image":
    """Decode a picture: upright, in sRGB, without transparency.

    Args:
        data: Its encoded bytes.

    Returns:
        An image of mode L where it is grey, else RGB.

    Raises:
        PictureError: If it cannot be decoded, or is not read by `open_picture`.
    """
    from PIL import Image

    opened = open_picture(io.BytesIO(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened.load()
            turned = _orientation(opened)
            convert = to_srgb(opened.info.get("icc_profile"), opened.mode)
            image: Image.Image = opened
            if opened.mode == "CMYK" and convert is not None:
                image = convert(image)
            else:
                wanted = "L" if opened.mode in GREY else "RGB"
                image = image if image.mode == wanted else image.convert(wanted)
                image = image if convert is None else convert(image)
    except Exception as error:  # Pillow's decoders raise many types
        raise PictureError(one_line(error)) from None
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(turns[turned]) if turned in turns else image


def as_array(image: "Image") -> NDArray[np.uint8]:
    """Return the pixels of a grey or RGB image, (C, H, W) uint8."""
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


@cache
def _formats() -> tuple[str, ...]:
    """Return those of the formats that this Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _is_deep(image: "Image", head: bytes) -> bool:
    """Say whether the file holds more than 8 bits a channel, which Pillow cuts off in some formats without a word."""
    if image.mode == "F" or image.mode.startswith("I"):
        return True
    if image.format == "PNG":
        return head[24] > 8
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]  # of TIFF images
        bits, kinds = np.atleast_1d(tags.get(258, 1)), np.atleast_1d(tags.get(339, 1))  # bits, and whether unsigned
        return bool(bits.max() > 8 or not np.isin(kinds, (1, 4)).all())
    if image.format == "PPM":
        arguments: Any = image.tile[0][3]  # type: ignore[attr-defined]  # of images that are read from files
        return isinstance(arguments, tuple) and arguments[-1] > 255
    if image.format == "AVIF":
        box = head.find(b"av1C")
        return box >= 0 and len(head) > box + 6 and bool(head[box + 6] & 0x40)  # its bit `high_bitdepth`
    return False


def _orientation(image: "Image") -> int:
    """Return the EXIF orientation, 1 to 8, that is still to be applied; 1 where there is none or it cannot be read."""
    from PIL import Image

    try:
        found = Image.Image.getexif(image).get(ORIENTATION, 1)  # PNG's own would decode the whole picture
    except Exception:  # whatever a damaged tag makes Pillow raise
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def one_line(error: BaseException) -> str:
    """Return what an error of somebody else's code says, for a sentence of ours."""
    return " ".join(str(error).split())[:200] or type(error).__name__

"""Transformations that wash perturbations out of training images; pure functions on uint8."""

import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.pictures import as_array, read_picture
from taggant_lightning.errors import TaggantError
from taggant_lightning.streams import stream

Images = NDArray[np.uint8]
AT_ONCE = 512  # images whose floats lie in memory together


class Cleaning(NamedTuple):
    """One transformation with its strength.

    Attributes:
        name: A name of `CLEANINGS`.
        value: Its strength, in the unit of that entry.
    """

    name: str
    value: float

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return f"{self.name}:{self.value:g}"


class Kind(NamedTuple):
    """A transformation that `parse` knows.

    Attributes:
        apply: (images (N, C, H, W) uint8, value, numbers of the images, seed) → images of the same shape.
        default: Value where none is written.
        suits: Whether a value can be used.
        range: The values that can be used, in words.
    """

    apply: Callable[[Images, float, Sequence[int], int], Images]
    default: float
    suits: Callable[[float], bool]
    range: str


def parse(text: str) -> Cleaning:
    """Read `NAME` or `NAME:VALUE`.

    Raises:
        TaggantError: If the name is unknown, or the value does not suit it.
    """
    name, colon, number = text.partition(":")
    if name not in CLEANINGS:
        known = ", ".join(f"{n}:{kind.default:g}" for n, kind in CLEANINGS.items())
        raise TaggantError(f"how={text!r} names no transformation; write one of {known}")
    kind = CLEANINGS[name]
    try:
        value = float(number) if colon else kind.default
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and kind.suits(value)):
        raise TaggantError(
            f"how={text!r}: the value of {name} must be {kind.range}; write for instance {name}:{kind.default:g}"
        )
    return Cleaning(name, value)


def clean(images: Images, cleaning: Cleaning, ids: Sequence[int] | None = None, seed: int = 0) -> Images:
    """Put images through a transformation, each for itself.

    Args:
        images: (N, C, H, W) uint8.
        cleaning: What to do.
        ids: N numbers of the images, which key the noise; None counts from 0.
        seed: Seed of the noise; the other transformations are not random.

    Returns:
        (N, C, H, W) uint8, a new array.
    """
    numbers = range(len(images)) if ids is None else ids
    apply, result = CLEANINGS[cleaning.name].apply, np.empty_like(images)
    for start in range(0, len(images), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        result[part] = apply(images[part], cleaning.value, [int(i) for i in numbers[part]], seed)
    return result


def noise(images: Images, sigma: float, ids: Sequence[int], seed: int) -> Images:
    """Add Gaussian noise of standard deviation `sigma` 8-bit steps."""
    drawn = [stream(seed, "clean-noise", i).standard_normal(images.shape[1:]) for i in ids]
    return _bytes(images + sigma * np.array(drawn).reshape(images.shape))


def blur(images: Images, sigma: float, ids: Sequence[int], seed: int) -> Images:
    """Blur with a Gaussian of standard deviation `sigma` pixels, the border mirrored."""
    from scipy.ndimage import gaussian_filter

    return _bytes(gaussian_filter(images, (0, 0, sigma, sigma), output=np.float64))


def median(images: Images, side: float, ids: Sequence[int], seed: int) -> Images:
    """Take the median of each pixel's square of `side` pixels, channel by channel, the border mirrored."""
    from scipy.ndimage import median_filter

    return np.asarray(median_filter(images, size=(1, 1, int(side), int(side))), dtype=np.uint8)


def jpeg(images: Images, quality: float, ids: Sequence[int], seed: int) -> Images:
    """Encode as JPEG, chroma at half resolution as usual, and decode."""
    from PIL import Image

    result = np.empty_like(images)
    for place, pixels in enumerate(images):
        picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        file = io.BytesIO()
        picture.save(file, format="JPEG", quality=int(quality))
        result[place] = as_array(read_picture(file.getvalue()))
    return result


def resize(images: Images, scale: float, ids: Sequence[int], seed: int) -> Images:
    """Scale the sides by `scale` and back, bilinear and antialiased; rounded once, at the end."""
    import torch
    import torch.nn.functional as F

    size = tuple(images.shape[2:])
    small = tuple(max(1, round(side * scale)) for side in size)
    there = F.interpolate(torch.from_numpy(images).double(), size=small, mode="bilinear", antialias=True)
    return _bytes(F.interpolate(there, size=size, mode="bilinear", antialias=True).numpy())


def quantise(images: Images, bits: float, ids: Sequence[int], seed: int) -> Images:
    """Round each channel to 2^bits levels from 0 to 255."""
    levels = 2 ** int(bits) - 1
    return _bytes(np.round(images / 255 * levels) / levels * 255)


def _bytes(values: NDArray[np.float64]) -> Images:
    return np.round(values).clip(0, 255).astype(np.uint8)


def _whole(value: float, low: int, high: int) -> bool:
    return value == int(value) and low <= value <= high


CLEANINGS: dict[str, Kind] = {
    "noise": Kind(noise, 8, lambda v: 0 <= v <= 255, "a deviation of 0..255 8-bit steps"),
    "blur": Kind(blur, 1, lambda v: 0 <= v <= 100, "a deviation of 0..100 pixels"),
    "median": Kind(median, 3, lambda v: _whole(v, 1, 31) and v % 2 == 1, "an odd side of 1..31 pixels"),
    "jpeg": Kind(jpeg, 75, lambda v: _whole(v, 1, 100), "a whole quality of 1..100"),
    "resize": Kind(resize, 0.5, lambda v: 0 < v <= 1, "a factor above 0 and at most 1"),
    "quantise": Kind(quantise, 3, lambda v: _whole(v, 1, 8), "a whole number of 1..8 bits"),
}

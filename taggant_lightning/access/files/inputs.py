"""What a model's file takes, how its dimensions are read, whether the images suit it, and what is subtracted and divided by."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError

CHANNELS_FIRST, CHANNELS_LAST = "NCHW", "NHWC"
LEAST_STD = 1e-6  # less turns images into infinities


@dataclass(frozen=True)
class InputShape:
    """The input that a model's file declares, read as NCHW; None where it takes any number, or does not say.

    Attributes:
        batch: Images a pass.
        channels: Channels of an image.
        height: Height in pixels.
        width: Width in pixels.
        declared: Whether the format declares shapes at all; TorchScript does not.
        channels_last: Whether the file's first step shows that it takes channels last, where shapes are not declared.
    """

    batch: int | None = None
    channels: int | None = None
    height: int | None = None
    width: int | None = None
    declared: bool = field(default=True, compare=False, kw_only=True)
    channels_last: bool = field(default=False, compare=False, kw_only=True)

    @property
    def size(self) -> int | None:
        """Side of the square images it takes; None where it takes any, or none that is square."""
        return self.height if self.height == self.width else None

    def __str__(self) -> str:
        return "×".join("any" if length is None else str(length) for length in (self.channels, self.height, self.width))


def read_layout(what: str, shape: InputShape, images: NDArray[np.float32], layout: str | None) -> tuple[str, InputShape]:
    """Find out in which order a file takes channels, rows and columns; never by a guess.

    Args:
        what: The argument and its file, for messages.
        shape: What the file declares, its dimensions in their order.
        images: (N, C, S, S) float.
        layout: `NCHW` or `NHWC` where the user says it; None for what the file's shape leaves no doubt of.

    Returns:
        The layout, and the shape with its dimensions named by it.

    Raises:
        TaggantError: If the layout is another word, or is not given and the shape can be read both ways, or as NHWC only.
    """
    if layout not in (None, CHANNELS_FIRST, CHANNELS_LAST):
        raise TaggantError(f"layout={layout!r} is no order of dimensions; write NCHW (channels first) or NHWC (channels last)")
    channels, _, side = images.shape[1:]
    if layout is None:
        first, last = shape.channels in (None, channels), shape.width in (None, channels)
        if not shape.declared:  # TorchScript, whose images have channels first
            doubtful = shape.channels_last or side == channels
        elif shape.channels == channels and shape.width is None:
            doubtful = False
        else:
            doubtful = first and last
        if doubtful or (shape.width == channels and not first):
            seen = f"takes {shape} images" if shape.declared else "does not say in which order it takes channels and pixels"
            raise TaggantError(
                f"{what} {seen} and the keys have {channels} channels of {side}×{side} pixels; write --layout NHWC if its last "
                "dimension is the channels, as in models of Keras, or --layout NCHW if the first one is"
            )
        layout = CHANNELS_FIRST
    if layout == CHANNELS_LAST:
        shape = replace(shape, channels=shape.width, height=shape.channels, width=shape.height)
    return layout, shape


def check_images(what: str, shape: InputShape, images: NDArray[np.float32]) -> None:
    """Refuse images that a model's file does not take, and a file that cannot be asked one image at a time.

    Args:
        what: The argument and its file, for messages: `onnx=FILE`.
        shape: What the file takes.
        images: (N, C, S, S) float.

    Raises:
        TaggantError: If the shapes differ, or the file takes a fixed number of images above 1.
    """
    if shape.batch is not None and shape.batch != 1:
        # Filling a batch up would let images that nobody asked about touch the answers.
        raise TaggantError(f"{what} takes {shape.batch} images at once; export it with a batch of 1 or of any size")
    channels, height, width = images.shape[1:]
    said = f"{what} takes {shape} images and the keys are {channels}×{height}×{width}"
    if shape.channels not in (None, channels):
        raise TaggantError(f"{said}; put the change of channels into the model and export that, or ask it with --predictions")
    if (shape.height or height, shape.width or width) != (height, width):
        wanted = shape.height or shape.width
        if shape.height is not None and shape.width is not None and shape.height != shape.width:
            raise TaggantError(f"{said}; export it for square images, as keys are square")
        raise TaggantError(f"{said}; write --image-size {wanted} to have them resized as the model's own pipeline would")


def normalise(images: NDArray[np.float32], mean: Sequence[float] | None, std: Sequence[float] | None) -> NDArray[np.float32]:
    """Subtract a mean and divide by a standard deviation a channel, for a file that does not do so itself.

    Args:
        images: (N, C, H, W) float in [0, 1].
        mean: C numbers in [0, 1], the scale of the images; None for 0.
        std: C numbers above 0 and at most 1; None for 1.

    Returns:
        (N, C, H, W) float32; the input itself where neither is given.

    Raises:
        TaggantError: If there are not as many numbers as channels, or one is not finite, or lies on another scale.
    """
    channels = images.shape[1]
    for name, values in (("mean", mean), ("std", std)):
        if values is not None:
            _check_scale(name, list(values), channels)
    for values, apply in ((mean, np.subtract), (std, np.divide)):
        if values is not None:
            images = apply(images, np.asarray(values, dtype=np.float32)[:, None, None]).astype(np.float32)
    return images


def _check_scale(name: str, values: list[float], channels: int) -> None:
    """Refuse what is no mean, or no standard deviation, of numbers from 0 (black) to 1 (white)."""
    if len(values) != channels:
        raise TaggantError(f"{name}={values} has {len(values)} numbers and the images have {channels} channels")
    if not np.isfinite(values).all() or (name == "std" and min(values) <= 0):
        above = " above 0" if name == "std" else ""
        raise TaggantError(f"{name}={values} must hold finite numbers{above}, on the scale on which white is 1")
    if max(values) > 1:
        scaled = ",".join(f"{value / 255:.6g}" for value in values)
        raise TaggantError(
            f"{name}={values} lies beyond 1, and keys are shown on the scale on which white is 1: every key would reach the "
            f"model as almost the same image; if these numbers are for pixels of 0 to 255, write --{name} {scaled}"
        )
    if min(values) < (LEAST_STD if name == "std" else 0):
        least = f"{LEAST_STD:g}" if name == "std" else "0"
        raise TaggantError(
            f"{name}={values} lies below {least}, which no {name} of images from 0 (black) to 1 (white) does; check its sign "
            "and scale"
        )

"""What a model's file takes, whether the images suit it, and the blocks in which it is asked."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.errors import TaggantError

BLOCK = 16  # images a pass where the file takes any number: what 16 images of 224 pixels need fits beside the weights


@dataclass(frozen=True)
class InputShape:
    """The input that a model's file declares; None where it takes any number, or does not say.

    Attributes:
        batch: Images a pass.
        channels: Channels of an image.
        height: Height in pixels.
        width: Width in pixels.
    """

    batch: int | None = None
    channels: int | None = None
    height: int | None = None
    width: int | None = None

    @property
    def size(self) -> int | None:
        """Side of the square images it takes; None where it takes any, or none that is square."""
        return self.height if self.height == self.width else None

    def __str__(self) -> str:
        return "×".join("any" if length is None else str(length) for length in (self.channels, self.height, self.width))


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
        mean: C numbers on the same scale; None for 0.
        std: C numbers above 0; None for 1.

    Returns:
        (N, C, H, W) float32; the input itself where neither is given.

    Raises:
        TaggantError: If there are not as many numbers as channels, or one is not finite, or a std is not above 0.
    """
    channels = images.shape[1]
    for name, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        if len(values) != channels:
            raise TaggantError(f"{name}={list(values)} has {len(values)} numbers and the images have {channels} channels")
        if not np.isfinite(values).all() or (name == "std" and min(values) <= 0):
            above = " above 0" if name == "std" else ""
            raise TaggantError(f"{name}={list(values)} must hold finite numbers{above}, on the scale on which white is 1")
    for values, apply in ((mean, np.subtract), (std, np.divide)):
        if values is not None:
            images = apply(images, np.asarray(values, dtype=np.float32)[:, None, None]).astype(np.float32)
    return images


def blocks(shape: InputShape, count: int) -> Iterator[slice]:
    """Cut images into blocks that the file takes; each image is in one of them, and nothing fills one up."""
    step = shape.batch or BLOCK
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


def ask_in_blocks(
    what: str,
    shape: InputShape,
    images: NDArray[np.float32],
    forward: Callable[[NDArray[np.float32]], NDArray[np.floating]],
) -> tuple[list[Answer], int]:
    """Ask for the scores of all images, and rank them.

    Args:
        what: The argument and its file, for messages.
        shape: What the file takes.
        images: (N, C, S, S) float32, normalised as the file wants them.
        forward: Turns (n, C, S, S) float32 into scores (n, B), or raises a TaggantError.

    Returns:
        N answers that rank the numbers 0..B−1, and the B of most of them. An image that the file fails on has no labels: where
        a block fails, its images are asked one by one, so that one which a model dislikes takes no others with it.

    Raises:
        TaggantError: If the images do not suit the file, there are none, or the file fails on every image.
    """
    check_images(what, shape, images)
    if len(images) == 0:
        raise TaggantError(f"{what} was asked nothing; give at least one image")
    rows: list[NDArray[np.floating] | None] = []
    wrong: TaggantError | None = None
    for block in blocks(shape, len(images)):
        try:
            rows += _scores(what, images[block], forward)
            continue
        except TaggantError as error:
            wrong = wrong or error
        for image in images[block]:
            try:
                rows += _scores(what, image[None], forward)
            except TaggantError:
                rows.append(None)
    classes = Counter(len(row) for row in rows if row is not None)
    if not classes and wrong is not None:
        raise wrong
    answers = [Answer(i, None) if row is None else replace(rank(row[None])[0], query=i) for i, row in enumerate(rows)]
    return answers, classes.most_common(1)[0][0]


def _scores(
    what: str, images: NDArray[np.float32], forward: Callable[[NDArray[np.float32]], NDArray[np.floating]]
) -> list[NDArray[np.floating]]:
    """Ask about some images in one pass, and return a row of scores each."""
    scores = forward(images)
    if scores.ndim != 2 or len(scores) != len(images) or scores.shape[1] < 1:
        raise TaggantError(
            f"{what} answers {'×'.join(map(str, scores.shape))} to {len(images)} images; "
            "export a model that answers one row of class scores an image"
        )
    return list(scores)

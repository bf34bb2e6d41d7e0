"""Images as arrays: a source's images in one, and one .npz file that source `npz` reads."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.sources import ArraySource, ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import write_atomic


def write_npz(
    path: Path,
    train_x: NDArray[np.uint8],
    train_y: NDArray[np.int64],
    test_x: NDArray[np.uint8],
    test_y: NDArray[np.int64],
    classes: Sequence[str] | None = None,
) -> None:
    """Write both splits into one file, atomically.

    Args:
        path: The .npz file; its folder exists.
        train_x: (N, C, H, W) uint8 training images.
        train_y: (N,) labels.
        test_x: (M, C, H, W) uint8 test images; H and W may be others.
        test_y: (M,) labels.
        classes: Class names in the order of the labels; None numbers them.

    Raises:
        TaggantError: If shapes, types or labels do not fit.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for split, images, labels in (("train", train_x, train_y), ("test", test_x, test_y)):
        checked = ArraySource(images, labels, classes)
        arrays |= {f"{split}_x": checked.images, f"{split}_y": checked.labels}
    if classes is not None:
        arrays["classes"] = np.array(list(classes))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own argument
    write_atomic(path, buffer.getvalue())


def stacked(source: ImageSource, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return images of a source as one array.

    Args:
        source: The images.
        indices: (N,) source indices, at least one.

    Returns:
        (N, C, H, W) uint8.

    Raises:
        TaggantError: If they have several shapes.
    """
    images = [source.pixels(int(index)) for index in indices]
    if shapes := {image.shape for image in images} - {images[0].shape}:
        raise TaggantError(
            f"images of {len(shapes) + 1} shapes, {images[0].shape} and {min(shapes)} among them, do not fit one array or .npz "
            "file; use data of one shape, or bring them to one first"
        )
    return np.stack(images)

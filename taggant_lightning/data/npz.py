"""Writing a dataset as one .npz file, in the layout that source `npz` reads."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import write_atomic

Images = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]


def write_npz(
    path: Path,
    train_x: Images,
    train_y: NDArray[np.int64],
    test_x: Images,
    test_y: NDArray[np.int64],
    classes: Sequence[str] | None = None,
) -> None:
    """Write both splits into one file, whole or not at all; the same data gives the same bytes.

    Args:
        path: The file; its folder is made where it is missing.
        train_x: N training images (C, H, W) uint8, all of one shape.
        train_y: (N,) integer labels.
        test_x: Test images alike.
        test_y: Their labels.
        classes: Names of all classes, those without an image too; None lets the reader count the labels.

    Raises:
        TaggantError: If the images of a split have several shapes.
    """
    arrays: dict[str, Any] = {"train_x": _stack(train_x, "train"), "train_y": np.asarray(train_y, dtype=np.int64)}
    arrays |= {"test_x": _stack(test_x, "test"), "test_y": np.asarray(test_y, dtype=np.int64)}
    if classes is not None:
        arrays["classes"] = np.array(list(classes), dtype=np.str_)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def _stack(images: Images, split: str) -> NDArray[np.uint8]:
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        shown = ", ".join("×".join(map(str, shape)) for shape in shapes[:3])
        raise TaggantError(
            f"the {split} images have {len(shapes)} shapes ({shown}), and a .npz file holds one; bring them to one shape first"
        )
    return np.stack(list(images)) if not isinstance(images, np.ndarray) else images

"""What an image source is, and the one that holds its images in memory."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.pictures import as_array
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json, sha256_hex

Split = Literal["train", "test"]
HASHED_IMAGES = 1024  # at a time, of arrays that may not fit into memory


class ImageSource(ABC):
    """The images of one split, addressed by index from 0.

    Attributes:
        labels: (N,) int64 in 0..len(classes)−1.
        classes: Class names in the order of the labels.
        names: Names of the images, class folder first, or None where they have none.
        left_out: How many files beside the images were left out, as they are none.
    """

    labels: NDArray[np.int64]
    classes: list[str]
    names: Sequence[str] | None = None
    left_out: int = 0

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.labels)

    @abstractmethod
    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return one image at stored resolution, (C, H, W) uint8."""

    @abstractmethod
    def _identity(self) -> Any:
        """Return JSON that tells this split's content from another's without decoding every image."""

    @cached_property
    def fingerprint(self) -> str:
        """Digest of classes, labels and content (arrays: bytes; archives: checksums; files: names and sizes), 64 hex digits."""
        labels = sha256_hex(self.labels.astype("<i8").tobytes())
        return sha256_hex(canonical_json({"classes": self.classes, "labels": labels, "content": self._identity()}))


class ArraySource(ImageSource):
    """Images held in memory.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) integers.
        classes: Class names; None names them by number.

    Raises:
        TaggantError: If shapes, types or labels do not fit.
    """

    def __init__(self, images: NDArray[Any], labels: NDArray[Any], classes: Sequence[str] | None = None) -> None:
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1] not in (1, 3):
            raise TaggantError(f"images are {images.dtype} {images.shape}; expected uint8 (N, C, H, W) with 1 or 3 channels")
        if 0 in images.shape[2:]:
            raise TaggantError(f"images of shape {images.shape} have no pixel; check the file")
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise TaggantError(f"labels are {labels.dtype} {labels.shape}; expected {len(images)} integers, one an image")
        if len(labels) == 0:
            raise TaggantError("the split holds no image; check the file")
        count = int(labels.max()) + 1 if classes is None else len(classes)
        if labels.min() < 0 or labels.max() >= count:
            bad = int(labels.min() if labels.min() < 0 else labels.max())
            raise TaggantError(f"label {bad} lies outside 0..{count - 1}; labels number the {count} classes from 0")
        self.images, self.labels = images, labels.astype(np.int64)
        self.classes = [str(i) for i in range(count)] if classes is None else list(classes)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return one image, (C, H, W) uint8."""
        image: NDArray[np.uint8] = self.images[index]
        return image

    def _identity(self) -> Any:
        digest = hashlib.sha256()
        for start in range(0, len(self.images), HASHED_IMAGES):
            digest.update(self.images[start : start + HASHED_IMAGES].tobytes())
        return [list(self.images.shape), digest.hexdigest()]


class ResizedSource(ImageSource):
    """A source whose images are all brought to one shorter side, bicubic and antialiased.

    Args:
        source: The images.
        side: Shorter side in pixels.
    """

    def __init__(self, source: ImageSource, side: int) -> None:
        self.original, self.side = source, side
        self.labels, self.classes, self.names = source.labels, source.classes, source.names
        self.left_out = source.left_out

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return one image, (C, H, W) uint8 with min(H, W) = side."""
        from PIL import Image

        pixels = self.original.pixels(index)
        height, width = pixels.shape[1:]
        scale = self.side / min(height, width)
        size = (max(self.side, round(width * scale)), max(self.side, round(height * scale)))
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        return as_array(image.resize(size, Image.Resampling.BICUBIC))

    def _identity(self) -> Any:
        return [self.original.fingerprint, self.side]


def require_folder(root: str | Path | None, what: str) -> Path:
    """Return root as a path if it is an existing folder.

    Raises:
        TaggantError: Otherwise.
    """
    if root is None:
        raise TaggantError(f"root is not given, and source {what} needs one; write --data.root FOLDER")
    folder = Path(root)
    if not folder.is_dir():
        why = ", as that environment variable is not set" if str(root).startswith("$") else ""
        raise TaggantError(f"root={root} is no folder{why}; write the one that holds the {what} data")
    return folder

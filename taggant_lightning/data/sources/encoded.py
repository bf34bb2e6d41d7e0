"""Images in files, decoded one at a time."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.pictures import PictureError, as_array, one_line, read_picture
from taggant_lightning.data.sources.base import ImageSource
from taggant_lightning.data.sources.listing import plain
from taggant_lightning.errors import TaggantError

Mode = Literal["L", "RGB"]


class EncodedSource(ImageSource):
    """Encoded images, decoded one at a time with Pillow.

    Args:
        names: Relative names, one an image, for messages and the fingerprint.
        checks: A number an image that changes with its content (a size or a checksum).
        labels: Labels, one an image.
        classes: Class names.
        read: Returns the encoded bytes of an index.
        where: The folder or archive, for messages.
        mode: `L` where all images of the data set are grey, else `RGB`: grey ones then get three channels. None takes the mode
            of the first image, for releases, whose images are alike.
        left_out: How many files beside the images were left out.
    """

    def __init__(
        self,
        names: Sequence[str],
        checks: Sequence[int],
        labels: Sequence[int],
        classes: Sequence[str],
        read: Callable[[int], bytes],
        where: Path,
        mode: Mode | None = None,
        left_out: int = 0,
    ) -> None:
        if not names:
            raise TaggantError(f"{where} holds no image; expected one folder a class with pictures in it")
        for name in names:
            if name.startswith("/") or ".." in name.split("/"):
                raise TaggantError(f"{where} holds an image named {name!r}, outside its folder; remove it")
        self.names = self._names = names
        self._checks, self._read, self._where, self._given = list(checks), read, where, mode
        self.labels, self.classes, self.left_out = np.array(labels, dtype=np.int64), list(classes), left_out
        if self.labels.shape != (len(names),) or self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            raise TaggantError(f"{where} holds labels that are not among its {len(self.classes)} classes, or not one an image")

    @cached_property
    def _mode(self) -> str:
        return self._given or self._open(0).mode

    def _open(self, index: int) -> Any:
        try:
            return read_picture(self._read(index))
        except PictureError as error:
            why: object = error
        except OSError as error:
            # Failures of a disk or a network pass through: they may pass, and no work is thrown away for them.
            if error.errno is not None and not isinstance(error, FileNotFoundError | PermissionError):
                raise
            why = one_line(error)
        except Exception as error:  # what a damaged archive makes its reader raise
            why = one_line(error)
        raise TaggantError(f"image {self._named(index)} cannot be read ({why}); replace or remove it")

    def _named(self, index: int) -> str:
        return plain(str(self._where / self._names[index]))

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Decode one image, (C, H, W) uint8.

        Raises:
            TaggantError: If the file cannot be decoded, or is in colour where the data set is grey.
        """
        image = self._open(index)
        if image.mode == "RGB" and self._mode == "L":
            raise TaggantError(f"image {self._named(index)} is in colour, and the data set is grey; replace it")
        return as_array(image.convert(self._mode))

    def _identity(self) -> Any:
        return [[name, check] for name, check in zip(self._names, self._checks, strict=True)]

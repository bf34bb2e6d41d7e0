"""What every layout of a release has: units of work, names, folders.

Units do not depend on each other, so that several processes share them and a killed release goes on with the next one.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.pictures import PictureError
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import sha256_file
from taggant_lightning.release.documents import class_folders
from taggant_lightning.release.encoding import Codec, decode, encode

File = tuple[str, str]  # name within the release, SHA-256
UNIT_IMAGES, UNIT_BYTES = 256, 8 << 20  # of pixels; small enough that every process has work, and little is lost by a kill
SHARD_IMAGES, SHARD_BYTES = 4096, 128 << 20  # of pixels; enough shards to share, large enough to upload


@dataclass(frozen=True)
class Item:
    """One image as it lies in a release.

    Attributes:
        label: Its label.
        data: Its encoded bytes, or None where pixels are stored as they are.
        pixels: (C, H, W) uint8.
    """

    label: int
    data: bytes | None
    pixels: NDArray[np.uint8]


class Layout(ABC):
    """Where images lie.

    Args:
        source: What is published.
        indices: (N,) source indices, in order.
        names: Whether images keep the names that they have in the source.
    """

    name: str
    codec: Codec | None = "png"

    def __init__(self, source: ImageSource, indices: NDArray[np.int64], *, names: bool = False) -> None:
        self.source, self.indices, self.names = source, indices, names

    @cached_property
    def unit_size(self) -> int:
        """Images in a unit of work."""
        return max(1, min(UNIT_IMAGES, UNIT_BYTES // self._pixels))

    @cached_property
    def folders(self) -> list[str]:
        """The folder of each class, in the order of the labels."""
        return self.source.classes if self.names else class_folders(self.source.classes)

    @cached_property
    def units(self) -> list[range]:
        """The units of work: places 0..N−1, cut into runs."""
        return [range(a, min(a + self.unit_size, len(self.indices))) for a in range(0, len(self.indices), self.unit_size)]

    def prepare(self, part: Path) -> None:
        """Do what comes before the first unit."""
        self.files()  # names that cannot be written are told before the first image is

    @abstractmethod
    def write(self, part: Path, unit: int) -> list[File]:
        """Write one unit into the folder, and return its files; a second time, it writes the same."""

    @abstractmethod
    def files(self) -> list[str]:
        """Return the names of all files of images, in the order in which the release lists them."""

    def as_packed(self, folder: Path, unit: int, encoded: Sequence[bytes]) -> bool:
        """Say whether the file that holds one unit is what packing these encoded images makes; true where none holds it."""
        return True

    def finish(self, part: Path) -> list[File]:
        """Do what comes after the last unit, and return further files."""
        return []

    @abstractmethod
    def items(self, folder: Path, unit: int) -> Iterator[Item]:
        """Read the images of one unit back from disk.

        Raises:
            TaggantError: If a file is missing or cannot be decoded.
        """

    def _encoded(self, place: int) -> bytes:
        return encode(self.source.pixels(int(self.indices[place])), self.codec or "png")

    def _label(self, place: int) -> int:
        return int(self.source.labels[self.indices[place]])

    @cached_property
    def _stems(self) -> list[str] | None:
        """Names that images have in the source, class folder first and without their suffix, in place order."""
        if not self.names:
            return None
        known = self.source.names
        if known is None:
            raise TaggantError("format=source needs a source whose images have names; write --format png")
        stems = [known[int(i)].rsplit(".", 1)[0] for i in self.indices]
        if any("\n" in stem or not _encodable(stem) for stem in stems):
            raise TaggantError("format=source: an image's name holds a line break or is no UTF-8; write --format png")
        if len(set(stems)) < len(stems):
            raise TaggantError("format=source: two images have names that differ in their suffix only; write --format png")
        return stems

    def member(self, place: int) -> str:
        """Return an image's name: class folder, and its place or its name in the source."""
        stem = f"{self.folders[self._label(place)]}/{place:08d}" if self._stems is None else self._stems[place]
        return f"{stem}.{self.codec}"

    @cached_property
    def _pixels(self) -> int:
        return self.source.pixels(int(self.indices[0])).size  # images of one data set are alike


class Shards(Layout):
    """A unit is a file that holds some thousand images, `train-00000-of-00005.SUFFIX`, in a folder or none."""

    folder = ""

    @cached_property
    def unit_size(self) -> int:
        """Images in a shard."""
        return max(1, min(SHARD_IMAGES, SHARD_BYTES // self._pixels))

    @abstractmethod
    def pack(self, to: Path | io.BytesIO, unit: int, encoded: Iterable[bytes]) -> None:
        """Write encoded images, those of a unit in order, as one shard."""

    def shard(self, unit: int) -> str:
        """Return a shard's name."""
        return f"{self.folder}train-{unit:05d}-of-{len(self.units):05d}.{self.name}"

    def prepare(self, part: Path) -> None:
        """Make the folder of the shards."""
        super().prepare(part)
        (part / self.folder).mkdir(exist_ok=True)

    def write(self, part: Path, unit: int) -> list[File]:
        """Write one shard."""
        name = self.shard(unit)
        self.pack(part / name, unit, (self._encoded(place) for place in self.units[unit]))
        return [(name, sha256_file(part / name))]

    def files(self) -> list[str]:
        """Return the shards' names."""
        return [self.shard(unit) for unit in range(len(self.units))]

    def as_packed(self, folder: Path, unit: int, encoded: Sequence[bytes]) -> bool:
        """Say whether a shard is what packing these images makes."""
        packed = io.BytesIO()
        self.pack(packed, unit, encoded)
        return packed.getbuffer() == (folder / self.shard(unit)).read_bytes()


def scratch(part: Path) -> Path:
    """Return the folder beside a release in the making that holds what is not published."""
    return part.with_name(f"{part.name}.progress")


def decoded(data: bytes, where: Path) -> NDArray[np.uint8]:
    """Decode an image of a release.

    Raises:
        TaggantError: If it is damaged.
    """
    try:
        return decode(data)
    except PictureError as error:
        raise TaggantError(f"release={where}: an image cannot be decoded ({error}); write the release again") from None


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a file name of other bytes, as Python reads it
        return False
    return True

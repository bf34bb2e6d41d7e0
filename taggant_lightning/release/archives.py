"""Zip archives: image folders, and numpy's arrays."""

import io
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import sha256_file
from taggant_lightning.release.layout import File, Item, Layout, Shards, decoded, scratch

ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can name
RAW = "train_x.raw"
BLOCK = 1 << 22  # bytes of pixels at a time


class Zip(Shards):
    """`train-*.zip`, zipped image folders of some thousand images each."""

    name = "zip"

    def pack(self, to: Path | io.BytesIO, unit: int, encoded: Iterable[bytes]) -> None:
        """Write one archive, without times."""
        with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
            for place, data in zip(self.units[unit], encoded, strict=True):
                info = zipfile.ZipInfo(self.member(place), ZIP_TIME)
                info.external_attr = 0o100644 << 16
                archive.writestr(info, data)

    def items(self, folder: Path, unit: int) -> Iterator[Item]:
        """Read the images of one archive."""
        labels = {name: label for label, name in enumerate(self.folders)}
        path = folder / self.shard(unit)
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if names != [self.member(place) for place in self.units[unit]]:
                    raise TaggantError(f"release={folder}: {path.name} holds other names, or in another order; write it again")
                for name in names:
                    data = archive.read(name)
                    yield Item(labels[name.split("/")[0]], data, decoded(data, folder))
        except (OSError, zipfile.BadZipFile) as error:
            raise TaggantError(f"release={folder}: {path.name} is missing or damaged ({error})") from None


class Npz(Layout):
    """`data.npz` with train_x (N, C, H, W) uint8 and train_y, for images of one shape.

    Units write their pixels into one file at their places; at the end it is moved into the archive.
    """

    name = "npz"
    codec = None

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        return self.source.pixels(int(self.indices[0])).shape

    def prepare(self, part: Path) -> None:
        """Make the file that units write into."""
        super().prepare(part)
        (scratch(part) / RAW).touch()

    def write(self, part: Path, unit: int) -> list[File]:
        """Write one unit's pixels at their place."""
        images = [self.source.pixels(int(self.indices[place])) for place in self.units[unit]]
        if any(image.shape != self._shape for image in images):
            raise TaggantError("format=npz needs images of one shape, and these differ; write --format png")
        handle = os.open(scratch(part) / RAW, os.O_WRONLY)  # not a memory map: a full disk would end that by a signal
        try:
            data = memoryview(np.stack(images).tobytes())
            offset = self.units[unit].start * int(np.prod(self._shape))
            while data:
                written = os.pwrite(handle, data, offset)
                data, offset = data[written:], offset + written
        finally:
            os.close(handle)
        return []

    def finish(self, part: Path) -> list[File]:
        """Put pixels, labels and classes into the archive, a block at a time."""
        path = part / "data.npz"
        with (scratch(part) / RAW).open("rb") as pixels:
            self._pack(path, iter(lambda: pixels.read(BLOCK), b""))
        return [(path.name, sha256_file(path))]

    def _pack(self, to: "Path | Comparing", pixels: Iterable[bytes]) -> None:
        """Write the archive, its pixels given as bytes in order."""
        header = io.BytesIO()
        shape = (len(self.indices), *self._shape)
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]  # all that it calls is there
            with archive.open(zipfile.ZipInfo("train_x.npy", ZIP_TIME), "w", force_zip64=True) as member:
                member.write(header.getvalue())
                for block in pixels:
                    member.write(block)
            for name, array in {"train_y": self.source.labels[self.indices], "classes": np.array(self.source.classes)}.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy", ZIP_TIME), "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    def files(self) -> list[str]:
        """Return the archive's name."""
        return ["data.npz"]

    def as_packed(self, folder: Path, unit: int, encoded: Sequence[bytes]) -> bool:
        """Say whether the archive is, byte for byte, what packing its own pixels makes; asked once, of the first unit."""
        if unit:
            return True
        path = folder / "data.npz"
        pixels = stored_array(path, "train_x").reshape(-1)
        with path.open("rb") as file:
            same = Comparing(file)
            self._pack(same, (pixels[at : at + BLOCK].tobytes() for at in range(0, pixels.size, BLOCK)))
            return same.end()

    def items(self, folder: Path, unit: int) -> Iterator[Item]:
        """Read one unit's pixels; only they are held in memory."""
        images, labels = (stored_array(folder / "data.npz", name) for name in ("train_x", "train_y"))
        if len(images) != len(self.indices) or len(labels) != len(images):
            raise TaggantError(
                f"release={folder}: data.npz holds {len(images)} images and {len(labels)} labels; write it again"
            )
        for place in self.units[unit]:
            yield Item(int(labels[place]), None, np.array(images[place]))


class Comparing:
    """A file to write to that keeps nothing, and compares what is written with another file.

    So an archive that fills the disk is checked without a copy of it.

    Args:
        file: The other file.
    """

    SMALL = 1 << 12  # what is written over later, when its length is known: the headers of members

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._place, self._equal = file, 0, True
        self._small: dict[int, bytes] = {}

    def write(self, data: bytes) -> int:
        """Compare; small pieces when all is written."""
        if len(data) <= self.SMALL:
            self._small[self._place] = bytes(data)
        else:
            self._equal &= self._there(self._place, len(data)) == bytes(data)
        self._place += len(data)
        return len(data)

    def _there(self, place: int, length: int) -> bytes:
        self._file.seek(place)
        return self._file.read(length)

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._place

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place from the beginning, as an archive's writer does."""
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("a place counts from the beginning")
        self._place = place
        return place

    def flush(self) -> None:
        """Do nothing."""

    def end(self) -> bool:
        """Say whether the other file held all that was written, and ends where the writing ended."""
        held = all(self._there(place, len(data)) == data for place, data in self._small.items())
        return self._equal and held and self._file.seek(0, os.SEEK_END) == self._place


def stored_array(path: Path, name: str) -> NDArray[Any]:
    """Map an array of an .npz file whose members are not compressed, without reading it.

    Args:
        path: The file.
        name: Of the array, without `.npy`.

    Returns:
        The array, of any shape and plain type; read-only, its bytes stay in the file.

    Raises:
        TaggantError: If the file is missing, damaged or compressed, or the array is one of objects.
    """
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            info = archive.getinfo(f"{name}.npy")
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed")
            file.seek(info.header_offset + 26)  # lengths of the member's name and of its extra field
            lengths = struct.unpack("<HH", file.read(4))
            file.seek(sum(lengths), os.SEEK_CUR)
            np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype.hasobject or fortran:
                raise ValueError(f"{name} is no plain array")
            return np.memmap(path, dtype, "r", file.tell(), shape)
    except (OSError, KeyError, ValueError, struct.error, zipfile.BadZipFile) as error:
        raise TaggantError(f"{path} is missing or damaged ({error}); write the release again") from None

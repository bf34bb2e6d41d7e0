"""Layouts: how the images of a release lie in files.

Each writes units of work that do not depend on each other, so that several processes share them and a killed release goes on
with the next unit.
"""

import io
import json
import os
import struct
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.release.documents import class_folders
from taggant_lightning.data.release.encoding import Codec, decode, encode
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import sha256_file, sha256_hex

ReleaseFormat = Literal["png", "webp", "npz", "zip", "parquet", "source"]
File = tuple[str, str]  # name within the release, SHA-256
UNIT_IMAGES, UNIT_BYTES = 256, 8 << 20  # of pixels; small enough that every process has work, and little is lost by a kill
SHARD_IMAGES, SHARD_BYTES = 4096, 128 << 20  # of pixels; enough shards to share, large enough to upload
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can name


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

    def _shard(self, unit: int, suffix: str) -> str:
        return f"train-{unit:05d}-of-{len(self.units):05d}.{suffix}"

    def _shard_size(self) -> int:
        return max(1, min(SHARD_IMAGES, SHARD_BYTES // self._pixels))

    @cached_property
    def _pixels(self) -> int:
        return self.source.pixels(int(self.indices[0])).size  # images of one data set are alike


class Folder(Layout):
    """`train/CLASS/IMAGE`, one file an image."""

    name = "png"

    def prepare(self, part: Path) -> None:
        """Make the class folders."""
        super().prepare(part)
        for folder in self.folders:
            (part / "train" / folder).mkdir(parents=True, exist_ok=True)

    def write(self, part: Path, unit: int) -> list[File]:
        """Write the images of one unit."""
        files = []
        for place in self.units[unit]:
            data, name = self._encoded(place), f"train/{self.member(place)}"
            path = part / name
            if self.names:  # names of a source may lie deeper than one folder
                path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            files.append((name, sha256_hex(data)))
        return files

    def files(self) -> list[str]:
        """Return the images' names."""
        return [f"train/{self.member(place)}" for place in range(len(self.indices))]

    def items(self, folder: Path, unit: int) -> Iterator[Item]:
        """Read the images of one unit."""
        labels = {name: label for label, name in enumerate(self.folders)}
        for place in self.units[unit]:
            name = f"train/{self.member(place)}"
            try:
                data = (folder / name).read_bytes()
            except OSError:
                raise TaggantError(f"release={folder}: {name} is missing; write the release again") from None
            yield Item(labels[name.split("/")[1]], data, _decoded(data, folder))


class WebP(Folder):
    """The same in lossless WebP."""

    name = "webp"
    codec = "webp"


class Zip(Layout):
    """`train-*.zip`, zipped image folders of some thousand images each."""

    name = "zip"

    @cached_property
    def unit_size(self) -> int:
        """Images in an archive."""
        return self._shard_size()

    def write(self, part: Path, unit: int) -> list[File]:
        """Write one archive."""
        path = part / self._shard(unit, "zip")
        self._pack(path, unit, (self._encoded(place) for place in self.units[unit]))
        return [(path.name, sha256_file(path))]

    def _pack(self, to: Path | io.BytesIO, unit: int, encoded: Iterable[bytes]) -> None:
        with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
            for place, data in zip(self.units[unit], encoded, strict=True):
                info = zipfile.ZipInfo(self.member(place), ZIP_TIME)
                info.external_attr = 0o100644 << 16
                archive.writestr(info, data)

    def files(self) -> list[str]:
        """Return the archives' names."""
        return [self._shard(unit, "zip") for unit in range(len(self.units))]

    def as_packed(self, folder: Path, unit: int, encoded: Sequence[bytes]) -> bool:
        """Say whether an archive is what packing these images makes."""
        packed = io.BytesIO()
        self._pack(packed, unit, encoded)
        return packed.getbuffer() == (folder / self._shard(unit, "zip")).read_bytes()

    def items(self, folder: Path, unit: int) -> Iterator[Item]:
        """Read the images of one archive."""
        labels = {name: label for label, name in enumerate(self.folders)}
        path = folder / self._shard(unit, "zip")
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if names != [self.member(place) for place in self.units[unit]]:
                    raise TaggantError(f"release={folder}: {path.name} holds other names, or in another order; write it again")
                for name in names:
                    data = archive.read(name)
                    yield Item(labels[name.split("/")[0]], data, _decoded(data, folder))
        except (OSError, zipfile.BadZipFile) as error:
            raise TaggantError(f"release={folder}: {path.name} is missing or damaged ({error})") from None


class Parquet(Layout):
    """`data/train-*.parquet` with image bytes and labels, as dataset hubs read them."""

    name = "parquet"

    @cached_property
    def unit_size(self) -> int:
        """Images in a shard."""
        return self._shard_size()

    def prepare(self, part: Path) -> None:
        """Make the folder of the shards."""
        super().prepare(part)
        pyarrow()
        (part / "data").mkdir(exist_ok=True)

    def write(self, part: Path, unit: int) -> list[File]:
        """Write one shard."""
        name = f"data/{self._shard(unit, 'parquet')}"
        self._pack(part / name, unit, (self._encoded(place) for place in self.units[unit]))
        return [(name, sha256_file(part / name))]

    def _pack(self, to: Path | io.BytesIO, unit: int, encoded: Iterable[bytes]) -> None:
        pa, pq = pyarrow()
        places = self.units[unit]
        images = [{"bytes": data, "path": self.member(place)} for place, data in zip(places, encoded, strict=True)]
        table = pa.table({"image": images, "label": [self._label(place) for place in places]}, schema=self._schema)
        # Images are compressed already. Small row groups let a reader fetch few images.
        pq.write_table(table, to, compression="none", row_group_size=ROW_GROUP, use_dictionary=False)

    def files(self) -> list[str]:
        """Return the shards' names."""
        return [f"data/{self._shard(unit, 'parquet')}" for unit in range(len(self.units))]

    def as_packed(self, folder: Path, unit: int, encoded: Sequence[bytes]) -> bool:
        """Say whether a shard is what packing these images makes."""
        packed = io.BytesIO()
        self._pack(packed, unit, encoded)
        return packed.getbuffer() == (folder / "data" / self._shard(unit, "parquet")).read_bytes()

    @property
    def _schema(self) -> Any:
        pa, _ = pyarrow()
        features = {"image": {"_type": "Image"}, "label": {"names": self.source.classes, "_type": "ClassLabel"}}
        stated = {"huggingface": json.dumps({"info": {"features": features}})}
        image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        return pa.schema({"image": image, "label": pa.int64()}, metadata=stated)

    def items(self, folder: Path, unit: int) -> Iterator[Item]:
        """Read the images of one shard."""
        name = f"data/{self._shard(unit, 'parquet')}"
        rows = parquet_rows(folder / name)
        if len(rows) != len(self.units[unit]):
            raise TaggantError(f"release={folder}: {name} holds {len(rows)} images; write the release again")
        for row in rows:
            yield Item(int(row["label"]), row["image"]["bytes"], _decoded(row["image"]["bytes"], folder))


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
        header = io.BytesIO()
        shape = (len(self.indices), *self._shape)
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        path = part / "data.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            with archive.open(zipfile.ZipInfo("train_x.npy", ZIP_TIME), "w", force_zip64=True) as to:
                to.write(header.getvalue())
                with (scratch(part) / RAW).open("rb") as pixels:
                    while block := pixels.read(1 << 22):
                        to.write(block)
            for name, array in {"train_y": self.source.labels[self.indices], "classes": np.array(self.source.classes)}.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy", ZIP_TIME), "w") as to:
                    np.lib.format.write_array(to, array, allow_pickle=False)
        return [(path.name, sha256_file(path))]

    def files(self) -> list[str]:
        """Return the archive's name."""
        return ["data.npz"]

    def as_packed(self, folder: Path, unit: int, encoded: Sequence[bytes]) -> bool:
        """Say whether the archive holds three arrays, the class names as they are, and nothing else."""
        with zipfile.ZipFile(folder / "data.npz") as archive:
            infos = archive.infolist()
            bare = not archive.comment and infos[0].header_offset == 0
        bare &= [info.filename for info in infos] == ["train_x.npy", "train_y.npy", "classes.npy"]
        bare &= all(info.date_time == ZIP_TIME and not info.comment for info in infos)
        return bare and np.array_equal(stored_array(folder / "data.npz", "classes"), np.array(self.source.classes))

    def items(self, folder: Path, unit: int) -> Iterator[Item]:
        """Read one unit's pixels; only they are held in memory."""
        images, labels = (stored_array(folder / "data.npz", name) for name in ("train_x", "train_y"))
        if len(images) != len(self.indices) or len(labels) != len(images):
            raise TaggantError(
                f"release={folder}: data.npz holds {len(images)} images and {len(labels)} labels; write it again"
            )
        for place in self.units[unit]:
            yield Item(int(labels[place]), None, np.array(images[place]))


LAYOUTS: dict[str, type[Layout]] = {cls.name: cls for cls in (Folder, WebP, Npz, Zip, Parquet)}
ROW_GROUP = 64
RAW = "train_x.raw"
# The layout that each source came in. torchvision compares its archives with known digests, and so reads no changed ones.
CAME_FROM: dict[str, str] = {"imagefolder": "png", "zip": "zip", "npz": "npz"}


def make_layout(format: str, source: ImageSource, indices: NDArray[np.int64], *, came_from: str) -> Layout:
    """Return the layout of a release.

    Args:
        format: `png`, `webp`, `npz`, `zip`, `parquet`, or `source`: the layout and the names that the source has.
        source: What is published.
        indices: (N,) source indices, in order.
        came_from: Name of the source, for `source`.

    Raises:
        TaggantError: If the format is unknown, or the source came in a layout that nobody could read with other images.
    """
    if format not in get_args(ReleaseFormat):
        raise TaggantError(f"format={format!r} is unknown; write one of {', '.join(get_args(ReleaseFormat))}")
    if format != "source":
        return LAYOUTS[format](source, indices)
    if came_from not in CAME_FROM:
        raise TaggantError(f"format=source: {came_from} comes in a layout that others read unchanged only; write --format png")
    chosen = CAME_FROM[came_from]
    return LAYOUTS[chosen](source, indices, names=chosen != "npz")


def scratch(part: Path) -> Path:
    """Return the folder beside a release in the making that holds what is not published."""
    return part.with_name(f"{part.name}.progress")


def pyarrow() -> tuple[Any, Any]:
    """Import pyarrow.

    Raises:
        TaggantError: If it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise TaggantError(
            "format=parquet needs pyarrow, which is not installed; run `pip install 'taggant-lightning[parquet]'`"
        ) from None
    return pa, pq


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """Read all rows of a shard.

    Raises:
        TaggantError: If it is missing or damaged.
    """
    pa, pq = pyarrow()
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, memory_map=True).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise TaggantError(f"{path} is missing or damaged ({error}); write the release again") from None
    return rows


def stored_array(path: Path, name: str) -> NDArray[Any]:
    """Map an array of an .npz file whose members are not compressed, without reading it.

    Raises:
        TaggantError: If the file is missing, damaged or compressed.
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


def _decoded(data: bytes, where: Path) -> NDArray[np.uint8]:
    try:
        return decode(data)
    except OSError as error:
        raise TaggantError(f"release={where}: an image cannot be decoded ({error}); write the release again") from None


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a file name of other bytes, as Python reads it
        return False
    return True

"""Image sources: the images of one split, addressed by index. `open_source` makes one from a name and a folder."""

import gzip
import hashlib
import io
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json, sha256_hex

Split = Literal["train", "test"]
SourceName = Literal["digits", "imagefolder", "imagenet", "zip", "npz", "cifar10", "cifar100", "fashion_mnist"]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
HASHED_IMAGES = 1024  # at a time, of arrays that may not fit into memory
DIGITS_SPLIT_SEED = 0
DIGITS_TEST = 360
# The folders of ImageNet-1k in alphabetical order are its classes 0 to 999, here the first (tench) and the last.
IMAGENET_CLASSES, IMAGENET_ENDS = 1000, ("n01440764", "n15075141")


class ImageSource(ABC):
    """The images of one split, addressed by index from 0.

    Attributes:
        labels: (N,) int64 in 0..len(classes)−1.
        classes: Class names in the order of the labels.
        names: Names of the images, class folder first, or None where they have none.
    """

    labels: NDArray[np.int64]
    classes: list[str]
    names: Sequence[str] | None = None

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


class EncodedSource(ImageSource):
    """Encoded images, decoded one at a time with Pillow.

    All images are brought to the mode of the first one: grey stays one channel, all else becomes RGB.

    Args:
        names: Relative names, one an image, for messages and the fingerprint.
        checks: A number an image that changes with its content (a size or a checksum).
        labels: Labels, one an image.
        classes: Class names.
        read: Returns the encoded bytes of an index.
        where: The folder or archive, for messages.
    """

    def __init__(
        self,
        names: Sequence[str],
        checks: Sequence[int],
        labels: Sequence[int],
        classes: Sequence[str],
        read: Callable[[int], bytes],
        where: Path,
    ) -> None:
        if not names:
            raise TaggantError(f"{where} holds no image; expected one folder a class with {', '.join(SUFFIXES)} files")
        for name in names:
            if name.startswith("/") or ".." in name.split("/"):
                raise TaggantError(f"{where} holds an image named {name!r}, outside its folder; remove it")
        self.names = self._names = names
        self._checks, self._read, self._where = list(checks), read, where
        self.labels, self.classes = np.array(labels, dtype=np.int64), list(classes)

    @cached_property
    def _mode(self) -> str:
        return "L" if self._open(0).mode in ("1", "L") else "RGB"

    def _open(self, index: int) -> Any:
        from PIL import Image

        try:
            data = self._read(index)
        except (FileNotFoundError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise TaggantError(
                f"image {self._where / self._names[index]} cannot be read ({error}); replace or remove it"
            ) from None
        # Other failures to read, of a disk or a network, pass through: they may pass, and no work is thrown away for them.
        try:
            image = Image.open(io.BytesIO(data))
            image.load()
        except Exception as error:  # Pillow's decoders raise many types
            raise TaggantError(
                f"image {self._where / self._names[index]} cannot be read ({error}); replace or remove it"
            ) from None
        return image

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Decode one image, (C, H, W) uint8.

        Raises:
            TaggantError: If the file cannot be decoded.
        """
        array = np.asarray(self._open(index).convert(self._mode), dtype=np.uint8)
        return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))

    def _identity(self) -> Any:
        return [[name, check] for name, check in zip(self._names, self._checks, strict=True)]


class ResizedSource(ImageSource):
    """A source whose images are all brought to one shorter side, bicubic and antialiased.

    Args:
        source: The images.
        side: Shorter side in pixels.
    """

    def __init__(self, source: ImageSource, side: int) -> None:
        self.original, self.side = source, side
        self.labels, self.classes, self.names = source.labels, source.classes, source.names

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return one image, (C, H, W) uint8 with min(H, W) = side."""
        from PIL import Image

        pixels = self.original.pixels(index)
        height, width = pixels.shape[1:]
        scale = self.side / min(height, width)
        size = (max(self.side, round(width * scale)), max(self.side, round(height * scale)))
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        array = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
        return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))

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


def _digits(split: Split) -> ImageSource:
    from sklearn.datasets import load_digits

    from taggant_lightning.streams import stream

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    order = stream(DIGITS_SPLIT_SEED, "digits-split").permutation(len(images))
    chosen = np.sort(order[:DIGITS_TEST] if split == "test" else order[DIGITS_TEST:])
    return ArraySource(images[chosen], digits.target[chosen].astype(np.int64), [str(i) for i in range(10)])


def _npz(root: str | None, split: Split) -> ImageSource:
    if root is None or not Path(root).is_file():
        raise TaggantError(f"root={root} is no file; source npz wants the .npz file with train_x, train_y, test_x and test_y")
    try:
        with np.load(root, allow_pickle=False) as arrays:
            names = {f"{split}_x", f"{split}_y"}
            if missing := names - set(arrays.files):
                raise TaggantError(f"{root} lacks {', '.join(sorted(missing))}; it holds {', '.join(arrays.files)}")
            images, labels = arrays[f"{split}_x"], arrays[f"{split}_y"]
            classes = [str(c) for c in arrays["classes"]] if "classes" in arrays.files else None
            if classes is None:  # both splits share one list of classes
                count = max(int(arrays[n].max()) for n in arrays.files if n.endswith("_y")) + 1
                classes = [str(i) for i in range(count)]
    except (zipfile.BadZipFile, OSError, KeyError, ValueError) as error:
        if isinstance(error, TaggantError):
            raise
        raise TaggantError(f"{root} is damaged ({error}); restore it from a copy") from None
    return ArraySource(channels_first(images), labels, classes)


def channels_first(images: NDArray[Any]) -> NDArray[Any]:
    """Bring (N, H, W) or (N, H, W, C) arrays to (N, C, H, W); arrays in that order already stay as they are."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images


def folder_source(folder: Path) -> ImageSource:
    """Read a folder with one sub-folder a class, classes and files in alphabetical order."""
    classes = sorted(d.name for d in folder.iterdir() if d.is_dir())
    found = [(*f, label) for label, name in enumerate(classes) for f in sorted(_image_files(folder / name, (name,)))]
    names = ["/".join(parts) for parts, _, _ in found]
    return EncodedSource(names, [size for _, size, _ in found], [f[2] for f in found], classes, Files(folder, names), folder)


def _image_files(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the parts of each image's relative name, and its size; `scandir` is seven times as fast as `Path.rglob`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _image_files(Path(entry.path), (*parts, entry.name))
            elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                yield (*parts, entry.name), entry.stat().st_size


def _imagefolder(root: str | None, split: Split) -> ImageSource:
    folder = require_folder(root, "imagefolder")
    names = ("train",) if split == "train" else ("test", "val")
    for name in names:
        if (folder / name).is_dir():
            return folder_source(folder / name)
    raise TaggantError(f"root={root} has no folder {' or '.join(names)}; expected train/CLASS/IMAGE and test/CLASS/IMAGE")


def _imagenet(root: str | None, split: Split) -> ImageSource:
    """Read ImageNet-1k as it is usually unpacked; its published class numbers are the order of its folders' names."""
    folder = require_folder(root, "imagenet") / ("train" if split == "train" else "val")
    classes = sorted(d.name for d in folder.iterdir() if d.is_dir()) if folder.is_dir() else []
    if len(classes) != IMAGENET_CLASSES or (classes[0], classes[-1]) != IMAGENET_ENDS:
        flat = (
            "; its images lie there without folders, so move each into its class's" if not classes and folder.is_dir() else ""
        )
        raise TaggantError(
            f"{folder} has {len(classes)} class folders, and ImageNet-1k has {IMAGENET_CLASSES}, {IMAGENET_ENDS[0]} to "
            f"{IMAGENET_ENDS[1]}{flat}; write source=imagefolder for other data"
        )
    return folder_source(folder)


class Files:
    """Image files of one folder; unlike a closure it can be handed to another process.

    Args:
        folder: The folder.
        names: Relative names; a million of them are kept once, and no path is made before it is read.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names

    def __call__(self, index: int) -> bytes:
        """Return one file's bytes."""
        return (self._folder / self._names[index]).read_bytes()


class Archives:
    """Zip archives opened in the process that reads them: a worker must not share its parent's file position."""

    def __init__(self, members: list[tuple[Path, str]]) -> None:
        self._members = members
        self._open: dict[Path, zipfile.ZipFile] = {}
        self._pid: int | None = None

    def __call__(self, index: int) -> bytes:
        """Return one member's bytes."""
        if self._pid != os.getpid():
            self._open = {}
            self._pid = os.getpid()
        path, name = self._members[index]
        if path not in self._open:
            self._open[path] = zipfile.ZipFile(path)
        return self._open[path].read(name)

    def __getstate__(self) -> dict[str, Any]:
        return {"_members": self._members, "_open": {}, "_pid": None}


def _zip(root: str | None, split: Split) -> ImageSource:
    folder = require_folder(root, "zip")
    archives = sorted(folder.glob(f"{split}*.zip"))
    if not archives:
        raise TaggantError(f"root={root} has no {split}*.zip; expected zipped image folders such as {split}.zip")
    entries = []
    for path in archives:
        try:
            with zipfile.ZipFile(path) as archive:
                infos = [i for i in archive.infolist() if Path(i.filename).suffix.lower() in SUFFIXES]
        except (zipfile.BadZipFile, OSError) as error:
            raise TaggantError(f"{path} is damaged ({error}); restore it from a copy") from None
        entries += [(Path(i.filename).parent.name, Path(i.filename).name, i, path) for i in infos]
    entries.sort(key=lambda e: (e[0], e[1]))
    classes = sorted({e[0] for e in entries})
    number = {name: label for label, name in enumerate(classes)}
    return EncodedSource(
        [f"{e[0]}/{e[1]}" for e in entries],
        [e[2].CRC for e in entries],
        [number[e[0]] for e in entries],
        classes,
        Archives([(e[3], e[2].filename) for e in entries]),
        folder,
    )


def _idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of bytes, compressed or not: two zeros, type 8, number of dimensions, each length, the bytes."""
    packed = path.with_name(path.name + ".gz")
    try:
        data = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
        shape = np.frombuffer(data, dtype=">i4", count=data[3], offset=4)
        return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * data[3]).reshape(shape)
    except FileNotFoundError:
        raise TaggantError(f"{path} does not exist, nor {packed.name}; download the data set there first") from None
    except (OSError, EOFError, IndexError, ValueError) as error:
        raise TaggantError(f"{path} is damaged ({error}); restore it from a copy") from None


def _fashion_mnist(root: str | None, split: Split) -> ImageSource:
    """Read Fashion-MNIST in torchvision's layout; torchvision itself reads the files only after unpacking them in place."""
    from torchvision.datasets import FashionMNIST

    raw = require_folder(root, "fashion_mnist") / "FashionMNIST" / "raw"
    stem = "train" if split == "train" else "t10k"
    images, labels = _idx(raw / f"{stem}-images-idx3-ubyte"), _idx(raw / f"{stem}-labels-idx1-ubyte")
    return ArraySource(images[:, None], labels.astype(np.int64), FashionMNIST.classes)


def _cifar(name: str, root: str | None, split: Split) -> ImageSource:
    from torchvision import datasets

    folder = require_folder(root, name)
    cls = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        data = cls(str(folder), train=split == "train", download=False)
    except RuntimeError as error:
        raise TaggantError(f"root={root} holds no {name} as torchvision reads it ({error}); download it there first") from None
    images = np.asarray(data.data)
    return ArraySource(channels_first(images), np.asarray(data.targets, dtype=np.int64), [str(c) for c in data.classes])


def open_source(name: str, root: str | None, split: Split) -> ImageSource:
    """Open one split of a data set.

    Args:
        name: `digits` (bundled with scikit-learn, no root), `imagefolder` (root/train, root/test or root/val, one folder a
            class), `imagenet` (ImageNet-1k: root/train and root/val, one folder a class, in their published order), `zip`
            (root/train*.zip and root/test*.zip, zipped image folders), `npz` (a file with train_x, train_y, test_x, test_y), or
            torchvision's `cifar10`, `cifar100`, `fashion_mnist` under root.
        root: The folder or file; `~` and environment variables as in `$TAGGANT_DATA/cifar-100` are filled in.
        split: `train` or `test`.

    Raises:
        TaggantError: If the name is unknown, or the root is missing or damaged.
    """
    if root is not None:
        root = os.path.expandvars(os.path.expanduser(root))  # noqa: PTH111  # text, so that messages show it as expanded
    if name == "digits":
        return _digits(split)
    if name == "imagefolder":
        return _imagefolder(root, split)
    if name == "imagenet":
        return _imagenet(root, split)
    if name == "zip":
        return _zip(root, split)
    if name == "npz":
        return _npz(root, split)
    if name == "fashion_mnist":
        return _fashion_mnist(root, split)
    if name in get_args(SourceName):
        return _cifar(name, root, split)
    raise TaggantError(f"source={name!r} is unknown; write one of {', '.join(get_args(SourceName))}")

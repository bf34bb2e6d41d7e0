"""Data sets that come in a layout of their own: scikit-learn's digits, Fashion-MNIST, CIFAR."""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.pictures import one_line
from taggant_lightning.data.sources.base import ArraySource, ImageSource, Split, require_folder
from taggant_lightning.errors import TaggantError

DIGITS_SPLIT_SEED = 0
DIGITS_TEST = 360
IDX_BYTES = 1 << 30  # more than any idx file of this data set unpacks to


def digits(split: Split) -> ImageSource:
    """Return scikit-learn's handwritten digits, split once and for all."""
    from sklearn.datasets import load_digits

    from taggant_lightning.streams import stream

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[:, None]
    order = stream(DIGITS_SPLIT_SEED, "digits-split").permutation(len(images))
    chosen = np.sort(order[:DIGITS_TEST] if split == "test" else order[DIGITS_TEST:])
    return ArraySource(images[chosen], data.target[chosen].astype(np.int64), [str(i) for i in range(10)])


def _idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of bytes, compressed or not: two zeros, type 8, number of dimensions, each length, the bytes."""
    packed = path.with_name(path.name + ".gz")
    try:
        with path.open("rb") if path.is_file() else gzip.open(packed) as file:
            data = file.read(IDX_BYTES + 1)
        if len(data) > IDX_BYTES or data[:3] != b"\0\0\x08":
            raise ValueError("it is no idx file of bytes, or too large a one")
        shape = np.frombuffer(data, dtype=">u4", count=data[3], offset=4)
        return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * data[3]).reshape(shape)
    except FileNotFoundError:
        raise TaggantError(f"{path} does not exist, nor {packed.name}; download the data set there first") from None
    except Exception as error:  # of a damaged stream, or of lengths that do not fit
        raise TaggantError(f"{path} is damaged ({one_line(error)}); restore it from a copy") from None


def fashion_mnist(root: str | None, split: Split) -> ImageSource:
    """Read Fashion-MNIST in torchvision's layout; torchvision itself reads the files only after unpacking them in place."""
    from torchvision.datasets import FashionMNIST

    raw = require_folder(root, "fashion_mnist") / "FashionMNIST" / "raw"
    stem = "train" if split == "train" else "t10k"
    images, labels = _idx(raw / f"{stem}-images-idx3-ubyte"), _idx(raw / f"{stem}-labels-idx1-ubyte")
    return ArraySource(images[:, None], labels.astype(np.int64), FashionMNIST.classes)


def cifar(name: str, root: str | None, split: Split) -> ImageSource:
    """Read CIFAR as torchvision unpacks it; it compares the files with known digests before it reads them."""
    from torchvision import datasets

    folder = require_folder(root, name)
    cls = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        data = cls(str(folder), train=split == "train", download=False)
    except RuntimeError as error:
        raise TaggantError(f"root={root} holds no {name} as torchvision reads it ({error}); download it there first") from None
    images = np.ascontiguousarray(np.asarray(data.data).transpose(0, 3, 1, 2))
    return ArraySource(images, np.asarray(data.targets, dtype=np.int64), [str(c) for c in data.classes])

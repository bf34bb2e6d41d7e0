"""Images and labels in one .npz file: which forms of labels and of arrays are read, and which are asked for."""

import os
import zipfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.pictures import one_line
from taggant_lightning.data.sources.base import ArraySource, ImageSource, Split
from taggant_lightning.data.sources.labels import class_names, numbered, plain_labels, words
from taggant_lightning.data.sources.listing import shown
from taggant_lightning.data.sources.survey import say
from taggant_lightning.errors import TaggantError

ORDERS = ("NCHW", "NHWC")
WANTED = "source npz wants the .npz file with train_x, train_y, test_x and test_y"


def npz(root: str | None, split: Split) -> ImageSource:
    """Open one split of an .npz file: `train_x`, `train_y`, `test_x`, `test_y`, and if it likes `classes` and `layout`.

    Raises:
        TaggantError: If the file is damaged, lacks an array, or holds one that can be read in two ways or in none.
    """
    if root is None or not Path(root).is_file():
        raise TaggantError(f"root={root} is no file; {WANTED}")
    with Path(root).open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            raise TaggantError(f"root={root} is one array (.npy); {WANTED}: numpy.savez(FILE, train_x=…, train_y=…, …)")
    try:
        arrays = np.load(root, allow_pickle=False)
        if not hasattr(arrays, "files"):
            raise ValueError("no .npz archive")
    except Exception as error:  # zipfile and numpy raise many types
        raise TaggantError(f"{root} is damaged, or no .npz file ({one_line(error)}); restore it from a copy") from None
    with arrays:
        if missing := {f"{split}_x", f"{split}_y"} - set(arrays.files):
            raise TaggantError(f"{root} lacks {', '.join(sorted(missing))}; it holds {', '.join(sorted(arrays.files))}")
        splits = [one for one in get_args(Split) if f"{one}_y" in arrays.files]
        names = class_names(_array(arrays, "classes", root)) if "classes" in arrays.files else None
        given = {one: plain_labels(_array(arrays, f"{one}_y", root), f"{one}_y") for one in splits}
        numbers, names = numbered(given, names)  # both splits share one list of classes
        images = _array(arrays, f"{split}_x", root)
        order = _order(arrays, root)
        channels = {_channels(arrays, f"{one}_x", order, root) for one in splits if f"{one}_x" in arrays.files}
        spare = set(arrays.files) - {"classes", "layout"} - {f"{one}_{kind}" for one in get_args(Split) for kind in "xy"}
    lines = [f"{root}: left out, other arrays: {len(spare)} ({shown(sorted(spare))})"] if spare else []
    first = channels_first(images, order, f"{split}_x")
    if channels == {1, 3} and first.shape[1] == 1:
        lines.append(
            f"{root}: {len(first)} grey images of {split}_x get three channels, as those of the other split are in colour"
        )
        first = np.repeat(first, 3, axis=1)
    say(lines)
    return ArraySource(first, numbers[split], names)


def _array(arrays: Any, name: str, root: str) -> NDArray[Any]:
    """Read an array, after a look at its header: nothing is unpickled, and nothing larger than memory is begun.

    Raises:
        TaggantError: If it holds Python objects, does not fit into memory, or is damaged.
    """
    try:
        shape, dtype, held = _header(arrays, name)
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if dtype.hasobject:
            raise TaggantError(
                f"{root}: {name} holds Python objects, which are not read, as they may run code; save plain numbers"
            )
        if size > held:
            raise ValueError(f"{name} is shorter than its shape {shape}")
        if size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
            raise TaggantError(f"{root}: {name} of shape {shape} is larger than this machine's memory; use an image folder")
        array: NDArray[Any] = np.asarray(arrays[name])
    except TaggantError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types
        raise TaggantError(f"{root} is damaged ({one_line(error)}); restore it from a copy") from None
    if array.dtype.names is not None:
        raise TaggantError(f"{root}: {name} has fields {array.dtype.names}; save a plain array")
    return array


def _header(arrays: Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape and type that an array states, and the bytes that its member holds."""
    archive: zipfile.ZipFile = arrays.zip
    member = f"{name}.npy" if f"{name}.npy" in archive.namelist() else name
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return shape, dtype, archive.getinfo(member).file_size


def _order(arrays: Any, root: str) -> str | None:
    """Return the order of axes that the file states, or None."""
    if "layout" not in arrays.files:
        return None
    stated = _array(arrays, "layout", root)
    text = words(stated)[0] if stated.size == 1 and stated.dtype.kind in "US" else str(stated)[:40]
    if text not in ORDERS:
        raise TaggantError(f"{root}: layout is {text!r}; write one of {', '.join(ORDERS)}")
    return text


def _channels(arrays: Any, name: str, order: str | None, root: str) -> int:
    """Return the channels of one split's images, from its header alone; 0 where there is no telling."""
    try:
        shape, _, _ = _header(arrays, name)
    except Exception:  # said by whoever reads it
        return 0
    if len(shape) == 3:
        return 1
    if len(shape) != 4:
        return 0
    return int(shape[1] if (order or guessed(shape)) == "NCHW" else shape[3])


def guessed(shape: tuple[int, ...]) -> str | None:
    """Return the order of a four-dimensional array's axes where its shape leaves one only; None where it leaves two."""
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first and last:
        return None
    return "NHWC" if last else "NCHW"


def channels_first(images: NDArray[Any], order: str | None = None, name: str = "images") -> NDArray[Any]:
    """Bring images to (N, C, H, W).

    Args:
        images: (N, H, W), (N, C, H, W) or (N, H, W, C).
        order: `NCHW` or `NHWC` where it is known.
        name: Of the array, for messages.

    Raises:
        TaggantError: If both axes could be channels, or the pixels are no bytes.
    """
    if images.dtype != np.uint8:
        how = {
            "f": "multiply by what makes 0..255 of them, round and save as uint8",
            "b": "save 255 * images as uint8",
        }.get(images.dtype.kind, "bring them to 0..255 in the range of your choice and save as uint8")
        raise TaggantError(f"{name}: images are {images.dtype} {images.shape}; expected bytes from 0 to 255, so {how}")
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        return images
    order = order or guessed(images.shape)
    if order is None:
        raise TaggantError(
            f"{name} of shape {images.shape} can be read as (N, C, H, W) and as (N, H, W, C); add an array layout='NCHW' or"
            " layout='NHWC' to the file"
        )
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if order == "NHWC" else images

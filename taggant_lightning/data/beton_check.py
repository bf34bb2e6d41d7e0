"""What a .beton file states about itself, compared with what it must state before FFCV follows its pointers."""

from pathlib import Path
from typing import Any

import numpy as np

from taggant_lightning.errors import TaggantError

# FFCV's format 2: a header, a description of each field, a row a sample (pointer to the pixels, label), pixels, and at the end
# a table of where they lie.
HEADER = np.dtype([("version", "<u2"), ("fields", "<u2"), ("page", "<u4"), ("samples", "<u8"), ("table", "<u8")], align=True)
FIELD = np.dtype([("type", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", 1024)], align=True)
ROW = np.dtype([("pointer", "<u8"), ("label", "<i8")])
PLACE = np.dtype([("sample", "<u8"), ("pointer", "<u8"), ("size", "<u8")])
VERSION, NDARRAY, INTEGER = 2, 4, 1


def check_beton(path: Path, count: int, size: int, arguments: Any) -> None:
    """Refuse a file whose pointers, sizes or types are not those of the images that were written.

    Pixels themselves carry no checksum; FFCV's compiled code reads wherever a pointer leads.

    Args:
        path: The file.
        count: Images in it.
        size: Bytes an image.
        arguments: (1024,) uint8, what FFCV writes for images of their shape.

    Raises:
        TaggantError: If the file is damaged.
    """
    try:
        data = np.memmap(path, np.uint8, "r")
        header = data[: HEADER.itemsize].view(HEADER)[0]
        fields = data[HEADER.itemsize :][: 2 * FIELD.itemsize].view(FIELD)
        rows = data[HEADER.itemsize + 2 * FIELD.itemsize :][: count * ROW.itemsize].view(ROW)
        places = data[int(header["table"]) :].view(PLACE)
        sound = (
            (int(header["version"]), int(header["fields"]), int(header["samples"])) == (VERSION, 2, count)
            and fields["type"].tolist() == [NDARRAY, INTEGER]
            and np.array_equal(fields["arguments"][0], arguments)
            and [bytes(name).rstrip(b"\0") for name in fields["name"]] == [b"image", b"label"]
            and len(rows) == count
            and np.array_equal(np.sort(places["pointer"]), np.sort(rows["pointer"]))
            and np.array_equal(np.sort(places["sample"]), np.arange(count))
            and bool((places["size"] == size).all())
            and bool((rows["pointer"] <= len(data) - size).all())
        )
    except (ValueError, IndexError, OverflowError):  # of a file that ends too early
        sound = False
    if not sound:
        raise TaggantError(f"{path} is damaged; remove it, and it will be written anew")

"""The layouts of a release by name."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.release.archives import Npz, Zip
from taggant_lightning.release.folders import Folder, WebP
from taggant_lightning.release.layout import Layout
from taggant_lightning.release.parquet import Parquet

ReleaseFormat = Literal["png", "webp", "npz", "zip", "parquet", "source"]
LAYOUTS: dict[str, type[Layout]] = {cls.name: cls for cls in (Folder, WebP, Npz, Zip, Parquet)}
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

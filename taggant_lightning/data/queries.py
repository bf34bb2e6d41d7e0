"""Folders of images without classes: queries for `predict`, and the images that keys are made of."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from taggant_lightning.data.pictures import PictureError, read_picture
from taggant_lightning.data.sources import EncodedSource, Files
from taggant_lightning.data.sources.folder import FileOpener
from taggant_lightning.data.sources.listing import walk
from taggant_lightning.data.sources.survey import survey
from taggant_lightning.errors import TaggantError

if TYPE_CHECKING:
    from PIL.Image import Image


def query_source(folder: str) -> EncodedSource:
    """Open a flat folder of images, in alphabetical order; their labels are all 0 and mean nothing.

    Args:
        folder: The folder, as `taggant keys export-queries` writes it; `~` and environment variables are filled in.

    Raises:
        TaggantError: If it is no folder, holds no image, one that cannot be read, or two whose names differ in the suffix only.
    """
    where = Path(os.path.expandvars(os.path.expanduser(folder)))  # noqa: PTH111  # as sources do
    if not where.is_dir():
        raise TaggantError(f"queries={folder} is no folder; write the one that `taggant keys export-queries` made")
    listing = walk(where)
    listing.left += sorted({f"{f.parts[0]}/" for f in listing.found})  # folders within it are no queries
    listing.found, listing.outside, listing.classes = sorted(listing.outside, key=lambda f: f.parts), [], []
    names = [f.parts[0] for f in listing.found]
    if not names:
        raise TaggantError(f"queries={folder} holds no image; write a flat folder of pictures")
    stems = [Path(name).stem for name in names]
    if len(set(stems)) < len(stems):
        doubled = next(stem for stem in stems if stems.count(stem) > 1)
        raise TaggantError(f"queries={folder} holds two images named {doubled!r}; give each a name of its own")
    mode = survey([listing], [FileOpener(where)], where)
    sizes = [f.check for f in listing.found]
    return EncodedSource(names, sizes, [0] * len(names), ["query"], Files(where, names), where, mode, len(listing.left))


def pictures_below(folder: Path) -> Iterator["Image"]:
    """Yield all pictures of a folder and of those within it, grey or RGB, in alphabetical order of their paths.

    Raises:
        TaggantError: If it holds no picture, or one that cannot be read.
    """
    listing = walk(folder)
    listing.found = sorted([*listing.found, *listing.outside], key=lambda f: f.parts)
    listing.outside, listing.classes = [], []
    survey([listing], [FileOpener(folder)], folder)
    for found in listing.found:
        file = folder.joinpath(*found.parts)
        try:
            yield read_picture(file.read_bytes())
        except PictureError as error:
            raise TaggantError(f"image {file} cannot be read ({error}); replace or remove it") from None

"""A flat folder of images without classes, for `predict`."""

import os
from pathlib import Path

from taggant_lightning.data.sources import SUFFIXES, EncodedSource, Files
from taggant_lightning.errors import TaggantError


def query_source(folder: str) -> EncodedSource:
    """Open a flat folder of images, in alphabetical order; their labels are all 0 and mean nothing.

    Args:
        folder: The folder, as `taggant keys export-queries` writes it; `~` and environment variables are filled in.

    Raises:
        TaggantError: If it is no folder, holds no image, or two whose names differ in the suffix only.
    """
    where = Path(os.path.expandvars(os.path.expanduser(folder)))  # noqa: PTH111  # as sources do
    if not where.is_dir():
        raise TaggantError(f"queries={folder} is no folder; write the one that `taggant keys export-queries` made")
    files = sorted((f for f in where.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file()), key=lambda f: f.name)
    if not files:
        raise TaggantError(f"queries={folder} holds no image; write a flat folder of {', '.join(SUFFIXES)} files")
    names = [file.name for file in files]
    stems = [file.stem for file in files]
    if len(set(stems)) < len(stems):
        doubled = next(stem for stem in stems if stems.count(stem) > 1)
        raise TaggantError(f"queries={folder} holds two images named {doubled!r}; give each a name of its own")
    sizes = [file.stat().st_size for file in files]
    return EncodedSource(names, sizes, [0] * len(names), ["query"], Files(where, names), where)

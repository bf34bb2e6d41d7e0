"""Folders that must not lie within each other: what is written, and what data are read from."""

from pathlib import Path

from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.errors import TaggantError
from taggant_lightning.release.signed import SignedDataModule


def refuse_within_data(out: Path, data: ImageDataModule) -> None:
    """Refuse a folder within one that the data are read from: the next reader, or whoever publishes it, would take both.

    Args:
        out: What is to be written.
        data: What is read.

    Raises:
        TaggantError: If it lies within a split's folder, or within the release that is read.
    """
    read = [] if data.root is None else [Path(data.root) / split for split in ("train", "test", "val")]
    if isinstance(data, SignedDataModule) and data.release is not None:
        read.append(Path(data.release))
    place = out.resolve()
    for folder in read:
        if folder.is_dir() and place.is_relative_to(folder.resolve()):
            raise TaggantError(f"out={out} lies within {folder}, which the data are read from; name a folder elsewhere")

"""Image folders: one folder a split, in it one a class."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from taggant_lightning.data.sources.base import ImageSource, Split, require_folder
from taggant_lightning.data.sources.encoded import EncodedSource, Mode
from taggant_lightning.data.sources.listing import Found, Listing, walk
from taggant_lightning.data.sources.survey import survey
from taggant_lightning.errors import TaggantError

# The folders of ImageNet-1k in alphabetical order are its classes 0 to 999, here the first (tench) and the last.
IMAGENET_CLASSES, IMAGENET_ENDS = 1000, ("n01440764", "n15075141")
SPLITS = {"train": ("train",), "test": ("test", "val")}  # names of each split's folder; the first that is there


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


class FileOpener:
    """Opens listed files of one folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, found: Found) -> BinaryIO:
        """Open one file."""
        return self._folder.joinpath(*found.parts).open("rb")


def folder_source(folder: Path, *, beside: Sequence[Path] = (), spare: Sequence[str] = ()) -> ImageSource:
    """Read a folder with one sub-folder a class, classes and files in alphabetical order.

    Args:
        folder: The folder of the split.
        beside: The folders of the data set's other splits, which have a say in the number of channels.
        spare: Names of folders that are left out, to be said.

    Raises:
        TaggantError: If it holds no picture, or a file that is none though its place and name say so.
    """
    listing = walk(folder)
    if not listing.found and not listing.refused:
        raise TaggantError(f"{folder} holds no image; expected one folder a class with pictures in it")
    others = [walk(other) for other in beside]
    listing.left += spare
    # In the order of their names, whichever split is asked for, so that both find what was surveyed once.
    splits = sorted([listing, *others], key=lambda one: one.where)
    mode = survey(splits, [FileOpener(one.where) for one in splits], folder.parent if beside else folder)
    return listed_source(listing, mode)


def listed_source(listing: Listing, mode: Mode) -> ImageSource:
    """Return the source of a listed folder."""
    label = {name: number for number, name in enumerate(listing.classes)}
    names = ["/".join(f.parts) for f in listing.found]
    return EncodedSource(
        names,
        [f.check for f in listing.found],
        [label[f.parts[0]] for f in listing.found],
        listing.classes,
        Files(listing.where, names),
        listing.where,
        mode,
        len(listing.left),
    )


def imagefolder(root: str | None, split: Split) -> ImageSource:
    """Open root/train/CLASS/IMAGE and root/test/CLASS/IMAGE, or root/val/CLASS/IMAGE."""
    folder = require_folder(root, "imagefolder")
    there = {one: [folder / name for name in names if (folder / name).is_dir()][:1] for one, names in SPLITS.items()}
    if not there[split]:
        wanted = " or ".join(SPLITS[split])
        raise TaggantError(f"root={root} has no folder {wanted}; expected train/CLASS/IMAGE and test/CLASS/IMAGE")
    chosen = [path for found in there.values() for path in found]
    others = [path for path in chosen if path != there[split][0]]
    spare = [
        f"{name}/" for names in SPLITS.values() for name in names if (folder / name).is_dir() and folder / name not in chosen
    ]
    return folder_source(there[split][0], beside=others, spare=spare)


def imagenet(root: str | None, split: Split) -> ImageSource:
    """Read ImageNet-1k as it is usually unpacked; its published class numbers are the order of its folders' names."""
    parent = require_folder(root, "imagenet")
    folder, other = (parent / name for name in (("train", "val") if split == "train" else ("val", "train")))
    classes = sorted(d.name for d in folder.iterdir() if d.is_dir()) if folder.is_dir() else []
    if len(classes) != IMAGENET_CLASSES or (classes[0], classes[-1]) != IMAGENET_ENDS:
        flat = (
            "; its images lie there without folders, so move each into its class's" if not classes and folder.is_dir() else ""
        )
        raise TaggantError(
            f"{folder} has {len(classes)} class folders, and ImageNet-1k has {IMAGENET_CLASSES}, {IMAGENET_ENDS[0]} to "
            f"{IMAGENET_ENDS[1]}{flat}; write source=imagefolder for other data"
        )
    return folder_source(folder, beside=[other] if other.is_dir() else [])

"""Zipped image folders, read as the same folders unzipped would be."""

import os
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, cast

from taggant_lightning.data.pictures import MAX_BYTES, one_line
from taggant_lightning.data.sources.base import ImageSource, Split, require_folder
from taggant_lightning.data.sources.encoded import EncodedSource
from taggant_lightning.data.sources.folder import SPLITS
from taggant_lightning.data.sources.listing import Found, Listing, is_left_out, is_note, shown
from taggant_lightning.data.sources.survey import survey
from taggant_lightning.errors import TaggantError

READ = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
NAMES = tuple(name for names in SPLITS.values() for name in names)


class Archives:
    """Zip archives opened in the process that reads them: a worker must not share its parent's file position.

    Args:
        members: Archive and member's name, one an image.
    """

    def __init__(self, members: list[tuple[Path, str]]) -> None:
        self._members = members
        self._open: dict[Path, zipfile.ZipFile] = {}
        self._pid: int | None = None

    def archive(self, path: Path) -> zipfile.ZipFile:
        """Return an archive, opened in this process."""
        if self._pid != os.getpid():
            self._open = {}
            self._pid = os.getpid()
        if path not in self._open:
            self._open[path] = zipfile.ZipFile(path)
        return self._open[path]

    def __call__(self, index: int) -> bytes:
        """Return one member's bytes."""
        path, name = self._members[index]
        archive = self.archive(path)
        if archive.getinfo(name).file_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
        return archive.read(name)

    def __getstate__(self) -> dict[str, Any]:
        return {"_members": self._members, "_open": {}, "_pid": None}


class MemberOpener(Archives):
    """Opens listed members."""

    def __init__(self) -> None:
        super().__init__([])

    def __call__(self, found: Found) -> BinaryIO:  # type: ignore[override]  # what is listed, not yet numbered
        """Open one member."""
        path, name = found.place
        return cast(BinaryIO, self.archive(path).open(name))


@dataclass
class _Members:
    """The members of one archive that may be pictures or lie beside them, by the split whose folder holds them."""

    path: Path
    splits: dict[str, list[Found]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def zipped(root: str | None, split: Split) -> ImageSource:
    """Open root/train*.zip and root/test*.zip, or an archive with a folder for each split."""
    if root is not None and Path(root).is_file():
        archives, folder = [Path(root)], Path(root)
    else:
        folder = require_folder(root, "zip")
        archives = sorted(folder.glob("*.zip"))
    listed: dict[Path, _Members] = {}
    listings = {one: _listing(archives, folder, cast(Split, one), listed) for one in SPLITS}
    wanted = listings[split]
    if wanted is None or not (wanted.found or wanted.refused):
        raise TaggantError(
            f"root={root} has no {split}*.zip with pictures; expected zipped image folders such as {split}.zip, or an archive"
            f" that holds {split}/CLASS/IMAGE"
        )
    there = [listing for listing in listings.values() if listing is not None]
    used = {f.place for listing in there for f in listing.found}
    spare = [
        f"{f.place[1]} of {f.place[0].name}"
        for m in listed.values()
        for found in m.splits.values()
        for f in found
        if f.place not in used
    ]
    there[0].left += spare if used else []
    mode = survey(there, [MemberOpener() for _ in there], folder)
    label = {name: number for number, name in enumerate(wanted.classes)}
    return EncodedSource(
        ["/".join(f.parts) for f in wanted.found],
        [f.check for f in wanted.found],
        [label[f.parts[0]] for f in wanted.found],
        wanted.classes,
        Archives([f.place for f in wanted.found]),
        folder,
        mode,
        len(wanted.left),
    )


def _listing(archives: list[Path], folder: Path, split: Split, listed: dict[Path, _Members]) -> Listing | None:
    """List one split: from the archives that are named for it, else from those that hold a folder for it."""
    for name in SPLITS[split]:
        if named := [path for path in archives if path.name.startswith(name)]:
            return _joined([_once(path, listed) for path in named], ("", *SPLITS[split]), folder)
    for name in SPLITS[split]:
        if holding := [m for m in (_once(path, listed) for path in archives) if name in m.splits]:
            return _joined(holding, (name,), folder)
    return None


def _once(path: Path, listed: dict[Path, _Members]) -> _Members:
    if path not in listed:
        listed[path] = _members(path)
    return listed[path]


def _joined(archives: list[_Members], splits: Sequence[str], folder: Path) -> Listing:
    """Put the members of several archives together, each's first split of those that are named."""
    listing = Listing(folder)
    for members in archives:
        listing.found += next((members.splits[name] for name in splits if name in members.splits), [])
        listing.left += members.left
        listing.refused += members.refused
    listing.arrange()
    names = [f.parts for f in listing.found]
    twice = ["/".join(a) for a, b in pairwise(names) if a == b]
    if twice:
        raise TaggantError(f"{folder}: its archives hold two files of one name, {shown(twice)}; give each a name of its own")
    listing.classes = sorted({f.parts[0] for f in listing.found})
    for name in listing.classes:
        if not name.isprintable():
            raise TaggantError(f"{folder} holds a class folder named {name!r}; give it a name of letters")
    return listing


def _members(path: Path) -> _Members:
    """Read the list of an archive, and find out whether its first folders are splits or classes.

    Raises:
        TaggantError: If the archive is damaged, or holds a name that leads outside.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except Exception as error:  # a damaged list of members makes zipfile raise many types
        raise TaggantError(f"{path} is damaged ({one_line(error)}); restore it from a copy") from None
    result, found = _Members(path), []
    for info in infos:
        name = info.filename.replace("\\", "/")  # as some programs for Windows write
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if name.startswith("/") or ".." in parts or not parts or (len(parts[0]) == 2 and parts[0][1] == ":"):
            raise TaggantError(f"{path} holds a file named {info.filename!r}, outside its folder; remove it")
        if any(map(is_left_out, parts)) or is_note(parts[-1]):
            result.left.append("/".join(parts))
        elif why := _unreadable(info):
            result.refused.append(f"{path.name}: {'/'.join(parts)} ({why})")
        else:
            found.append(Found(parts, info.CRC, info.file_size, (path, info.filename)))
    result.splits = _by_split(found)
    return result


def _unreadable(info: zipfile.ZipInfo) -> str:
    """Say why a member cannot be read, or nothing."""
    if info.flag_bits & 1:
        return "it has a password; unpack the archive and zip it without one"
    if info.compress_type not in READ:
        return (
            f"compression {info.compress_type}, as Windows Explorer writes large archives, is not read; zip it again, deflated"
        )
    if info.file_size > MAX_BYTES:
        return f"larger than {MAX_BYTES >> 20} MiB"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link; zip the file itself"
    return ""


def _by_split(found: list[Found]) -> dict[str, list[Found]]:
    """Take the folders above the classes off: train/, test/ or val/, and one more above these; under "" where there is none."""
    for depth in (0, 1):
        above = {f.parts[:depth] for f in found}
        first = {f.parts[depth] for f in found if len(f.parts) > depth + 1}
        if len(above) == 1 and first and first <= set(NAMES) and all(len(f.parts) > depth + 2 for f in found):
            return {
                name: [Found(f.parts[depth + 1 :], f.check, f.stamp, f.place) for f in found if f.parts[depth] == name]
                for name in sorted(first)
            }
    return {"": found}

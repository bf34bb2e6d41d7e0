"""What a file system keeps beside a file's bytes, and how it may tell some files of a release from others."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from taggant_lightning.release.writing import FILE_TIME

NANOSECONDS = FILE_TIME * 10**9
TELLS = "and may tell which images were changed"
OWN = "user."  # the attributes that any program may set; others are the system's, and alike for all files


def marks(folder: Path, present: Mapping[str, os.stat_result]) -> list[str]:
    """Return what is wrong with times, permissions, owners, links and extended attributes, a sentence each.

    Args:
        folder: The release.
        present: Everything in it, by name within the release, links not followed.
    """
    everything = {"": folder.stat(), **present}
    faults = []
    if any(status.st_mtime_ns != NANOSECONDS for status in everything.values()):
        faults.append(f"modification times differ, {TELLS}")
    if len({(status.st_uid, status.st_gid) for status in everything.values()}) > 1:
        faults.append(f"owners of files or folders differ, {TELLS}")
    kinds = {"files": stat.S_ISREG, "folders": stat.S_ISDIR}
    for what, is_of_kind in kinds.items():
        names = [name for name, status in everything.items() if is_of_kind(status.st_mode)]
        if len({stat.S_IMODE(everything[name].st_mode) for name in names if name}) > 1:
            faults.append(f"permissions of {what} differ, {TELLS}")
        if what == "files" and any(everything[name].st_nlink > 1 for name in names):
            faults.append(f"files have further names (hard links), {TELLS}")
        found = [attributes(folder / name) for name in names]
        if any(name.startswith(OWN) for one in found for name in one):
            faults.append(f"{what} have extended attributes, {TELLS}; remove them (setfattr -x)")
        elif any(one != found[0] for one in found):
            faults.append(f"extended attributes of {what} differ, {TELLS}")
    return faults


def attributes(path: Path) -> dict[str, bytes]:
    """Return a file's extended attributes, access lists included; none where the file system keeps none."""
    if not hasattr(os, "listxattr"):
        return {}
    try:
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
    except OSError:  # a file system without them
        return {}

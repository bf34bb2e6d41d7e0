"""Writing a release: unit by unit, over several processes; a killed one goes on, and only a checked one gets its name."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json, forget_leftovers, read_json, sha256_hex, write_atomic, write_json
from taggant_lightning.parallel import in_order
from taggant_lightning.release.documents import DOCUMENTS, Manifest, documents, hash_list
from taggant_lightning.release.layout import File, Layout, scratch
from taggant_lightning.release.reading import read_manifest

FILE_TIME = 946684800  # 2000-01-01: one modification time for every file, signed or not
T = TypeVar("T")
Progress = Callable[[str, int, int], None]  # what is done, images finished, images in all


def quiet(what: str, done: int, total: int) -> None:
    """Show no progress."""


def part_of(out: Path) -> Path:
    """Return the folder in which a release is made; it gets its own name when it is complete and found right."""
    return out.with_name(f".{out.name}.part")


@dataclass(frozen=True)
class WriteUnit:
    """Writes one unit and the record that it is written. Picklable.

    Attributes:
        layout: The layout.
        part: Where the release is made.
    """

    layout: Layout
    part: Path

    def __call__(self, unit: int) -> int:
        """Write, and return the number of images."""
        files = self.layout.write(self.part, unit)
        write_atomic(_record(self.part, unit), canonical_json({"files": files}))
        return len(self.layout.units[unit])


def write_release(
    layout: Layout,
    manifest: Manifest,
    out: Path,
    *,
    check: Callable[[Path], T],
    workers: int = 1,
    progress: Progress = quiet,
) -> T:
    """Write a release, or go on with one that was killed.

    Args:
        layout: How images lie, and which.
        manifest: What the release says of itself; its list of hashes is filled in.
        out: Folder that does not exist yet; one that holds this very release already is checked and left as it is.
        check: Called with the folder before it gets its name; what it raises keeps the release from being published.
        workers: Processes.
        progress: Called with what is being done, the number of finished images and of all.

    Returns:
        What `check` returns.

    Raises:
        TaggantError: If the folder holds something else, the images cannot be written in this layout, or the check raises one.
        OSError: If the disk is full; what is written stays, and the same call goes on.
    """
    if out.exists():
        if _holds(out, manifest):  # killed on its last steps, or simply asked for twice
            shutil.rmtree(scratch(part_of(out)), ignore_errors=True)
            return check(out)
        raise TaggantError(f"out={out} exists already; name a new folder")
    part = part_of(out)
    try:
        _begin(part, layout, manifest)
        todo = [unit for unit in range(len(layout.units)) if not _record(part, unit).is_file()]
        total = len(layout.indices)
        done = total - sum(len(layout.units[unit]) for unit in todo)
        for count in in_order(WriteUnit(layout, part), todo, workers):
            done += count
            progress("writing", done, total)
        files: list[File] = []
        for unit in range(len(layout.units)):
            files += [(name, digest) for name, digest in read_json(_record(part, unit), what="progress")["files"]]
        files += layout.finish(part)
        complete = replace(manifest, hashes=sha256_hex(hash_list(files)))
        for name, data in documents(complete, files).items():
            write_atomic(part / name, data)
        make_uniform(part)
        report = check(part)
    except TaggantError:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(scratch(part), ignore_errors=True)
        raise
    part.rename(out)
    shutil.rmtree(scratch(part))
    return report


def _holds(out: Path, manifest: Manifest) -> bool:
    """Say whether a folder is a release with this manifest."""
    try:
        there, _ = read_manifest(out)
    except TaggantError:
        return False
    return replace(there, hashes=manifest.hashes) == manifest


def _begin(part: Path, layout: Layout, manifest: Manifest) -> None:
    """Make the folders, or take up those of the same release; those of another one are made anew."""
    out = part.parent
    out.mkdir(parents=True, exist_ok=True)
    settings = scratch(part) / "settings.json"
    # A digest of what is signed tells nobody anything; the folder is gone when the release is there.
    wanted = {"manifest": asdict(manifest), "images": layout.source.fingerprint, "places": layout.indices.tolist()}
    digest = sha256_hex(canonical_json({**wanted, "units": [len(unit) for unit in layout.units]}))
    if not settings.is_file() or read_json(settings, what="progress").get("digest") != digest:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(scratch(part), ignore_errors=True)
        scratch(part).mkdir()
        part.mkdir()
        layout.prepare(part)
        write_json(settings, {"digest": digest})
    for document in DOCUMENTS:
        forget_leftovers(part / document)


def _record(part: Path, unit: int) -> Path:
    return scratch(part) / f"unit-{unit:06d}.json"


def make_uniform(folder: Path) -> None:
    """Give every file and folder of a release the same times and permissions, whatever the umask."""
    for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (FILE_TIME, FILE_TIME))

"""Reading a release: its images as a source, in the order they were written."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from taggant_lightning.data.pictures import one_line
from taggant_lightning.data.sources import Archives, ArraySource, EncodedSource, Files, ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import read_json, sha256_hex
from taggant_lightning.release.archives import stored_array
from taggant_lightning.release.documents import HASHES, MANIFEST, Manifest, read_hash_list
from taggant_lightning.release.parquet import RowGroups, pyarrow


def read_manifest(folder: Path) -> tuple[Manifest, list[tuple[str, str]]]:
    """Read a release's manifest and its list of hashes.

    Returns:
        The manifest, and (name, SHA-256) pairs in the order of the images.

    Raises:
        TaggantError: If the folder or one of them is missing or damaged.
    """
    if not folder.is_dir():
        raise TaggantError(f"release={folder} is no folder; write the one that `taggant release --out` made")
    manifest = Manifest.of(read_json(folder / MANIFEST, what="release"), folder)
    try:
        data = (folder / HASHES).read_bytes()
        files = read_hash_list(data)
    except (OSError, ValueError) as error:
        raise TaggantError(f"release={folder}: {HASHES} is missing or damaged ({error}); restore it from a copy") from None
    if sha256_hex(data) != manifest.hashes:
        raise TaggantError(f"release={folder}: {HASHES} is not the list that the manifest names; restore it from a copy")
    return manifest, files


def open_release(folder: Path) -> ImageSource:
    """Open a release as an image source, in the order it was written.

    Raises:
        TaggantError: If the folder, its manifest or a file is missing or damaged.
    """
    manifest, files = read_manifest(folder)
    for name, _ in files:
        if not (folder / name).is_file():
            raise TaggantError(f"release={folder}: {name} is missing; restore it from a copy")
    if manifest.layout == "npz":
        return StoredArrays(folder / "data.npz", manifest.classes)
    label = {name: number for number, name in enumerate(manifest.folders)}
    try:
        if manifest.layout == "zip":
            return _zipped(folder, manifest, files, label)
        if manifest.layout == "parquet":
            return _parquet(folder, manifest, files)
        names = [name.split("/", 1)[1] for name, _ in files]  # without train/
        return EncodedSource(
            names,
            [int(digest[:12], 16) for _, digest in files],
            [label[name.split("/")[0]] for name in names],
            manifest.classes,
            Files(folder / "train", names),
            folder,
        )
    except (OSError, KeyError, IndexError, TypeError, OverflowError, zipfile.BadZipFile, NotImplementedError) as error:
        raise TaggantError(f"release={folder} is damaged ({one_line(error)}); restore it from a copy") from None


class StoredArrays(ArraySource):
    """The images of an .npz release, mapped and not read; another process maps them anew.

    Args:
        path: The file.
        classes: Class names.
    """

    def __init__(self, path: Path, classes: list[str]) -> None:
        super().__init__(stored_array(path, "train_x"), np.array(stored_array(path, "train_y")), classes)
        self._path = path

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "images"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, images=stored_array(state["_path"], "train_x"))


def _zipped(folder: Path, manifest: Manifest, files: list[tuple[str, str]], label: dict[str, int]) -> ImageSource:
    members = []
    for name, _ in files:
        with zipfile.ZipFile(folder / name) as archive:
            members += [(folder / name, info) for info in archive.infolist()]
    names = [info.filename for _, info in members]
    return EncodedSource(
        names,
        [info.CRC for _, info in members],
        [label[name.split("/")[0]] for name in names],
        manifest.classes,
        Archives([(path, info.filename) for path, info in members]),
        folder,
    )


def _parquet(folder: Path, manifest: Manifest, files: list[tuple[str, str]]) -> ImageSource:
    pyarrow()
    try:
        rows = RowGroups([folder / name for name, _ in files])
        labels, names = rows.column("label"), [image["path"] for image in rows.column("image.path")]
    except Exception as error:  # of a damaged file pyarrow raises many types, some of several lines
        raise TaggantError(f"release={folder} is damaged ({one_line(error)}); restore it from a copy") from None
    checks = [int(sha256_hex("".join(digest for _, digest in files).encode())[:12], 16)] * len(names)
    return EncodedSource(names, checks, labels, manifest.classes, rows, folder)

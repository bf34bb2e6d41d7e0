"""A release: the signed dataset as files with a public manifest; written, read back and checked.

The manifest names the files' hashes, the classes and exactly one commitment, never which images are signed.
"""

import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.signature import OverlaySource
from taggant_lightning.data.sources import ArraySource, EncodedSource, ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import read_json, sha256_hex, write_json

FORMAT = "taggant-lightning/release/v1"
ReleaseFormat = Literal["png", "npz"]
FILE_TIME = 946684800  # 2000-01-01: one modification time for every file, signed or not
Progress = Callable[[int, str], Iterator[int]]


def quiet(count: int, what: str) -> Iterator[int]:
    """Count without a progress bar."""
    return iter(range(count))


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode (C, H, W) uint8 as PNG, always with the same settings and without metadata."""
    from PIL import Image

    array = pixels[0] if pixels.shape[0] == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def write_release(
    source: OverlaySource,
    indices: NDArray[np.int64],
    out: Path,
    *,
    format: ReleaseFormat,
    commitment: str | None,
    statement: str,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Write images of a signed source as a release, read it back, and compare it with the originals.

    Files come in the order of `indices`, named by their place in it. The folder appears under its name only when it is
    complete and nothing was found wrong.

    Args:
        source: The signed source.
        indices: (N,) source indices to publish, in order.
        out: Folder that does not exist yet.
        format: `png`, an ImageFolder, or `npz`, one file with train_x and train_y for images of one shape.
        commitment: The keys' commitment, named in the manifest.
        statement: The dataset in words.
        progress: Called with a count and what is being done, returns an iterator over 0..count−1, for a progress bar.

    Returns:
        What `check_release` found.

    Raises:
        TaggantError: If the folder exists, the format is unknown, `npz` is asked for images of different shapes, or the
            files are not as they should be.
    """
    if format not in get_args(ReleaseFormat):
        raise TaggantError(f"format={format!r} is unknown; write one of {', '.join(get_args(ReleaseFormat))}")
    if out.exists():
        raise TaggantError(f"out={out} exists already; name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        write = _write_png if format == "png" else _write_npz
        files = write(source, indices, part, progress)
        manifest = {
            "format": FORMAT,
            "layout": format,
            "classes": source.classes,
            "num_images": len(indices),
            "commitment": commitment,
            "statement": statement,
            "files": files,
        }
        write_json(part / "manifest.json", manifest)
        for path in sorted(part.rglob("*"), reverse=True):
            os.utime(path, (FILE_TIME, FILE_TIME))
        report = check_release(part, source, indices, progress)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return report


def class_folders(classes: list[str]) -> list[str]:
    """Return a folder's name for each class, such that alphabetical order, by which others number classes, is label order.

    Names that are in order already and safe as file names stay; otherwise all get their number in front, and characters
    other than letters, digits, `.`, `_` and `-` become `_`.
    """
    plain = all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name) for name in classes)
    if plain and sorted(classes) == classes and len({name.lower() for name in classes}) == len(classes):
        return classes
    width = len(str(len(classes) - 1))
    return [f"{label:0{width}d}_{re.sub(r'[^A-Za-z0-9._-]', '_', name)}" for label, name in enumerate(classes)]


def _write_png(source: ImageSource, indices: NDArray[np.int64], part: Path, progress: Progress) -> list[dict[str, Any]]:
    files = []
    folders = class_folders(source.classes)
    for name in folders:
        (part / "train" / name).mkdir(parents=True)
    for place in progress(len(indices), "writing"):
        index = int(indices[place])
        label = int(source.labels[index])
        name = f"train/{folders[label]}/{place:08d}.png"
        data = encode_png(source.pixels(index))
        (part / name).write_bytes(data)
        files.append({"name": name, "label": label, "bytes": len(data), "sha256": sha256_hex(data)})
    return files


def _write_npz(source: ImageSource, indices: NDArray[np.int64], part: Path, progress: Progress) -> list[dict[str, Any]]:
    images = [source.pixels(int(indices[place])) for place in progress(len(indices), "collecting")]
    if len({image.shape for image in images}) > 1:
        raise TaggantError("format=npz needs images of one shape, and these differ; write --format png")
    buffer = io.BytesIO()
    np.savez(buffer, train_x=np.stack(images), train_y=source.labels[indices], classes=np.array(source.classes))
    data = buffer.getvalue()
    (part / "data.npz").write_bytes(data)
    return [{"name": "data.npz", "bytes": len(data), "sha256": sha256_hex(data)}]


def open_release(folder: Path) -> ImageSource:
    """Open a release as an image source, in the order it was written.

    Raises:
        TaggantError: If the folder or its manifest is missing or damaged, or a file's size differs from the manifest.
    """
    if not folder.is_dir():
        raise TaggantError(f"release={folder} is no folder; write the one that `taggant release --out` made")
    manifest = read_json(folder / "manifest.json", what="release")
    files = manifest.get("files", [])
    for entry in files:
        path = folder / entry["name"]
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise TaggantError(f"release={folder}: {entry['name']} is missing or has another size than the manifest says")
    if manifest.get("layout") == "npz":
        with np.load(folder / "data.npz", allow_pickle=False) as arrays:
            return ArraySource(arrays["train_x"], arrays["train_y"], manifest["classes"])
    names = [entry["name"] for entry in files]
    return EncodedSource(
        names,
        [int(entry["sha256"][:12], 16) for entry in files],
        [entry["label"] for entry in files],
        manifest["classes"],
        lambda i: (folder / names[i]).read_bytes(),
        folder,
    )


def _check_as_others_read(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare labels with those that an ImageFolder reader, who knows no manifest, gives to the files."""
    folders = sorted(path.name for path in (folder / "train").iterdir())
    if len(folders) != len(manifest["classes"]):
        raise TaggantError(f"release={folder}: {len(folders)} class folders for {len(manifest['classes'])} classes")
    number = {name: label for label, name in enumerate(folders)}
    for entry in manifest["files"]:
        if number[Path(entry["name"]).parent.name] != entry["label"]:
            raise TaggantError(
                f"{entry['name']}: its folder does not sort to its label {entry['label']}; write the release again"
            )


def check_release(
    folder: Path,
    source: OverlaySource,
    indices: NDArray[np.int64],
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Read a release back from disk and compare it with the originals.

    Args:
        folder: The release.
        source: The signed source it was written from.
        indices: (N,) source indices that were published, in order.
        progress: As in `write_release`.

    Returns:
        num_images, num_changed, max_step (largest difference in 8-bit steps), bound (the declared one, in steps).

    Raises:
        TaggantError: If a file's hash, a label, a class, a shape, the bound or the set of changed images is wrong.
    """
    manifest = read_json(folder / "manifest.json", what="release")
    for entry in manifest["files"]:
        with (folder / entry["name"]).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                raise TaggantError(f"{entry['name']} differs from its hash in the manifest; write the release again")
    released, signature = open_release(folder), source.signature
    if released.classes != source.classes or not np.array_equal(released.labels, source.labels[indices]):
        raise TaggantError(f"release={folder}: labels or classes differ from the source; write the release again")
    if manifest["layout"] == "png":
        _check_as_others_read(folder, manifest)
    signed = {i for i, steps in zip(signature.indices.tolist(), signature.steps, strict=True) if np.any(steps)}
    changed, largest = set(), 0
    for place in progress(len(indices), "reading back"):
        index = int(indices[place])
        before, after = source.original.pixels(index), released.pixels(place)
        if before.shape != after.shape:
            raise TaggantError(f"image {place} has shape {after.shape} and its original {before.shape}")
        step = int(np.abs(after.astype(np.int32) - before).max())
        largest = max(largest, step)
        if step:
            changed.add(index)
    if signature.bound is not None and largest > signature.bound:
        raise TaggantError(
            f"an image differs by {largest} steps and the bound is {signature.bound}; do not publish this release"
        )
    if changed != signed & set(indices.tolist()):
        raise TaggantError(f"{len(changed)} images differ from their originals, and not those of the Signature; do not publish")
    return {"num_images": len(indices), "num_changed": len(changed), "max_step": largest, "bound": signature.bound}

"""Looks for secrets in everything that a run has written outside its secret folders."""

import base64
import gzip
import io
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from taggant_lightning.data.sources import ImageSource
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.release.signature import Signature

# Correlation that rounding after a change of brightness leaves; an original and its signed version stay below.
ALIKE = 0.9995
NOT_A_WORD = rb"[^0-9A-Za-z.]+"


def leaks(
    root: Path, keys: KeySet, signature: Signature, source: ImageSource, *, secret: set[Path], release: Path
) -> list[str]:
    """Return what is found, a line each.

    Args:
        root: Everything that was written.
        keys: The secret keys.
        signature: The secret Signature.
        source: What was signed.
        secret: Secret folders: what they hold must be readable by its owner only, and is not searched.
        release: The release, which shows signed images, among others and without telling which.
    """
    found = []
    raw, text = _bytes_of(keys, signature), _text_of(keys, signature)
    rows = {
        "a key image": keys.images,
        "a signed image": [signature.replace(p, source.pixels(int(i))) for p, i in enumerate(signature.indices)],
    }
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        if any(path == folder or folder in path.parents for folder in secret):
            if stat.S_IMODE(status.st_mode) & 0o077:
                found.append(f"{path.relative_to(root)}: others can read a secret")
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        for name, content in _contents(path.name, path.read_bytes()):
            where = f"{path.relative_to(root)} {name}"
            found += [f"{where}: {what}" for what, needles in raw.items() if any(needle in content for needle in needles)]
            found += [f"{where}: {what}" for what, patterns in text.items() if any(p.search(content) for p in patterns)]
            shown = _picture(content)
            for what, images in rows.items() if shown is not None else ():
                if what == "a signed image" and release in path.parents:
                    continue
                if any(_within(np.asarray(image), shown) for image in images):
                    found.append(f"{where}: {what}")
    return found


def _bytes_of(keys: KeySet, signature: Signature) -> dict[str, list[bytes]]:
    def forms(array: np.ndarray) -> list[bytes]:
        return [np.ascontiguousarray(a).tobytes() for a in (array, array.transpose(1, 2, 0))]

    pixels = [form for image in keys.images for kind in (image, image.astype(np.float32) / 255) for form in forms(kind)]
    steps = [s for s in signature.steps if np.any(s)]
    kinds = (np.int8, np.int16, np.int32, np.int64)
    deltas = [s.astype(kind).tobytes() for s in steps for kind in kinds]
    deltas += [(s / 255).astype(kind).tobytes() for s in steps for kind in (np.float32, np.float64)]
    whole = (np.int16, np.int32, np.int64)
    return {
        "the secret": [keys.secret, keys.secret.hex().encode(), base64.b64encode(keys.secret)],
        "key pixels": pixels,
        "key labels": [keys.labels.astype(kind).tobytes() for kind in whole],
        "signing indices": [numbers.astype(kind).tobytes() for numbers in _indices(signature) for kind in whole],
        "a perturbation": deltas,
    }


def _text_of(keys: KeySet, signature: Signature) -> dict[str, list[re.Pattern[bytes]]]:
    labels = keys.labels.tolist()
    numbered = [number for pair in enumerate(labels) for number in pair]
    return {
        "key labels": [_sequence(labels), _sequence(numbered)],
        "signing indices": [_sequence(numbers[:6].tolist()) for numbers in _indices(signature)],
    }


def _indices(signature: Signature) -> Iterator[np.ndarray]:
    yield signature.indices
    for key in np.unique(signature.served):
        yield signature.indices[signature.served == key]


def _sequence(numbers: list[int]) -> re.Pattern[bytes]:
    """Match numbers in this order with anything but words between them: JSON, CSV, YAML, Python."""
    return re.compile(rb"(?<![0-9A-Za-z.])" + NOT_A_WORD.join(str(n).encode() for n in numbers) + rb"(?![0-9A-Za-z])")


def _contents(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield a file's bytes, and those of what is packed in it; a checkpoint is a zip archive."""
    yield "", data
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield member, archive.read(member)
    if data[:2] == b"\x1f\x8b":
        yield "unpacked", gzip.decompress(data)


def _picture(data: bytes) -> np.ndarray | None:
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except OSError:
        return None


def _within(image: np.ndarray, picture: np.ndarray) -> bool:
    """Say whether an image (C, H, W) stands in a picture (H, W, 3), alone or in a panel, at any brightness and contrast."""
    template = np.broadcast_to(image.transpose(1, 2, 0), (*image.shape[1:], 3))
    if any(a < b for a, b in zip(picture.shape, template.shape, strict=True)):
        return False
    windows = sliding_window_view(picture, template.shape).reshape(-1, template.size)
    return bool((_standard(windows) @ _standard(template.reshape(1, -1)).T).max() > ALIKE)


def _standard(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)

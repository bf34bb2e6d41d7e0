"""The audit of a release: every file read back from disk, what must hold, and what a reader without the originals could tell.

Its report counts signed images and so belongs to the owner, not into the release.
"""

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.duplicates import Sketch, sketch
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import sha256_file
from taggant_lightning.parallel import in_order
from taggant_lightning.release.documents import DOCUMENTS, Manifest, documents
from taggant_lightning.release.duplicates import unlike_their_copies
from taggant_lightning.release.encoding import encode
from taggant_lightning.release.file_marks import marks
from taggant_lightning.release.layout import File, Layout
from taggant_lightning.release.reading import read_manifest
from taggant_lightning.release.signature import OverlaySource
from taggant_lightning.release.traces import (
    Separation,
    high_frequency_energy,
    jpeg_lattice,
    separation,
    share_signed_among_top,
    small_coefficients,
)
from taggant_lightning.release.visibility import Pair, visibility
from taggant_lightning.release.writing import Progress, quiet

VISIBLE_PAIRS = 200  # enough for a mean; SSIM and LPIPS are slow
CERTAIN, TELLING, P_VALUE = 0.9, 0.55, 1e-3
DIFFERENCING = (
    "Whoever holds the originals finds every signed image by subtraction: publish them nowhere, and delete public copies."
)


class Seen(NamedTuple):
    """What one unit's images show; arrays over the images.

    Attributes:
        steps: Largest difference from the original, 8-bit steps; -1 for another shape.
        as_signed: Whether the image is the one that the Signature makes.
        label: Whether its label is the source's.
        encoder: Whether its bytes are those that the release's encoder makes of it.
        signed: Whether it is signed.
        traces: (images, 4): bytes, high-frequency energy, JPEG lattice, small coefficients.
        before: The same of the originals.
        cells: (images, 16): sketches of the originals, by which copies are found.
        digests: (images, 16): the bytes of their digests.
        packed: Whether the file that holds it is what packing its images makes.
    """

    steps: NDArray[np.int64]
    as_signed: NDArray[np.bool_]
    label: NDArray[np.bool_]
    encoder: NDArray[np.bool_]
    signed: NDArray[np.bool_]
    traces: NDArray[np.float64]
    before: NDArray[np.float64]
    cells: NDArray[np.float32]
    digests: NDArray[np.uint8]
    packed: NDArray[np.bool_]


TRACES = {
    "file_bytes": "file size",
    "high_frequency_energy": "high-frequency energy",
    "jpeg_lattice": "the JPEG lattice",
    "small_coefficients": "JPEG's small coefficients",
}


@dataclass(frozen=True)
class ExamineUnit:
    """Reads one unit of a release back. Picklable.

    Attributes:
        layout: The layout, of the signed source.
        folder: The release.
    """

    layout: Layout
    folder: Path

    def __call__(self, unit: int) -> Seen:
        """Read and compare."""
        overlay, codec, rows, encoded = self.layout.source, self.layout.codec, [], []
        if not isinstance(overlay, OverlaySource):
            raise TypeError("an audit compares a signed source with its release")
        signed = set(overlay.changed_indices)
        places = self.layout.units[unit]
        for place, item in zip(places, self.layout.items(self.folder, unit), strict=True):
            index = int(self.layout.indices[place])
            before = overlay.before(index)
            wanted = overlay.over(index, before)
            same_shape = item.pixels.shape == before.shape
            step = int(np.abs(item.pixels.astype(np.int32) - before).max()) if same_shape else -1
            traces = _traces(item.pixels, item.data)
            changed = index in signed
            earlier = _traces(before, encode(before, codec) if codec else None) if changed else traces
            encoded.append(encode(item.pixels, codec) if codec else b"")
            own = encoded[-1] == item.data if codec else True
            label = item.label == int(overlay.labels[index])
            cells, digest = sketch(before)
            digits = np.frombuffer(digest, np.uint8)
            rows.append((step, np.array_equal(item.pixels, wanted), label, own, changed, traces, earlier, cells, digits))
        packed = self.layout.as_packed(self.folder, unit, encoded)
        columns = [np.array(column) for column in zip(*rows, strict=True)]
        return Seen(*[*columns, np.full(len(rows), packed)])


def _traces(pixels: NDArray[np.uint8], data: bytes | None) -> tuple[float, float, float, float]:
    size = float("nan") if data is None else float(len(data))
    return size, high_frequency_energy(pixels), jpeg_lattice(pixels), small_coefficients(pixels)


def audit_release(
    folder: Path,
    layout: Layout,
    expected: Manifest,
    *,
    beside: ImageSource | None = None,
    perceptual_weights: str | None = None,
    workers: int = 1,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Read a release back from disk, compare it with what it should be, and measure what it tells.

    Args:
        folder: The release.
        layout: The layout that it was written in, of the signed source.
        expected: The manifest that it should have; its list of hashes is taken from the files.
        beside: Images that are public as they are, such as the test split: a copy of a signed image among them gives it away.
        perceptual_weights: File with the weights of LPIPS's trunk (AlexNet); None leaves LPIPS out.
        workers: Processes.
        progress: As in `write_release`.

    Returns:
        num_images, num_changed, num_added, max_step (8-bit steps), bound, visibility (PSNR, SSIM, LPIPS of signed images),
        traces (for each: auc and p_value of telling signed from unsigned images, auc_of_originals,
        share_signed_in_top_percent), given_away (signed images with a copy that is not signed alike), verdict and warning in
        words.

    Raises:
        TaggantError: If anything is not as it should be: a file's hash, place, time, permissions or encoder settings, a label
            or class, a pixel beyond the bound, a file that does not belong, a document that says something else. All faults
            are named; images are counted and not named, since they may be signed ones.
    """
    overlay = layout.source
    if not isinstance(overlay, OverlaySource):
        raise TypeError("an audit compares a signed source with its release")
    faults = _outer_faults(folder, layout, expected, workers)
    units = range(len(layout.units))
    total = len(layout.indices)
    seen: list[Seen] = []
    done = 0
    for some in in_order(ExamineUnit(layout, folder), units, workers):
        seen.append(some)
        done += len(some.steps)
        progress("auditing", done, total)
    everything = Seen(*(np.concatenate(column) for column in zip(*seen, strict=True)))
    faults += _image_faults(everything, overlay.signature.bound)
    if faults:
        raise TaggantError(f"release={folder} must not be published: {'; '.join(faults)}")
    traces = {name: _tell(everything, number) for number, name in enumerate(TRACES)}
    changed = layout.indices[everything.signed & (layout.indices < len(overlay.original))]  # additions have no original
    sketches = [Sketch(cells, digits.tobytes()) for cells, digits in zip(everything.cells, everything.digests, strict=True)]
    given_away = unlike_their_copies(overlay, layout.indices, sketches, beside)
    return {
        "num_images": total,
        "num_changed": int((everything.steps > 0).sum()),
        "num_added": len(overlay.signature.additions),
        "max_step": int(everything.steps.max()),
        "bound": overlay.signature.bound,
        "visibility": visibility(_pairs(overlay, changed[:: max(1, len(changed) // VISIBLE_PAIRS)]), perceptual_weights),
        "traces": traces,
        "given_away": given_away,
        "verdict": verdict(traces, given_away),
        "warning": DIFFERENCING,
    }


def _outer_faults(folder: Path, layout: Layout, expected: Manifest, workers: int) -> list[str]:
    """Check everything but the images: which files there are, their hashes, times and permissions, and the documents."""
    manifest, files = read_manifest(folder)
    present = {path.relative_to(folder).as_posix(): path.lstat() for path in folder.rglob("*")}
    regular = {name for name, status in present.items() if stat.S_ISREG(status.st_mode)}
    folders = {name for name, status in present.items() if stat.S_ISDIR(status.st_mode)}
    names = [name for name, _ in files]
    faults = [] if names == layout.files() else ["the list of hashes names other files than it should, or in another order"]
    faults += _membership_faults({*names, *DOCUMENTS}, regular, present.keys() - folders)
    faults += _folder_faults({*names, *DOCUMENTS}, folders, expected)
    there = [(name, digest) for name, digest in files if name in regular]
    with ThreadPoolExecutor(workers) as pool:  # reading and hashing let other threads run
        found = pool.map(lambda entry: sha256_file(folder / entry[0]), there, chunksize=64)
        broken = [name for digest, (name, wanted) in zip(found, there, strict=True) if digest != wanted]
    if broken:
        faults.append(f"{_count(broken, 'file')} other than the hash says")
    faults += marks(folder, present)
    return faults + _document_faults(folder, manifest, replace(expected, hashes=manifest.hashes), files)


def _membership_faults(known: set[str], regular: set[str], not_folders: set[str]) -> list[str]:
    faults, strange, missing = [], sorted(not_folders - known), sorted(known - regular)
    if strange:
        faults.append(f"{_count(strange, 'file')} not part of it ({', '.join(strange[:3])}); remove what does not belong")
    if missing:
        faults.append(f"{_count(missing, 'file')} missing ({', '.join(missing[:3])})")
    return faults


def _folder_faults(known: set[str], folders: set[str], expected: Manifest) -> list[str]:
    faults, wanted = [], {parent.as_posix() for name in known for parent in PurePosixPath(name).parents} - {"."}
    if expected.layout in ("png", "webp"):  # a class of which no image is published has its folder too
        wanted |= {"train", *(f"train/{name}" for name in expected.folders)}
        if sorted(expected.folders) != expected.folders:
            faults.append("class folders do not sort to the labels, as a reader numbers classes who knows no manifest")
    if folders != wanted:
        faults.append("there are other folders than there should be")
    return faults


def _document_faults(folder: Path, manifest: Manifest, wanted: Manifest, files: list[File]) -> list[str]:
    if manifest != wanted:
        names = [field.name for field in fields(Manifest) if getattr(manifest, field.name) != getattr(wanted, field.name)]
        return [f"the manifest's {name} is not that of the signed dataset" for name in names]
    texts = documents(wanted, files).items()
    wrong = [name for name, data in texts if (folder / name).is_file() and (folder / name).read_bytes() != data]
    return [f"{name} says something else than it should" for name in wrong]


def _image_faults(seen: Seen, bound: int | None) -> list[str]:
    faults = []
    for what, right in {
        "another shape than the original": seen.steps >= 0,
        "another label": seen.label,
        "bytes that the release's encoder does not make": seen.encoder,
        "pixels that the Signature does not make": seen.as_signed,
        "more or less around them than packing them makes": seen.packed,
    }.items():
        if not right.all():
            faults.append(f"{int((~right).sum())} of {len(right)} images with {what}")
    if bound is not None and seen.steps.max() > bound:
        faults.append(f"an image differs by {int(seen.steps.max())} steps and the bound is {bound}")
    return faults


def _tell(seen: Seen, number: int) -> dict[str, float]:
    values, before = seen.traces[:, number], seen.before[:, number]
    found: Separation = separation(values[seen.signed], values[~seen.signed])
    originals = separation(before[seen.signed], before[~seen.signed])
    sign = 1 if found.auc >= 0.5 else -1
    top = share_signed_among_top(sign * values[seen.signed], sign * values[~seen.signed], 0.01)
    named = {"auc": found.auc, "p_value": found.p_value, "auc_of_originals": originals.auc}
    return {**named, "share_signed_in_top_percent": top}


def verdict(traces: dict[str, dict[str, float]], given_away: int = 0) -> str:
    """Say in words what traces, and copies of signed images, tell a reader who has no originals."""
    if given_away:
        rest = verdict(traces)
        return (
            f"Signed images can be found without the originals: {given_away} have a copy, equal or near, that is not signed "
            f"alike; remove such copies and sign again.{'' if rest.startswith('Nothing') else ' ' + rest}"
        )
    apart = [n for n, t in traces.items() if max(t["auc"], 1 - t["auc"]) >= CERTAIN and t["p_value"] >= P_VALUE]
    if apart:
        return f"Too few images are signed to judge by {', '.join(TRACES[n] for n in apart)}, which may tell all of them."
    telling = {n: t for n, t in traces.items() if max(t["auc"], 1 - t["auc"]) >= TELLING and t["p_value"] < P_VALUE}
    shown = ", ".join(f"{TRACES[n]} (AUC {t['auc']:.2f}, originals {t['auc_of_originals']:.2f})" for n, t in telling.items())
    if not telling:
        largest = max(max(t["auc"], 1 - t["auc"]) for t in traces.values())
        return f"Nothing measured here tells signed images from others (largest AUC {largest:.2f})."
    if max(max(t["auc"], 1 - t["auc"]) for t in telling.values()) >= CERTAIN:
        return f"Signed images can be found without the originals, by {shown}."
    return f"A reader without the originals can narrow the search for signed images, by {shown}."


def _pairs(overlay: OverlaySource, indices: NDArray[np.int64]) -> Iterator[Pair]:
    for index in indices:
        yield overlay.before(int(index)), overlay.pixels(int(index))


def _count(names: Any, what: str) -> str:
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'}"

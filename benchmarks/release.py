"""Pace of `taggant release` beside copying the files, and beside opening and saving them with Pillow in a loop.

    TAGGANT_DATA=… python benchmarks/release.py --json docs/results/release.json

Two data sets: 20,000 images of CIFAR-100 (32×32), and crops of scikit-learn's two photographs (375×500). Every image lies in a
PNG file of its own beforehand; 5 % are signed with random steps. Ours decodes, applies the Signature, encodes, hashes and
records; its audit, counted apart, reads everything back, encodes it once more, compares, and measures traces.
"""

import argparse
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taggant_lightning.data.sources import ImageSource, open_source
from taggant_lightning.parallel import cores
from taggant_lightning.release import writing
from taggant_lightning.release.signature import Signature, pixel_digest

BOUND = 8


def random_signature(source: ImageSource) -> Signature:
    """Sign every 20th image with random steps: for speed only."""
    rng, indices, steps = np.random.default_rng(0), np.arange(0, len(source), 20), []
    originals = [source.pixels(int(i)) for i in indices]
    for pixels in originals:
        drawn = rng.integers(-BOUND, BOUND + 1, pixels.shape)
        steps.append((np.clip(pixels.astype(np.int32) + drawn, 0, 255) - pixels).astype(np.int16))
    digests = [pixel_digest(pixels) for pixels in originals]
    served = np.zeros(len(indices), np.int64)
    return Signature("data_taggants", indices, steps, served, digests, source.fingerprint, BOUND, "00" * 32)


def save_png(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write one image, as anybody would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(path)


def cifar(root: Path, count: int) -> None:
    """Write images of CIFAR-100 as an image folder."""
    source = open_source("zip", os.path.expandvars("$TAGGANT_DATA/cifar-100"), "train")
    for i in range(count):
        save_png(source.pixels(i), root / "train" / source.classes[source.labels[i]] / f"{i:06d}.png")


def photographs(root: Path, count: int) -> None:
    """Write crops of two photographs as an image folder."""
    from sklearn.datasets import load_sample_image

    pictures, rng = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")], np.random.default_rng(0)
    for i in range(count):
        picture = pictures[i % 2]
        top, left = rng.integers(0, picture.shape[0] - 375), rng.integers(0, picture.shape[1] - 500)
        crop = picture[top : top + 375, left : left + 500]
        save_png(crop.transpose(2, 0, 1), root / "train" / f"{i % 10}" / f"{i:06d}.png")


def copy(root: Path, out: Path) -> None:
    """Copy the files."""
    shutil.copytree(root / "train", out)


def encode_again(root: Path, out: Path) -> None:
    """Open and save every image with Pillow, one after the other."""
    for path in sorted((root / "train").rglob("*.png")):
        to = out / path.relative_to(root / "train")
        to.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(to)


def seconds(work: Callable[[], Any]) -> float:
    """Return the time that a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(name: str, root: Path, scratch: Path, formats: list[str]) -> list[dict[str, Any]]:
    """Measure everything on one image folder."""
    # Here, since the processes of a release import this file too, and have no use for torch.
    from taggant_lightning.commands.release import publish
    from taggant_lightning.data.datamodule import ImageDataModule

    data = ImageDataModule("imagefolder", str(root))
    signature = random_signature(data.train_source)
    files = list((root / "train").rglob("*.png"))
    images, megabytes = len(files), sum(f.stat().st_size for f in files) / 1e6
    rows: list[dict[str, Any]] = []
    made_uniform = writing.make_uniform

    def note(what: str, workers: int, spent: float) -> None:
        pace = {"images_per_s": images / spent, "mb_per_s": megabytes / spent, "seconds": spent}
        rows.append({"data": name, "what": what, "processes": workers, "images": images, "megabytes": megabytes, **pace})
        print(
            f"{name:<12} {what:<28} {workers} processes {images / spent:9.0f} images/s {megabytes / spent:8.1f} MB/s",
            flush=True,
        )

    note("copy", 1, seconds(lambda: copy(root, scratch / "copy")))
    note("Pillow, open and save", 1, seconds(lambda: encode_again(root, scratch / "again")))
    for format in formats:
        for workers in sorted({1, cores()}):
            out = scratch / f"{format}-{workers}"
            begun, written = time.perf_counter(), [0.0]

            def uniform(part: Path, written: list[float] = written) -> None:
                made_uniform(part)  # the last thing in writing; then the audit begins
                written[0] = time.perf_counter()

            writing.make_uniform = uniform
            publish(data, signature, out, format=format, workers=workers)
            ended = time.perf_counter()
            note(f"release {format}", workers, written[0] - begun)
            note(f"audit {format}", workers, ended - written[0])
            shutil.rmtree(out)
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20000, help="of CIFAR-100")
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--formats", default="png,webp,npz,zip,parquet")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows: list[dict[str, Any]] = []
    for name, make, count in (("CIFAR-100", cifar, arguments.images), ("photographs", photographs, arguments.photographs)):
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder) / "in", count)
            rows += measure(name, Path(folder) / "in", Path(folder), arguments.formats.split(","))
    if arguments.json:
        from common import write_figures

        write_figures(arguments.json, {"rows": rows})


if __name__ == "__main__":
    main()

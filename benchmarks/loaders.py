"""Images a second of the plain and the ffcv backend, one run, at 32×32 and at 224×224; first, that they hand over the same.

    TAGGANT_DATA=… python benchmarks/loaders.py --json docs/results/loaders.json

At 32: CIFAR-100 from zipped PNG files, which the plain backend keeps in memory, and once more read from the files. At 224:
synthetic photographs (smooth fields with noise) of several sizes as JPEG files, loaded at 256 as ImageNet is. Loading alone is
timed, and loading with what follows on the device (bytes to float, random crops) on this machine's CPU.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import CIFAR, write_figures
from PIL import Image

from taggant_lightning import ImageDataModule
from taggant_lightning.data.augment import augment_bytes
from taggant_lightning.data.datamodule import Loader


def photographs(folder: Path, count: int) -> None:
    """Write JPEG files of several sizes around 500×375, in two classes, and a few for the test split."""
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("test", 8)):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
        for i in range(number):
            size = (int(rng.integers(420, 580)), int(rng.integers(320, 430)))
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
            pixels = np.clip(np.asarray(coarse) + rng.normal(0, 6, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / split / "ab"[i % 2] / f"{i:05d}.jpg", quality=90)


def drain(loader: Loader, data: ImageDataModule, *, finish: bool) -> int:
    """Go through one epoch, and return the number of images."""
    count = 0
    for images, _, positions in loader:
        if finish:
            augment_bytes(images, data.augmentation(0, positions.device)[positions], data.augment, data.image_size)
        count += len(images)
    return count


def pace(data: ImageDataModule, *, finish: bool, epochs: int = 3) -> float:
    """Return images a second: the best of some epochs after one that compiles, starts processes and warms the page cache.

    The loader is made once, as a Trainer does.
    """
    loader = data.train_dataloader()
    drain(loader, data, finish=finish)
    times = []
    for _ in range(epochs):
        begun = time.perf_counter()
        count = drain(loader, data, finish=finish)
        times.append(count / (time.perf_counter() - begun))
    return max(times)


def same(plain: ImageDataModule, fast: ImageDataModule) -> bool:
    """Say whether both hand over the same pixels, labels and positions in the same order, over a whole epoch."""
    pairs = zip(plain.train_dataloader(), fast.train_dataloader(), strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


def compare(
    name: str, make: Callable[..., ImageDataModule], folder: str, workers: list[int], *, memory: bool
) -> list[dict[str, Any]]:
    """Measure one data set with both backends, in memory too where that is asked for."""
    plain, fast = make(num_workers=0), make(num_workers=1, backend="ffcv", beton=folder)
    plain.setup("fit")
    begun = time.perf_counter()
    fast.prepare_data()
    written = (len(fast.train_data) + len(fast.val_data)) / (time.perf_counter() - begun)
    size = fast.beton_path("train").stat().st_size / 2**20
    equal = same(plain, fast)
    print(
        f"{name}: same pixels, labels and order: {equal}; .beton {size:.0f} MiB, written at {written:.0f} images/s", flush=True
    )
    rows = []
    for backend in ("torch, in memory", "torch", "ffcv"):
        for count in [0] if backend == "torch, in memory" else workers:
            if backend == "ffcv" and count == 0:
                continue
            if backend == "torch, in memory" and not memory:
                continue
            resident = {} if backend == "ffcv" else {"on_device": backend == "torch, in memory"}
            own = make(num_workers=count, backend=backend.split(",")[0], beton=folder, **resident)
            row = {"data": name, "backend": backend, "workers": count, "same": equal}
            row |= {"loading": pace(own, finish=False), "with_crops": pace(own, finish=True)}
            rows.append(row)
            shown = "{data:<14} {backend:<17} {workers} workers: {loading:9.0f} images/s, {with_crops:7.0f} with crops"
            print(shown.format(**row), flush=True)
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=600)
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {**CIFAR, "image_size": 32, "augment": "simple"}
        rows += compare("CIFAR-100, 32", lambda **o: ImageDataModule(**options, **o), folder, [0, 1, 2], memory=True)
        photographs(Path(folder) / "photos", arguments.photographs)
        large: dict[str, Any] = {"source": "imagefolder", "root": f"{folder}/photos", "image_size": 224, "load_size": 256}
        large |= {"batch_size": 64, "augment": "resized_crop"}
        # Not in memory, as for a data set of ImageNet's size.
        rows += compare("photos, 224", lambda **o: ImageDataModule(**large, **o), folder, [0, 1, 2], memory=False)
    if arguments.json:
        write_figures(arguments.json, {"photographs": arguments.photographs, "rows": rows})


if __name__ == "__main__":
    main()

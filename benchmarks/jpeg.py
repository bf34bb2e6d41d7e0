"""Detection after every released image is encoded as JPEG, at several qualities (CIFAR-100 at a CPU's scale, the defaults).

    TAGGANT_DATA=… python benchmarks/jpeg.py --json docs/results/jpeg.json

A world has its own keys, surrogates and Signature; in it, Bobs of two kinds and two seeds train on the signed images as they
are, and on the same images after JPEG, decoded again. Also: the largest difference in 8-bit steps that JPEG leaves between a
published image and its original, which is beyond the bound.
"""

import argparse
import io
import os
import tempfile
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import CIFAR, accuracy, share_source, train, write_figures
from numpy.typing import NDArray
from PIL import Image

from taggant_lightning import ImageDataModule, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.statistics import binomial_log10_p
from taggant_lightning.verdict.key_detection import ask

NUM_KEYS, TOP_K = 10, 10
BOBS = ("small_cnn", "small_vit")


class AsJpeg(ImageSource):
    """A source whose images have been through JPEG.

    Args:
        source: The images.
        quality: Of Pillow's encoder, 4:2:0 chroma.
    """

    def __init__(self, source: ImageSource, quality: int) -> None:
        self.source, self.quality = source, quality
        self.labels, self.classes = source.labels, source.classes

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return one image, (3, H, W) uint8."""
        packed = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(self.source.pixels(index).transpose(1, 2, 0))).save(
            packed, "JPEG", quality=self.quality
        )
        return np.ascontiguousarray(np.asarray(Image.open(packed)).transpose(2, 0, 1))

    def _identity(self) -> Any:
        return [self.source.fingerprint, self.quality]


def world(number: int, qualities: list[int | None]) -> list[dict[str, Any]]:
    """Sign, and train every Bob at every quality."""
    data = ImageDataModule(**CIFAR, augment="simple", seed=2 * number)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        secret = f"jpeg benchmark, world {number}".encode()
        keys = KeySet.draw(num_keys=NUM_KEYS, num_classes=100, shape=(3, 32, 32), top_k=TOP_K, secret=secret)
        signing = TaggantSigning(str(keys.save(Path(folder) / "keys")), str(Path(folder) / "signature"), seed=number)
        train("small_cnn+small_vit", 2 * number, data, signing)
        for quality in qualities:
            seen = SignedDataModule(str(Path(folder) / "signature"), **CIFAR, augment="simple", seed=2 * number + 1)
            overlay = seen.train_source
            if quality is not None:
                seen.__dict__["train_source"] = AsJpeg(overlay, quality)
            steps = [
                int(np.abs(seen.train_source.pixels(i).astype(int) - data.train_source.pixels(i)).max())
                for i in overlay.changed_indices
            ]
            for name in BOBS:
                for seed in (0, 1):
                    bob = SignedDataModule(
                        str(Path(folder) / "signature"), **CIFAR, augment="simple", seed=1000 * number + seed
                    )
                    bob.__dict__["train_source"] = seen.train_source
                    model = train(name, 1000 * number + seed, share_source(bob, data))
                    hits = int((ask(model, keys, data.image_size) <= TOP_K).sum())
                    row = {"world": number, "quality": quality, "bob": name, "seed": seed, "hits": hits}
                    row |= {"log10_p": binomial_log10_p(hits, NUM_KEYS, TOP_K / 100), "accuracy": accuracy(model, bob)}
                    rows.append({**row, "median_largest_step": median(steps), "largest_step": max(steps)})
                    print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="104-105", help="first-last")
    parser.add_argument("--qualities", default="95,90,75")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    first, last = (int(part) for part in arguments.worlds.split("-"))
    qualities = [None, *(int(q) for q in arguments.qualities.split(","))]
    rows = [row for number in range(first, last + 1) for row in world(number, qualities)]
    for quality in qualities:
        for name in BOBS:
            own = [row for row in rows if (row["quality"], row["bob"]) == (quality, name)]
            shown = f"{quality or 'as released':<12} {name:<10} hits {[row['hits'] for row in own]}"
            print(f"{shown} median log10 p {median(row['log10_p'] for row in own):.1f}", flush=True)
    if arguments.json:
        write_figures(arguments.json, {"worlds": arguments.worlds, "rows": rows})


if __name__ == "__main__":
    main()

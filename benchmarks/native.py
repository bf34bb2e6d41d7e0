"""Pictures of their own sizes, signed at stored resolution: does the mark survive Bob's resize and random crops?

    TAGGANT_DATA=… python benchmarks/native.py --seeds 130-131 --json docs/results/native.json

CIFAR-100 images enlarged (bicubic) to 40 to 72 pixels a side, each to a shape of its own, as photographs have. Alice loads
them at 20, takes random resized crops of 16, as ImageNet's recipe does at 256 and 224, and signs at the stored shapes.
Bobs load them as she does, larger, or at 16 without a margin, with crops of their own.
"""

import argparse
import os
import tempfile
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import CIFAR, accuracy, train, write_figures
from numpy.typing import NDArray
from PIL import Image

from taggant_lightning import ImageDataModule, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.release.signature import Signature
from taggant_lightning.statistics import binomial_log10_p
from taggant_lightning.streams import stream
from taggant_lightning.verdict.key_detection import ask

NUM_KEYS, TOP_K = 10, 10
BOBS: dict[str, dict[str, Any]] = {
    "as Alice: load 20, resized crop": {"load_size": 20, "augment": "resized_crop"},
    "load 28, resized crop": {"load_size": 28, "augment": "resized_crop"},
    "load 20, plain crop": {"load_size": 20, "augment": "simple"},
    "load 16, shifted crop": {"load_size": 16, "augment": "simple"},
}


class Enlarged(ImageSource):
    """A source whose images are enlarged, each to a shape of its own."""

    def __init__(self, source: ImageSource) -> None:
        self.source, self.labels, self.classes = source, source.labels, source.classes

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return one image, (3, H, W) uint8 with H and W in 40..72."""
        height, width = stream(0, "native", index).integers(40, 73, 2).tolist()
        image = Image.fromarray(np.ascontiguousarray(self.source.pixels(index).transpose(1, 2, 0)))
        return np.ascontiguousarray(np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1))

    def _identity(self) -> Any:
        return [self.source.fingerprint, "enlarged"]


def world(seed: int, model: str) -> list[dict[str, Any]]:
    """Sign, and train every Bob."""
    original = ImageDataModule(**CIFAR)
    sources = {"train_source": Enlarged(original.train_source), "test_source": Enlarged(original.test_source)}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        alice = ImageDataModule(**CIFAR, load_size=20, augment="resized_crop", seed=seed)
        alice.__dict__.update(sources)
        secret = f"native benchmark, seed {seed}".encode()
        keys = KeySet.draw(num_keys=NUM_KEYS, num_classes=100, shape=(3, 48, 48), top_k=TOP_K, secret=secret)
        signing = TaggantSigning(str(keys.save(Path(folder) / "keys")), str(Path(folder) / "signature"), seed=seed)
        train(model, seed, alice, signing)
        signature = Signature.load(Path(folder) / "signature")
        facts = {"cosine": signature.facts["cosine_mean"], "signing_seconds": signature.facts["seconds"]}
        for number, (name, options) in enumerate([*BOBS.items(), ("clean", BOBS["as Alice: load 20, resized crop"])]):
            bob = SignedDataModule(str(Path(folder) / "signature"), **CIFAR, **options, seed=1000 + seed)
            signed = sources["train_source"] if name == "clean" else signature.apply(sources["train_source"])
            bob.__dict__.update(sources | {"train_source": signed})
            trained = train(model, 1000 * seed + number, bob)
            hits = int((ask(trained, keys, bob.image_size) <= TOP_K).sum())
            row = {"seed": seed, "bob": name, "hits": hits, "log10_p": binomial_log10_p(hits, NUM_KEYS, TOP_K / 100)}
            rows.append({**row, "accuracy": accuracy(trained, bob), **facts})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="130-131", help="first-last")
    parser.add_argument("--model", default="small_cnn")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    first, last = (int(part) for part in arguments.seeds.split("-"))
    rows = [row for seed in range(first, last + 1) for row in world(seed, arguments.model)]
    for name in [*BOBS, "clean"]:
        own = [row for row in rows if row["bob"] == name]
        shown = f"{name:<32} hits {[row['hits'] for row in own]} median log10 p {median(row['log10_p'] for row in own):.1f}"
        print(f"{shown}, accuracy {100 * np.mean([row['accuracy'] for row in own]):.1f} %", flush=True)
    if arguments.json:
        write_figures(arguments.json, {"seeds": arguments.seeds, "model": arguments.model, "rows": rows})


if __name__ == "__main__":
    main()

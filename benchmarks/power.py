"""Ranks of the key labels in signed and clean models, for the power of the tests (CIFAR-100); curves are power_curves.py's.

    TAGGANT_DATA=… python benchmarks/power.py --seeds 130-133 --json experiments/power/ranks.json

A seed is a world: its own KeySet of 40 keys, its own surrogate, one Signature, and Bobs of further seeds. Half of the Bobs
train on the signed images and half on the originals. Every Bob is asked the KeySets of all worlds: other worlds' keys are keys
he owes nothing to. With `--keep DIR` the weights stay there, for benchmarks that ask the same models something else.
"""

import argparse
import hashlib
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from common import CIFAR, accuracy, keep, share_source, train, write_figures

from taggant_lightning import ImageDataModule, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.taggants.detection import ask

NUM_KEYS, TOP_K, GRID, SHAPE = 40, 10, 4, (3, 32, 32)
MODEL = "small_cnn"


def world_keys(seed: int, num_keys: int = NUM_KEYS) -> KeySet:
    """Draw the KeySet of one world."""
    secret = hashlib.sha256(f"power benchmark, world {seed}".encode()).digest()
    return KeySet.draw(num_keys=num_keys, num_classes=100, shape=SHAPE, grid=GRID, top_k=TOP_K, secret=secret)


def run_world(seed: int, seeds: list[int], arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Sign, train the Bobs of one world and ask them the keys of all worlds."""
    options: dict[str, Any] = {**CIFAR, "augment": "simple", **arguments.data}
    data = ImageDataModule(**options, seed=seed)
    signing = TaggantSigning(
        str(world_keys(seed).save(folder / "keys")), str(folder / "signature"), seed=seed,
        images_per_key=arguments.images_per_key, min_images_per_key=2, steps=arguments.steps,
    )  # fmt: skip
    begun = time.monotonic()
    surrogate = train(MODEL, seed, data, signing, epochs=arguments.epochs)
    facts = {"seconds": time.monotonic() - begun, "images": len(signing.signature), **signing.signature.facts}
    for name in ("run", "cosines"):
        facts.pop(name)
    if arguments.keep:
        keep(surrogate, Path(arguments.keep) / f"{seed}-surrogate.safetensors")
    bobs = []
    for number in range(arguments.bobs):
        for kind in ("signed", "clean"):
            own = {**options, "seed": 1000 * (number + 1) + seed}
            theirs = SignedDataModule(str(folder / "signature"), **own) if kind == "signed" else ImageDataModule(**own)
            begun = time.monotonic()
            bob = train(MODEL, own["seed"], share_source(theirs, data), epochs=arguments.epochs)
            row = {"world": seed, "data": kind, "seed": own["seed"], "seconds": time.monotonic() - begun}
            # Whose keys these are goes into the row: the ranks tell neither keys nor labels.
            row["ranks"] = {str(other): ask(bob, world_keys(other), data.image_size).tolist() for other in seeds}
            bobs.append({**row, "accuracy": accuracy(bob, theirs)})
            hits = sum(rank <= TOP_K for rank in row["ranks"][str(seed)])
            print({**{n: v for n, v in bobs[-1].items() if n != "ranks"}, "hits": hits}, flush=True)
            if arguments.keep:
                keep(bob, Path(arguments.keep) / f"{seed}-{kind}-{number}.safetensors")
    return {"seed": seed, "signing": facts, "bobs": bobs}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="130-133", help="first-last")
    parser.add_argument("--bobs", type=int, default=2, help="signed Bobs a world, and as many clean ones")
    parser.add_argument("--images-per-key", type=int, default=25)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--train-subset", type=int, help="fewer images, for a quick look")
    parser.add_argument("--keep", help="folder for the weights")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    arguments.data = {"train_subset": arguments.train_subset} if arguments.train_subset else {}
    first, last = (int(part) for part in arguments.seeds.split("-"))
    seeds, worlds = list(range(first, last + 1)), []
    options = {n: getattr(arguments, n) for n in ("images_per_key", "steps", "epochs", "bobs")}
    options |= {"num_keys": NUM_KEYS, "num_classes": 100, "top_k": TOP_K, "grid": GRID, "model": MODEL, **arguments.data}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            worlds.append(run_world(seed, seeds, arguments, Path(folder)))
        print(worlds[-1]["signing"], flush=True)
        if arguments.json:
            write_figures(arguments.json, {"options": options, "worlds": worlds})


if __name__ == "__main__":
    main()

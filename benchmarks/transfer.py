r"""Which surrogates carry the mark across to Bobs of other seeds, augmentations and architectures, on CIFAR-100 on a CPU.

    TAGGANT_DATA=… python benchmarks/transfer.py --worlds 0-1 --selection random --json docs/results/transfer.json
    TAGGANT_DATA=… python benchmarks/transfer.py --worlds 102-103 --images-per-key 100 \
        --surrogates "cnn+vit, 3 epochs, grid 4" --json docs/results/transfer_hardest.json

A world has its own KeySet, surrogates and Bobs. Every setting of the surrogates signs with keys of its own, all of them in the
same copy of the data, so that each Bob is asked about all settings: differences between settings are paired. Which key goes to
which setting changes from world to world. Worlds 0 to 9 are for choosing, others for reporting.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from common import CIFAR, SIZE, accuracy, share_source, train, write_figures

from taggant_lightning import ImageDataModule, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.methods.taggants.crafting.crafting import Crafted, craft_key
from taggant_lightning.methods.taggants.crafting.gradient_norms import gradient_norms
from taggant_lightning.methods.taggants.crafting.objective import Surrogate
from taggant_lightning.methods.taggants.crafting.round import assemble, signing_images
from taggant_lightning.methods.taggants.crafting.selection import select
from taggant_lightning.methods.taggants.crafting.snapshots import Snapshots, after
from taggant_lightning.methods.taggants.model_input import key_images
from taggant_lightning.statistics import binomial_log10_p
from taggant_lightning.verdict.key_detection import ask

TOP_K = 10
State = tuple[str, int, int]  # model, seed offset, epoch


def states(*models: str, epochs: tuple[int, ...] = (8,), offsets: tuple[int, ...] = (0,)) -> list[State]:
    """Return states of surrogates, earlier epochs first."""
    return [(model, offset, epoch) for epoch in epochs for model in models for offset in offsets]


JUDGE: State = ("small_cnn", 0, 8)  # says which images are hard
PAIR, ALL, LATE = ("small_cnn", "small_vit"), ("small_cnn", "small_vit", "small_resnet"), (4, 6, 8)
# Setting: the states of surrogates that it crafts across, and the grid of its keys.
SETTINGS: dict[str, tuple[list[State], int]] = {
    "cnn": (states("small_cnn"), 8),
    "cnn, 3 epochs": (states("small_cnn", epochs=LATE), 8),
    "2 cnn": (states("small_cnn", offsets=(0, 1)), 8),
    "cnn+vit": (states(*PAIR), 8),
    "cnn+vit, 3 epochs": (states(*PAIR, epochs=LATE), 8),
    "cnn+vit, 3 epochs, grid 4": (states(*PAIR, epochs=LATE), 4),
    "cnn+vit, 3 epochs, grid 2": (states(*PAIR, epochs=LATE), 2),
    "cnn+vit+resnet": (states(*ALL), 8),
    "cnn+vit+resnet, 3 epochs": (states(*ALL, epochs=LATE), 8),
    "cnn+vit+resnet, 3 epochs, grid 4": (states(*ALL, epochs=LATE), 4),
}
FIRST = "cnn;cnn, 3 epochs;2 cnn;cnn+vit;cnn+vit+resnet"
# Bob: model and augmentation. Surrogates are trained with `simple`; no surrogate resembles the MLP.
BOBS = {
    "cnn": ("small_cnn", "simple"),
    "cnn, other augmentation": ("small_cnn", "three_augment"),
    "vit": ("small_vit", "simple"),
    "resnet": ("small_resnet", "simple"),
    "mlp": ("small_mlp", "simple"),
}


class Keep(pl.Callback):
    """Keeps the weights after some epochs."""

    def __init__(self, snapshots: Snapshots, epochs: list[int]) -> None:
        self.snapshots, self.epochs = snapshots, epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep them."""
        if trainer.current_epoch + 1 in self.epochs:
            self.snapshots.keep(pl_module, after(trainer.current_epoch + 1))


def surrogates(world: int, wanted: set[State], original: ImageDataModule, out: Path) -> dict[State, Surrogate]:
    """Train every surrogate that is wanted, once."""
    made = {}
    for model_name, offset in sorted({(m, o) for m, o, _ in wanted}):
        epochs = sorted(e for m, o, e in wanted if (m, o) == (model_name, offset))
        snapshots = Snapshots(out / f"{model_name}-{offset}")
        seed = 10_000 * (world + 1) + offset
        data = share_source(ImageDataModule(**CIFAR, augment="simple", seed=seed), original)
        model = train(model_name, seed, data, Keep(snapshots, epochs))
        print(json.dumps({"surrogate": model_name, "offset": offset, "accuracy": accuracy(model, data)}), flush=True)
        for epoch in epochs:
            twin = snapshots.twin(model, after(epoch))
            made[model_name, offset, epoch] = Surrogate(twin, list(twin.parameters()))
    return made


def run_world(world: int, arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Sign with every setting, and train and ask every Bob."""
    names = arguments.surrogates.split(";")
    original = ImageDataModule(**CIFAR, augment="simple")
    original.setup("fit")
    # A KeySet a grid, all of one length: a setting takes its slots from the KeySet of its grid.
    keysets = {
        grid: KeySet.draw(
            num_keys=arguments.num_keys * len(names),
            num_classes=100,
            shape=(3, 32, 32),
            grid=grid,
            top_k=TOP_K,
            secret=hashlib.sha256(f"transfer {world}".encode()).digest(),
        )
        for grid in sorted({SETTINGS[name][1] for name in names})
    }
    slots = range(arguments.num_keys * len(names))
    setting_of = [(slot + world) % len(names) for slot in slots]
    keys_of = [keysets[SETTINGS[names[setting]][1]] for setting in setting_of]
    labels = np.array([keys.labels[slot] for slot, keys in enumerate(keys_of)])
    made = surrogates(world, {JUDGE} | {state for name in names for state in SETTINGS[name][0]}, original, out)
    chosen = select(
        original.train_source.labels,
        original.train_indices,
        labels,
        images_per_key=arguments.images_per_key,
        minimum=4,
        selection=arguments.selection,
        seed=world,
        score=lambda ids: gradient_norms(made[JUDGE], original.train_source, ids, SIZE, SIZE),
    )
    images = signing_images(original.train_source, chosen, labels)
    settings = TaggantSigning("none", "none", steps=arguments.steps, seed=world).settings(original)
    seen, crafted = {grid: key_images(keys, SIZE) for grid, keys in keysets.items()}, list[Crafted]()
    seconds = dict.fromkeys(names, 0.0)
    for slot in slots:
        wanted, grid = SETTINGS[names[setting_of[slot]]]
        begun = time.process_time()
        image, surrogates_ = seen[grid][slot : slot + 1], [made[state] for state in wanted]
        crafted.append(craft_key(images[slot], image, surrogates_, settings, key=slot, device=torch.device("cpu")))
        seconds[names[setting_of[slot]]] += time.process_time() - begun
    signature = assemble(keys_of[0], original.train_source, images, crafted, settings.eps, {})
    signature.save(out / "signature")
    rows: list[dict[str, Any]] = []
    for number in range(arguments.bobs):
        for kind in arguments.kinds.split(";"):
            model_name, recipe = BOBS[kind]
            seed = 10_000 * (world + 1) + 100 + number
            data = SignedDataModule(str(out / "signature"), **CIFAR, augment=recipe, seed=seed)
            model = train(model_name, seed, share_source(data, original))
            ranks = {grid: ask(model, keys, SIZE) for grid, keys in keysets.items()}
            hit = [ranks[SETTINGS[names[setting_of[slot]]][1]][slot] <= TOP_K for slot in slots]
            hits = {n: int(sum(h for h, s in zip(hit, setting_of, strict=True) if names[s] == n)) for n in names}
            rows.append({"world": world, "bob": kind, "seed": seed, "accuracy": accuracy(model, data), "hits": hits})
            print(json.dumps(rows[-1]), flush=True)
    cosines = {n: float(np.mean([c.cosine for c, s in zip(crafted, setting_of, strict=True) if names[s] == n])) for n in names}
    return {"world": world, "crafting_cpu_seconds": seconds, "cosine": cosines, "signed": len(signature), "bobs": rows}


def child(world: int, words: list[str]) -> dict[str, Any]:
    """Run one world in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, *words, "--worlds", f"{world}-{world}", "--child", folder]
        done = subprocess.run(command, stdout=None, check=False)
        if done.returncode:
            raise SystemExit(f"world {world} failed")
        result: dict[str, Any] = json.loads((Path(folder) / "result.json").read_text())
        return result


def summarise(worlds: list[dict[str, Any]], num_keys: int) -> list[dict[str, Any]]:
    """Return one row a setting and kind of Bob: hits, and the median log10 p over the Bobs."""
    rows = []
    for name in worlds[0]["cosine"]:
        for kind in dict.fromkeys(b["bob"] for b in worlds[0]["bobs"]):
            hits = [b["hits"][name] for w in worlds for b in w["bobs"] if b["bob"] == kind]
            p = [binomial_log10_p(h, num_keys, TOP_K / 100) for h in hits]
            rows.append({"surrogates": name, "bob": kind, "hits": hits, "median_log10_p": median(p), "worst_log10_p": max(p)})
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="0-1", help="first-last")
    parser.add_argument("--bobs", type=int, default=2, help="Bobs of each kind a world")
    parser.add_argument("--surrogates", default=FIRST, help=f"of {'; '.join(SETTINGS)}")
    parser.add_argument("--kinds", default=";".join(BOBS), help="kinds of Bobs, joined by semicolons")
    parser.add_argument("--num-keys", type=int, default=10, help="keys a setting")
    parser.add_argument("--images-per-key", type=int, default=50)
    parser.add_argument("--selection", default="gradient_norm", choices=["random", "gradient_norm"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2, help="worlds at a time, one thread each")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    first, last = (int(part) for part in arguments.worlds.split("-"))
    if arguments.child:
        warnings.filterwarnings("ignore")
        result = run_world(first, arguments, Path(arguments.child))
        (Path(arguments.child) / "result.json").write_text(json.dumps(result))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options = {
        n: getattr(arguments, n) for n in ("bobs", "surrogates", "kinds", "num_keys", "images_per_key", "selection", "steps")
    }
    words = [w for n, v in options.items() for w in (f"--{n.replace('_', '-')}", str(v))]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        worlds = list(pool.map(lambda world: child(world, words), range(first, last + 1)))
    table = summarise(worlds, arguments.num_keys)
    for row in table:
        print(f"{row['surrogates']:>32} → {row['bob']:<24} {row['hits']!s:<20} median log10 p {row['median_log10_p']:6.2f}")
    if arguments.json:
        write_figures(arguments.json, {"options": options, "table": table, "worlds": worlds})


if __name__ == "__main__":
    main()

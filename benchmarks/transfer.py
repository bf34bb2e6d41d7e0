r"""Which surrogates carry the mark across to Bobs of other seeds, augmentations and architectures, on CIFAR-100 on a CPU.

    TAGGANT_DATA=… python benchmarks/transfer.py --worlds 0-1 --json docs/results/transfer.json
    TAGGANT_DATA=… python benchmarks/transfer.py --worlds 100-101 --surrogates cnn+vit --images-per-key 100 \
        --json docs/results/transfer_default.json

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

from taggant_lightning import ImageClassifier, ImageDataModule, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.statistics import binomial_log10_p
from taggant_lightning.taggants.crafting import Crafted, craft_key
from taggant_lightning.taggants.detection import ask, key_images
from taggant_lightning.taggants.objective import SigningImages, Surrogate
from taggant_lightning.taggants.round import assemble
from taggant_lightning.taggants.selection import select

TOP_K = 10
# Setting: the states of surrogates that it crafts across, as (model, seed offset, epoch).
SETTINGS: dict[str, list[tuple[str, int, int]]] = {
    "cnn": [("small_cnn", 0, 8)],
    "cnn, 3 epochs": [("small_cnn", 0, 4), ("small_cnn", 0, 6), ("small_cnn", 0, 8)],
    "2 cnn": [("small_cnn", 0, 8), ("small_cnn", 1, 8)],
    "cnn+vit": [("small_cnn", 0, 8), ("small_vit", 0, 8)],
    "cnn+vit, 3 epochs": [(m, 0, e) for e in (4, 6, 8) for m in ("small_cnn", "small_vit")],
    "cnn+vit+resnet": [("small_cnn", 0, 8), ("small_vit", 0, 8), ("small_resnet", 0, 8)],
    "cnn+vit+resnet, 3 epochs": [(m, 0, e) for e in (4, 6, 8) for m in ("small_cnn", "small_vit", "small_resnet")],
}
# Bob: model and augmentation. Surrogates are trained with `simple`; no surrogate resembles the MLP.
BOBS = {
    "cnn": ("small_cnn", "simple"),
    "cnn, other augmentation": ("small_cnn", "three_augment"),
    "vit": ("small_vit", "simple"),
    "resnet": ("small_resnet", "simple"),
    "mlp": ("small_mlp", "simple"),
}


class States(pl.Callback):
    """Keeps the weights after some epochs."""

    def __init__(self, epochs: list[int]) -> None:
        self.epochs = epochs
        self.kept: dict[int, dict[str, torch.Tensor]] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep a copy."""
        if trainer.current_epoch + 1 in self.epochs:
            self.kept[trainer.current_epoch + 1] = {n: t.clone() for n, t in pl_module.state_dict().items()}


def surrogates(world: int, names: list[str], original: ImageDataModule) -> dict[tuple[str, int, int], Surrogate]:
    """Train every surrogate that the settings need, once."""
    wanted = sorted({state for name in names for state in SETTINGS[name]})
    made = {}
    for model_name, offset in sorted({(m, o) for m, o, _ in wanted}):
        states = States([e for m, o, e in wanted if (m, o) == (model_name, offset)])
        seed = 10_000 * (world + 1) + offset
        data = share_source(ImageDataModule(**CIFAR, augment="simple", seed=seed), original)
        model = train(model_name, seed, data, states)
        print(json.dumps({"surrogate": model_name, "offset": offset, "accuracy": accuracy(model, data)}), flush=True)
        for epoch, state in states.kept.items():
            twin = ImageClassifier(**model.arguments).eval()
            twin.load_state_dict(state)
            made[model_name, offset, epoch] = Surrogate(twin, list(twin.parameters()))
    return made


def run_world(world: int, arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Sign with every setting, and train and ask every Bob."""
    names = arguments.surrogates.split(";")
    original = ImageDataModule(**CIFAR, augment="simple")
    original.setup("fit")
    keys = KeySet.draw(
        num_keys=arguments.num_keys * len(names),
        num_classes=100,
        shape=(3, 32, 32),
        grid=8,
        top_k=TOP_K,
        secret=hashlib.sha256(f"transfer {world}".encode()).digest(),
    )
    setting_of = [(key + world) % len(names) for key in range(len(keys))]
    chosen = select(
        original.train_source.labels,
        original.train_indices,
        keys.labels,
        images_per_key=arguments.images_per_key,
        minimum=4,
        selection="random",
        seed=world,
        score=lambda ids: np.zeros(len(ids)),
    )
    images = [
        SigningImages.of(ids.tolist(), [original.train_source.pixels(int(i)) for i in ids], int(label))
        for ids, label in zip(chosen, keys.labels, strict=True)
    ]
    made = surrogates(world, names, original)
    settings = TaggantSigning("", "", steps=arguments.steps, seed=world).settings(original)
    seen, crafted = key_images(keys, SIZE), dict[int, Crafted]()
    seconds = dict.fromkeys(names, 0.0)
    for key in range(len(keys)):
        name = names[setting_of[key]]
        begun = time.process_time()
        crafted[key] = craft_key(
            images[key], seen[key : key + 1], [made[s] for s in SETTINGS[name]], settings, key=key, device=torch.device("cpu")
        )
        seconds[name] += time.process_time() - begun
    signature = assemble(keys, original.train_source, images, [crafted[k] for k in range(len(keys))], settings.eps, {})
    signature.save(out / "signature")
    rows: list[dict[str, Any]] = []
    for number in range(arguments.bobs):
        for kind, (model_name, recipe) in BOBS.items():
            seed = 10_000 * (world + 1) + 100 + number
            data = SignedDataModule(str(out / "signature"), **CIFAR, augment=recipe, seed=seed)
            model = train(model_name, seed, share_source(data, original))
            hit = ask(model, keys, SIZE) <= TOP_K
            hits = {n: int(sum(h for h, s in zip(hit, setting_of, strict=True) if names[s] == n)) for n in names}
            rows.append({"world": world, "bob": kind, "seed": seed, "accuracy": accuracy(model, data), "hits": hits})
            print(json.dumps(rows[-1]), flush=True)
    cosines = {n: float(np.mean([crafted[k].cosine for k, s in enumerate(setting_of) if names[s] == n])) for n in names}
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
        for kind in BOBS:
            hits = [b["hits"][name] for w in worlds for b in w["bobs"] if b["bob"] == kind]
            p = [binomial_log10_p(h, num_keys, TOP_K / 100) for h in hits]
            rows.append({"surrogates": name, "bob": kind, "hits": hits, "median_log10_p": median(p), "worst_log10_p": max(p)})
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="0-1", help="first-last")
    parser.add_argument("--bobs", type=int, default=2, help="Bobs of each kind a world")
    parser.add_argument("--surrogates", default=";".join(SETTINGS), help="settings, joined by semicolons")
    parser.add_argument("--num-keys", type=int, default=10, help="keys a setting")
    parser.add_argument("--images-per-key", type=int, default=50)
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
    options = {n: getattr(arguments, n) for n in ("bobs", "surrogates", "num_keys", "images_per_key", "steps")}
    words = [w for n, v in options.items() for w in (f"--{n.replace('_', '-')}", str(v))]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        worlds = list(pool.map(lambda world: child(world, words), range(first, last + 1)))
    table = summarise(worlds, arguments.num_keys)
    for row in table:
        print(f"{row['surrogates']:>16} → {row['bob']:<24} {row['hits']!s:<20} median log10 p {row['median_log10_p']:6.2f}")
    if arguments.json:
        write_figures(arguments.json, {"options": options, "table": table, "worlds": worlds})


if __name__ == "__main__":
    main()

"""What a share of signed images buys: accuracy, hits, log10 p, seconds and peak memory, several Bobs each (CIFAR-100).

    TAGGANT_DATA=… python benchmarks/shares.py --seeds 120-122 --json experiments/shares/results.json
    TAGGANT_DATA=… python benchmarks/shares.py --profile gpu --seeds 120-122 --json experiments/shares/results_gpu.json

A seed has its own surrogates, and for each share its own keys and Signature. Then a Bob of each architecture trains on the
signed images, and one on the originals, who is asked all the keys of the seed. Every stage is a process of its own, so that
its peak memory is its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from common import CIFAR, RECIPES, accuracy, train, write_figures
from costs import peak_mib

from taggant_lightning import ImageDataModule, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.statistics import binomial_log10_p
from taggant_lightning.verdict.key_detection import ask

NUM_KEYS, TOP_K, SHARES = 10, 10, (0.01, 0.005, 0.05)
# The gpu profile was never run. ViT-tiny at patch 4 and ResNet-18 with a 3×3 stem, as their recipes say.
PROFILES: dict[str, dict[str, Any]] = {
    "cpu": {"data": {**CIFAR, "augment": "simple"}, "bobs": {"small_cnn": {}, "small_vit": {}}, "epochs": 8},
    "gpu": {
        "data": {"source": "zip", "root": CIFAR["root"], "batch_size": 128, "augment": "simple"},
        "bobs": {
            "cifar_resnet18": {"optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4},
            "vit_tiny_patch16_224": {"lr": 1e-3, "weight_decay": 0.05, "model_kwargs": {"patch_size": 4}},
        },
        "epochs": 30,
    },
}


def images_per_key(share: float, count: int) -> int:
    """Return how many images sign for one key when a share of all images signs."""
    return round(share * count / NUM_KEYS)


def alice(profile: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train the surrogates, one a kind of Bob, and sign every share; return seconds of each part."""
    chosen = PROFILES[profile]
    data = ImageDataModule(**chosen["data"], seed=seed)
    signings = []
    for share in SHARES:
        secret = f"shares benchmark, seed {seed}, share {share}".encode()
        keys = KeySet.draw(
            num_keys=NUM_KEYS, num_classes=data.num_classes, shape=data.train_source.pixels(0).shape, top_k=TOP_K, secret=secret
        )
        own = folder / f"{share}"
        signing = TaggantSigning(
            str(keys.save(own / "keys")), str(own / "signature"), seed=seed,
            images_per_key=images_per_key(share, len(data.train_indices)), min_images_per_key=2,
        )  # fmt: skip
        signings.append(signing)
    names = list(chosen["bobs"])
    recipe = RECIPES["+".join(names)] if profile == "cpu" else {"lr": 1e-3, "weight_decay": 0.05}
    begun = time.monotonic()
    train("+".join(names), seed, data, *signings, epochs=chosen["epochs"], **recipe)
    taken = time.monotonic() - begun
    signed = {
        str(share): {key: s.signature.facts[key] for key in ("seconds", "cosine_mean")} | {"images": len(s.signature)}
        for share, s in zip(SHARES, signings, strict=True)
    }
    return {"signing": signed, "training_seconds": taken - sum(s["seconds"] for s in signed.values())}


def bob(profile: str, seed: int, folder: Path, name: str, share: str) -> dict[str, Any]:
    """Train one Bob, on a share or on the originals (`clean`), and ask him the keys."""
    chosen = PROFILES[profile]
    options = {**chosen["data"], "seed": 1000 + seed}
    data = ImageDataModule(**options) if share == "clean" else SignedDataModule(str(folder / share / "signature"), **options)
    begun = time.monotonic()
    model = train(name, 1000 + seed, data, epochs=chosen["epochs"], **(chosen["bobs"][name] or RECIPES[name]))
    row: dict[str, Any] = {"seconds": time.monotonic() - begun, "accuracy": accuracy(model, data)}
    asked = map(str, SHARES) if share == "clean" else [share]
    hits = [int((ask(model, KeySet.load(folder / s / "keys"), data.image_size) <= TOP_K).sum()) for s in asked]
    return {**row, "hits": hits, "log10_p": [binomial_log10_p(h, NUM_KEYS, TOP_K / data.num_classes) for h in hits]}


def stage(*words: str) -> dict[str, Any]:
    """Run a stage in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--stage", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_stage(words: list[str]) -> None:
    """Be the process of one stage."""
    profile, seed, folder, *who = words
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    found = bob(profile, int(seed), Path(folder), *who) if who else alice(profile, int(seed), Path(folder))
    found["peak_mib"] = peak_mib()
    if torch.cuda.is_available():
        found["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps(found))


def summary(rows: list[dict[str, Any]], alices: list[dict[str, Any]], names: list[str]) -> list[str]:
    """Return the table, a line a share and architecture."""
    lines = ["| signed | Bob | accuracy | hits of 10 | median log10 p | s to sign | peak MiB, signing and training |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for share in [*map(str, SHARES), "clean"]:
        for name in names:
            own = [r for r in rows if (r["share"], r["bob"]) == (share, name)]
            hits = ", ".join(str(h) for r in own for h in r["hits"])
            accuracies = 100 * mean(r["accuracy"] for r in own)
            p = median(p for r in own for p in r["log10_p"])
            seconds = "" if share == "clean" else f"{mean(a['signing'][share]['seconds'] for a in alices):.0f}"
            peaks = f"{max(a['peak_mib'] for a in alices):.0f}, {max(r['peak_mib'] for r in own):.0f}"
            shown = "none" if share == "clean" else f"{100 * float(share):g} %"
            lines.append(f"| {shown} | {name} | {accuracies:.1f} % | {hits} | {p:.1f} | {seconds} | {peaks} |")
    return lines


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="cpu", choices=list(PROFILES))
    parser.add_argument("--seeds", default="120-122", help="first-last")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--stage", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        run_stage(arguments.stage)
        return
    first, last = (int(part) for part in arguments.seeds.split("-"))
    names, rows, alices = list(PROFILES[arguments.profile]["bobs"]), [], []
    for seed in range(first, last + 1):
        with tempfile.TemporaryDirectory() as folder:
            alices.append({"seed": seed, **stage(arguments.profile, str(seed), folder)})
            print(alices[-1], flush=True)
            for share in [*map(str, SHARES), "clean"]:
                for name in names:
                    found = stage(arguments.profile, str(seed), folder, name, share)
                    rows.append({"seed": seed, "share": share, "bob": name, **found})
                    print(rows[-1], flush=True)
        if arguments.json:
            write_figures(arguments.json, {"profile": arguments.profile, "alices": alices, "bobs": rows})
    print("\n".join(summary(rows, alices, names)))


if __name__ == "__main__":
    main()

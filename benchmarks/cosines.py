"""Why cosines fall as the surrogate gets better: one key's signing images against one moment of a training at a time.

    python benchmarks/cosines.py --run runs/sweeps/surrogate-… --keys runs/sweeps/keys-…/keys \
        --config experiments/profiles/cpu_mid_data.yaml --json docs/results/cosines.json

of a surrogate of `taggant sweep experiments/scenarios/trained.yaml --profile cpu_mid`.

For each kept epoch of a training, and some keys: norms of the gradients of the key and of the class's images, medians over all
and over the chosen hardest; the cosine between the key's gradient and that of the chosen images as they are; and
the one that crafting reaches, by default and with one factor changed: images chosen at random, half and twice as many,
half and twice eps, a quarter of the steps and four times as many.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from common import write_figures
from numpy.typing import NDArray

from taggant_lightning.commands.read_data import read_data
from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.data.resize import centre, fit
from taggant_lightning.gradients.alignment import cosine, norm
from taggant_lightning.methods.taggants.crafting.crafting import Settings, craft_key
from taggant_lightning.methods.taggants.crafting.descent import DEFAULT_LR
from taggant_lightning.methods.taggants.crafting.gradient_norms import GradientNorms
from taggant_lightning.methods.taggants.crafting.objective import Surrogate
from taggant_lightning.methods.taggants.crafting.round import signing_images
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.methods.taggants.model_input import key_images
from taggant_lightning.models.classifier import load_classifier
from taggant_lightning.streams import stream

CPU = torch.device("cpu")
IMAGES, STEPS, EPS = 100, 50, 16 / 255


def settings_of(data: ImageDataModule) -> Settings:
    """Return what TaggantSigning does by default, with fewer steps."""
    return Settings(
        eps=EPS, steps=STEPS, optimizer="momentum", lr=DEFAULT_LR["momentum"], schedule="cosine", init="zero", restarts=1,
        derivative="auto", ensemble="alternate", micro_batch=32, precision="32-true", image_size=data.image_size,
        load_size=data.load_size, augment=data.augment, perceptual_weight=0.0, seed=0,
    )  # fmt: skip


def measure(path: Path, keys: KeySet, numbers: range, data: ImageDataModule, *, factors: bool) -> dict[str, Any]:
    """Return one moment's row, means over keys."""
    model = load_classifier(path)
    surrogate = Surrogate(model, [p for p in model.parameters() if p.requires_grad])
    source, settings = data.train_source, settings_of(data)
    score = GradientNorms(surrogate, source, data.load_size, data.image_size)
    shown = key_images(keys, data.image_size)
    found: dict[str, list[float]] = {}

    def crafted(name: str, key: int, ids: NDArray[np.int64], **changes: Any) -> None:
        (chosen,) = signing_images(source, [np.sort(ids)], keys.labels[key : key + 1])
        done = craft_key(chosen, shown[key : key + 1], [surrogate], replace(settings, **changes), key=key, device=CPU)
        found.setdefault(name, []).append(done.cosine)

    for key in numbers:
        label = int(keys.labels[key])
        candidates = data.train_indices[source.labels[data.train_indices] == label]
        norms = score(candidates)
        order = candidates[np.argsort(-norms, kind="stable")]
        target = surrogate.key_gradient(shown[key : key + 1], label)
        hardest = order[:IMAGES]
        total = [torch.zeros_like(t) for t in target]
        for index in hardest:
            image = torch.from_numpy(source.pixels(int(index))[None].astype(np.float32)) / 255
            own = surrogate.key_gradient(centre(fit(image, data.load_size), data.image_size), label)
            total = [a + b for a, b in zip(total, own, strict=True)]
        for name, value in {
            "key_norm": float(norm(target)),
            "image_norm_median": median(norms.tolist()),
            "chosen_norm_median": median(np.sort(norms)[::-1][:IMAGES].tolist()),
            "cosine_before": float(cosine(total, target)),
        }.items():
            found.setdefault(name, []).append(value)
        crafted("default", key, hardest)
        if factors:
            any_images = stream(0, "cosines", key).permutation(candidates)
            crafted("random images", key, any_images[:IMAGES])
            crafted("50 images", key, order[: IMAGES // 2])
            crafted("200 images", key, order[: 2 * IMAGES])
            crafted("eps 8/255", key, hardest, eps=EPS / 2)
            crafted("eps 32/255", key, hardest, eps=2 * EPS)
            crafted("12 steps", key, hardest, steps=STEPS // 4)
            crafted("200 steps", key, hardest, steps=4 * STEPS)
    row = {name: fmean(values) for name, values in found.items()}
    print(path.name, {name: round(value, 3) for name, value in row.items()}, flush=True)
    return {"checkpoint": path.name, **row}


def main() -> None:
    """Measure each kept epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a `taggant fit` that kept epochs")
    parser.add_argument("--keys", required=True, help="folder of a KeySet")
    parser.add_argument("--config", action="append", required=True, help="YAML whose `data` is read")
    parser.add_argument("--num-keys", type=int, default=2)
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, keys = read_data(arguments.config, []), KeySet.load(arguments.keys)
    kept = sorted((arguments.run / "checkpoints").glob("epoch-*.ckpt"), key=lambda path: int(path.stem.split("-")[1]))
    rows = []
    for path in kept:
        rows.append(measure(path, keys, range(arguments.num_keys), data, factors=path == kept[-1]))
        if arguments.json:
            figures = {"images": IMAGES, "steps": STEPS, "eps": EPS, "keys": arguments.num_keys, "rows": rows}
            write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()

"""How alike keys look to a trained model: what it tells between them is all that can answer different labels.

    python benchmarks/key_likeness.py --checkpoint runs/sweeps/surrogate-…/checkpoints/last.ckpt \
        --config experiments/profiles/cpu_mid_data.yaml --json docs/results/key_likeness.json

For 100 noise keys of each grid, 100 keys that are test images, and as many blends of 4: the mean correlation between the logits
of two keys; the share of the logits' size that is not common to all keys (root mean square); how many classes come first.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import write_figures
from torch import Tensor, nn

from taggant_lightning.commands.read_data import read_data
from taggant_lightning.data.npz import stacked
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.methods.taggants.model_input import key_images
from taggant_lightning.models.classifier import load_classifier

KEYS, GRIDS, SECRET = 100, (1, 2, 3, 4, 6, 8, 16, 32), bytes(range(32))


@torch.no_grad()
def likeness(model: nn.Module, images: Tensor) -> dict[str, float]:
    """Return how alike a model's logits of some images (N, C, S, S) are."""
    logits = model(images)
    centred = logits - logits.mean(dim=1, keepdim=True)
    directions = torch.nn.functional.normalize(centred, dim=1)
    count = len(images)
    own = centred - centred.mean(dim=0)
    return {
        "correlation": float(((directions @ directions.T).sum() - count) / (count * (count - 1))),
        "own_share": float((own.square().sum() / centred.square().sum()).sqrt()),
        "first_classes": int(logits.argmax(dim=1).unique().numel()),
    }


def main() -> None:
    """Measure each kind of keys on each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, action="append", required=True, help="of an ImageClassifier; may repeat")
    parser.add_argument("--config", action="append", required=True, help="YAML whose `data` is read")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = read_data(arguments.config, [])
    test = stacked(data.test_source, np.arange(0, len(data.test_source), max(1, len(data.test_source) // 1000)))
    shape = test.shape[1:]
    made: dict[str, dict[str, Any]] = {f"noise, grid {grid}": {"grid": grid} for grid in GRIDS if grid <= min(shape[1:])}
    made |= {"test images": {"source_images": test}, "blends of 4": {"source_images": test, "blend": 4}}
    rows = []
    for path in arguments.checkpoint:
        model = load_classifier(path)
        for kind, options in made.items():
            keys = KeySet.draw(num_keys=KEYS, num_classes=data.num_classes, shape=shape, secret=SECRET, **options)
            rows.append({"model": model.arguments["model_name"], "keys": kind})
            rows[-1] |= likeness(model, key_images(keys, data.image_size))
            print(
                "{model}, {keys}: correlation {correlation:.2f}, own share {own_share:.2f}, {first_classes} classes".format(
                    **rows[-1]
                ),
                flush=True,
            )
            if arguments.json:
                write_figures(arguments.json, {"keys": KEYS, "rows": rows})


if __name__ == "__main__":
    main()

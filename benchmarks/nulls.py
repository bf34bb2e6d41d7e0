"""Small Bobs that owe nothing to the keys they are asked: the whole pipeline, fresh KeySet each, counts of hits.

    python benchmarks/nulls.py --bobs 24 --json docs/results/nulls.json

Half of the Bobs train on data signed with *other* keys (a new Signature for every second one), half on the originals.
"""

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

from common import train, write_figures

from taggant_lightning import ImageDataModule, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.verdict.key_detection import ask
from taggant_lightning.verdict.verdict import judge

NUM_KEYS, NUM_CLASSES, SHAPE = 20, 10, (1, 8, 8)
RECIPE = {"lr": 2e-3, "mean": 0.3, "std": 0.35}


def fresh_keys(seed: int) -> KeySet:
    """Draw the KeySet of one number."""
    return KeySet.draw(num_keys=NUM_KEYS, num_classes=NUM_CLASSES, shape=SHAPE, secret=f"null {seed:011d}".encode())


def run(bobs: int, epochs: int, first: int, out: Path) -> list[dict[str, Any]]:
    """Train and ask all Bobs."""
    rows = []
    for number in range(first, first + bobs):
        signed = number % 2 == 0
        data = ImageDataModule("digits", seed=number)
        if signed:
            signature = out / f"signature-{number // 4}"
            if not signature.exists():
                other = fresh_keys(1_000_000 + number // 4)
                keys = str(other.save(out / f"keys-{number // 4}"))
                signing = TaggantSigning(
                    keys,
                    str(signature),
                    images_per_key=8,
                    min_images_per_key=2,
                    eps="64/255",
                    steps=100,
                    selection="gradient_norm",
                )
                other_data = ImageDataModule("digits", seed=10_000 + number)
                train("small_mlp", 10_000 + number, other_data, signing, epochs=epochs, **RECIPE)
            data = SignedDataModule(signature=str(signature), source="digits", seed=number)
        model = train("small_mlp", number, data, epochs=epochs, **RECIPE)
        keys = fresh_keys(number)
        record = judge(ask(model, keys, 8), keys)
        rows.append({"bob": number, "data": "signed with other keys" if signed else "clean", "hits": record.details["hits"]})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bobs", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        rows = run(arguments.bobs, arguments.epochs, arguments.first, Path(folder))
    hits = [row["hits"] for row in rows]
    print(f"mean hits {sum(hits) / len(hits):.2f} of {NUM_KEYS}, expected {NUM_KEYS / NUM_CLASSES:.2f}")
    if arguments.json:
        write_figures(arguments.json, {"num_keys": NUM_KEYS, "rate": 1 / NUM_CLASSES, "rows": rows})


if __name__ == "__main__":
    main()

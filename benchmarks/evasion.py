"""What a Bob can do at his interface against the keys, what it costs him, and which keys withstand it (CIFAR-100).

    PYTHONPATH=. TAGGANT_DATA=… python benchmarks/evasion.py --worlds 134-134 --json experiments/evasion/results.json

A world has one surrogate, and for each kind of keys (noise on grids, held-out images, blends of them) a KeySet, a Signature and
a Bob of its own; one clean Bob is asked all of them. Thresholds of detectors are set on one half of the test images, and what
they cost Bob is measured on the other.
"""

import argparse
import hashlib
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from common import CIFAR, SIZE, share_source, train, write_figures
from detectors import Detector, features, knows_the_method, low_confidence, mahalanobis, near_revealed, total_variation
from numpy.typing import NDArray
from torch import Tensor

from taggant_lightning import ImageClassifier, ImageDataModule, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.data.dataset import to_float
from taggant_lightning.data.resize import fit
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.methods.taggants.hits import count_hits, key_ranks
from taggant_lightning.methods.taggants.model_input import key_images
from taggant_lightning.statistics import binomial_log10_p

NUM_KEYS, TOP_K, CLASSES, MODEL = 20, 10, 100, "small_cnn"
GRIDS, BLENDS, HELD_OUT, FALSE_REFUSALS, NOISE_DRAWS = (2, 4, 8, 16), (1, 2, 4), 2000, (0.01, 0.05), 20
KINDS = [f"grid {grid}" for grid in GRIDS] + ["held-out image" if blend == 1 else f"blend of {blend}" for blend in BLENDS]


def draw(kind: str, seed: int, source: NDArray[np.uint8], num_keys: int = NUM_KEYS) -> KeySet:
    """Draw keys of a kind, in two batches."""
    secret = hashlib.sha256(f"evasion benchmark, {kind}, {seed}".encode()).digest()
    number = int(kind.split()[-1]) if kind[-1].isdigit() else 1
    made: dict[str, Any] = {"grid": number} if kind.startswith("grid") else {"source_images": source, "blend": number}
    batches = [num_keys // 2, num_keys - num_keys // 2]
    return KeySet.draw(
        num_keys=num_keys, num_classes=CLASSES, shape=(3, 32, 32), top_k=TOP_K, batches=batches, secret=secret, **made
    )


def pixels(source: ImageSource, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Read images."""
    return np.stack([source.pixels(int(i)) for i in indices])


def seen(images: NDArray[np.uint8]) -> Tensor:
    """Return images as the model sees them."""
    return torch.cat([fit(to_float(part), SIZE) for part in np.array_split(images, max(1, len(images) // 2000))])


class Bob:
    """A model behind an interface, and what its owner has."""

    def __init__(self, model: ImageClassifier, own: Tensor, test: Tensor, labels: NDArray[np.int64]) -> None:
        self.model, self.own, self.labels = model, own, labels
        self.half = np.arange(len(labels)) % 2 == 0  # thresholds on these, costs on the others
        self.test, self.logits = test, self.answer(test)
        self.right = self.logits.argmax(dim=1).numpy() == labels

    def answer(self, images: Tensor) -> Tensor:
        """Return logits."""
        with torch.no_grad():
            return torch.cat([self.model(part) for part in images.split(1024)])

    def see(self, images: Tensor) -> Tensor:
        """Return features."""
        return features(self.model, images)

    @property
    def accuracy(self) -> float:
        """Accuracy on the half of the test images that costs are measured on."""
        return float(self.right[~self.half].mean())


def outcome(ranks: NDArray[np.int64], top_k: int = TOP_K) -> dict[str, Any]:
    """Return hits and log10 p of some ranks."""
    hits = count_hits(ranks, top_k)
    return {"hits": hits, "keys": len(ranks), "log10_p": binomial_log10_p(hits, len(ranks), top_k / CLASSES)}


def refusing(bob: Bob, keys: KeySet, detectors: dict[str, Detector], seed: int) -> Iterator[dict[str, Any]]:
    """Refuse what a detector suspects, or answer it at random."""
    images, rng = key_images(keys, SIZE), np.random.default_rng(seed)
    ranks = key_ranks(rank(bob.answer(images).numpy()), keys.labels, CLASSES)
    for name, detector in detectors.items():
        on_test, on_keys = detector(bob.test), detector(images)
        for false in FALSE_REFUSALS:
            threshold = np.quantile(on_test[bob.half], 1 - false)
            refused, lost = on_keys > threshold, on_test[~bob.half] > threshold
            # Of the keys that the detector was not shown: the batch that was kept back.
            asked = slice(len(keys) // 2, None) if name == "near the revealed batch" else slice(None)
            at_random = np.where(refused, rng.integers(1, CLASSES + 1, len(ranks)), ranks)
            yield {
                "evasion": name, "false_refusals": false, "refused": float(refused[asked].mean()),
                "accuracy_lost": float((bob.right[~bob.half] & lost).mean()),
                "refusing": outcome(np.where(refused, CLASSES + 1, ranks)[asked]), "at_random": outcome(at_random[asked]),
            }  # fmt: skip


def disturbing(bob: Bob, keys: KeySet, seed: int) -> Iterator[dict[str, Any]]:
    """Add noise to the logits, round the scores, or tell the first label only."""
    logits, rng = bob.answer(key_images(keys, SIZE)).numpy(), np.random.default_rng(seed)
    own, right = bob.logits.numpy()[~bob.half], bob.labels[~bob.half]

    def row(name: str, ranks: list[NDArray[np.int64]], accuracy: float) -> dict[str, Any]:
        all_of = [outcome(r) for r in ranks]
        first = [outcome(r, 1)["log10_p"] for r in ranks]
        return {
            "evasion": name, "hits": mean(o["hits"] for o in all_of), "log10_p": median(o["log10_p"] for o in all_of),
            "top_1_log10_p": median(first), "accuracy_lost": bob.accuracy - accuracy,
        }  # fmt: skip

    def ranked(scores: NDArray[Any], places: int = CLASSES) -> NDArray[np.int64]:
        answers = [Answer(a.query, None if a.labels is None else a.labels[:places]) for a in rank(scores)]
        return key_ranks(answers, keys.labels, CLASSES)

    yield row("none", [ranked(logits)], bob.accuracy)
    for sigma in (0.5, 1.0, 2.0, 4.0):
        noisy = [ranked(logits + sigma * rng.normal(size=logits.shape)) for _ in range(NOISE_DRAWS)]
        told = (own + sigma * rng.normal(size=own.shape)).argmax(axis=1)
        yield row(f"noise of σ = {sigma:g} on the logits", noisy, float((told == right).mean()))
    for digits in (2, 1):
        rounded = [np.round(torch.from_numpy(values).softmax(dim=1).numpy(), digits) for values in (logits, own)]
        # Ties go to the lowest class, for Bob's users as for the keys.
        yield row(
            f"scores rounded to {digits} digits", [ranked(rounded[0])], float((rounded[1].argmax(axis=1) == right).mean())
        )
    yield row("first label only", [ranked(logits, 1)], bob.accuracy)


def run_world(seed: int, kinds: list[str], arguments: argparse.Namespace, report: Callable[[dict[str, Any]], None]) -> None:
    """Sign with every kind of keys, train the Bobs, and let them evade."""
    options: dict[str, Any] = {**CIFAR, "augment": "simple"}
    options |= {"train_subset": arguments.train_subset} if arguments.train_subset else {}
    data, rng = ImageDataModule(**options, seed=seed), np.random.default_rng(seed)
    others = np.setdiff1d(np.arange(len(data.train_source.labels)), data.train_indices)
    held_out = pixels(data.train_source, rng.choice(others, HELD_OUT, replace=False))
    test = seen(pixels(data.test_source, np.arange(len(data.test_source.labels))))
    own_pixels = pixels(data.train_source, data.train_indices[:5000])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keysets = {kind: draw(kind, seed, held_out) for kind in kinds}
        signings = {
            kind: TaggantSigning(
                str(keys.save(folder / kind / "keys")), str(folder / kind / "signature"), seed=seed, min_images_per_key=2,
                images_per_key=arguments.images_per_key, steps=arguments.steps,
            )
            for kind, keys in keysets.items()
        }  # fmt: skip
        begun = time.monotonic()
        train(MODEL, seed, data, *signings.values(), epochs=arguments.epochs)
        print(f"world {seed}: surrogate and {len(kinds)} signatures in {time.monotonic() - begun:.0f} s", flush=True)
        clean: Bob | None = None
        for kind in ["clean", *kinds]:
            own = {**options, "seed": 1000 + seed}
            theirs = ImageDataModule(**own) if kind == "clean" else SignedDataModule(str(folder / kind / "signature"), **own)
            model = train(MODEL, own["seed"], share_source(theirs, data), epochs=arguments.epochs)
            bob = Bob(model, seen(own_pixels), test, data.test_source.labels)
            if clean is None:
                clean = bob
                continue
            keys = keysets[kind]
            # Bob draws keys of the same kind, real ones and blends from his own images, with secrets of his own.
            copies = key_images(draw(kind, 10**6 + seed, own_pixels, arguments.copies), SIZE)
            detectors = {
                "total variation": total_variation(bob.own),
                "Mahalanobis": mahalanobis(bob.own, bob.see),
                "low confidence": low_confidence(bob.answer),
                "near the revealed batch": near_revealed(key_images(keys, SIZE)[: len(keys) // 2], bob.own, bob.see),
                "knows the method": knows_the_method(copies, bob.own, bob.see),
            }
            row = {
                "world": seed, "keys": kind, "accuracy": bob.accuracy, "clean_accuracy": clean.accuracy,
                "cosine": signings[kind].signature.facts["cosine_mean"], "signed": len(signings[kind].signature),
                "clean": outcome(key_ranks(rank(clean.answer(key_images(keys, SIZE)).numpy()), keys.labels, CLASSES)),
                "refusing": list(refusing(bob, keys, detectors, seed)), "disturbing": list(disturbing(bob, keys, seed)),
            }  # fmt: skip
            report(row)


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """Return the tables of refusing and of disturbing: hits of each world, means of shares, medians of log10 p."""
    kinds = list(dict.fromkeys(row["keys"] for row in rows))
    names = [r["evasion"] for r in rows[0]["refusing"]][:: len(FALSE_REFUSALS)]
    lines: list[str] = []
    for false in FALSE_REFUSALS:
        lines += ["", f"| at {100 * false:g} % false refusals | clean | no evasion | {' | '.join(names)} |"]
        lines.append("| --- " * (3 + len(names)) + "|")
        for kind in kinds:
            own = [row for row in rows if row["keys"] == kind]
            cells = [", ".join(str(row["clean"]["hits"]) for row in own), _cell([row["disturbing"][0] for row in own])]
            for name in names:
                found = [r for row in own for r in row["refusing"] if (r["evasion"], r["false_refusals"]) == (name, false)]
                cells.append(f"{100 * mean(r['refused'] for r in found):.0f} %: {_cell([r['refusing'] for r in found])}")
            lines.append(f"| {kind} | {' | '.join(cells)} |")
        lost = [
            mean(
                r["accuracy_lost"] for w in rows for r in w["refusing"] if (r["evasion"], r["false_refusals"]) == (name, false)
            )
            for name in names
        ]
        lines.append(f"| accuracy lost, points | | | {' | '.join(f'{100 * x:.1f}' for x in lost)} |")
    lines += ["", f"| evasion | accuracy lost, points | {' | '.join(kinds)} |", "| --- " * (2 + len(kinds)) + "|"]
    for place, first in enumerate(rows[0]["disturbing"]):
        lost = mean(row["disturbing"][place]["accuracy_lost"] for row in rows)
        cells = []
        for kind in kinds:
            found = [row["disturbing"][place] for row in rows if row["keys"] == kind]
            top_1 = median(o["top_1_log10_p"] for o in found)
            cells.append(_cell(found).replace(")", f"; {top_1:.1f})"))
        lines.append(f"| {first['evasion']} | {100 * lost:.1f} | {' | '.join(cells)} |")
    return lines


def _cell(found: list[dict[str, Any]]) -> str:
    hits = ", ".join(f"{o['hits']:.0f}" for o in found)
    return f"{hits} ({median(o['log10_p'] for o in found):.1f})"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="134-134", help="first-last")
    parser.add_argument("--kinds", default=";".join(KINDS), help="kinds of keys, joined by semicolons")
    parser.add_argument("--images-per-key", type=int, default=40)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--copies", type=int, default=1000, help="keys that a Bob who knows the method draws")
    parser.add_argument("--train-subset", type=int, help="fewer images, for a quick look")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    first, last = (int(part) for part in arguments.worlds.split("-"))
    rows: list[dict[str, Any]] = []
    options = {n: getattr(arguments, n) for n in ("images_per_key", "steps", "epochs", "copies")} | {"num_keys": NUM_KEYS}

    def report(row: dict[str, Any]) -> None:
        rows.append(row)
        print(row["world"], row["keys"], row["disturbing"][0], f"clean {row['clean']['hits']}", flush=True)
        if arguments.json:
            write_figures(arguments.json, {"options": options, "rows": rows})

    for seed in range(first, last + 1):
        run_world(seed, arguments.kinds.split(";"), arguments, report)
    print("\n".join(tables(rows)))


if __name__ == "__main__":
    main()

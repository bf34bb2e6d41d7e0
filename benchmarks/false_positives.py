"""False positives at the sizes of the power benchmark: clean models that it kept, each asked the same many fresh KeySets.

    TAGGANT_DATA=… python benchmarks/power.py --worlds 130-133 --keep MODELS
    PYTHONPATH=. python benchmarks/false_positives.py --models MODELS --json experiments/power/false_positives.json

The power benchmark asks its eight clean models four KeySets, and models that were trained alike answer noise alike: that is
about four draws, too few for a rate of 1e-3. Here every model meets many KeySets; how far models agree is told too.
"""

import argparse
import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import SIZE, kept, write_figures

from taggant_lightning import KeySet
from taggant_lightning.statistics import rank_scores, sequential_log10_p
from taggant_lightning.statistics.tests.sequential_top_k import BET
from taggant_lightning.verdict.key_detection import ask
from tests.control import control_of, excess_of, score_tail, top_k_tail, transform

NUM_KEYS, CLASSES, TOP_K, SIZES, LEVELS = 40, 100, 10, (10, 20, 40), (1e-2, 1e-3)


def fresh(number: int) -> KeySet:
    """Draw a KeySet that nobody has signed with."""
    secret = hashlib.sha256(f"false positives, KeySet {number}".encode()).digest()
    return KeySet.draw(num_keys=NUM_KEYS, num_classes=CLASSES, shape=(3, 32, 32), top_k=TOP_K, grid=4, secret=secret)


def of_size(ranks: np.ndarray, size: int) -> dict[str, Any]:
    """Return shares of false positives of the first keys, and the controls; ranks (models, KeySets, K)."""
    first = ranks[..., :size]
    hits, ones = (first <= TOP_K).sum(axis=-1), (first <= 1).sum(axis=-1)
    totals = rank_scores(CLASSES)[np.minimum(first, CLASSES) - 1].sum(axis=-1)
    tails = {
        f"top-{TOP_K}": (hits, top_k_tail(size, TOP_K, CLASSES)),
        "top-1": (ones, top_k_tail(size, 1, CLASSES)),
        "rank score": (totals, score_tail(size, CLASSES)),
    }
    found: dict[str, Any] = {}
    for name, (values, tail) in tails.items():
        controls = [control_of(transform(tail, own, seed=model)) for model, own in enumerate(values)]
        found[name] = {f"{level:g}": float((tail[values] <= np.log10(level)).mean()) for level in LEVELS}
        found[name] |= {"controls": controls, "correlation_of_models": _mean_correlation(values)}
    rate = TOP_K / CLASSES
    p = np.array([[sequential_log10_p(row.tolist(), rate, BET) for row in own] for own in first <= TOP_K])
    found[f"sequential top-{TOP_K}"] = {f"{level:g}": float((p <= np.log10(level)).mean()) for level in LEVELS}
    found[f"sequential top-{TOP_K}"] |= {
        "controls": [excess_of(own) for own in p],
        "correlation_of_models": _mean_correlation(p),
    }
    return found


def _mean_correlation(values: np.ndarray) -> float:
    pairs = np.corrcoef(values)[np.triu_indices(len(values), 1)]
    return float(pairs.mean()) if len(pairs) else 1.0


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", required=True, help="folder of `power.py --keep`")
    parser.add_argument("--keysets", type=int, default=1000)
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    models = [kept("small_cnn", path) for path in sorted(Path(arguments.models).glob("clean-*.pt"))]
    ranks = np.empty((len(models), arguments.keysets, NUM_KEYS), dtype=np.int64)
    for number in range(arguments.keysets):
        keys = fresh(number)
        ranks[:, number] = [ask(model, keys, SIZE) for model in models]
    figures: dict[str, Any] = {"models": len(models), "keysets": arguments.keysets}
    figures["keys"] = {str(size): of_size(ranks, size) for size in SIZES}
    for size, tests in figures["keys"].items():
        for name, own in tests.items():
            shares = " | ".join(f"{100 * own[f'{level:g}']:.2f} %" for level in LEVELS)
            print(f"| {size} | {name} | {shares} | {min(own['controls']):.2f} | {own['correlation_of_models']:.2f} |")
    if arguments.json:
        write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()

"""What each primary test finds with how many keys: signed and clean models, keys subsampled from forty (CIFAR-100).

    TAGGANT_DATA=… python benchmarks/power.py --worlds 130-133 --ranks experiments/power/ranks.json
    cd experiments/power; python ../../benchmarks/power.py --from ranks.json --json results.json --plot power

The first command trains: a world has its own keys, surrogate and Signature, two Bobs on the signed images and two on the
originals, all asked the world's keys; the ranks of the key labels are what it keeps. The second subsamples keys and runs every
test on the ranks.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import CIFAR, accuracy, share_source, train, write_figures
from numpy.typing import NDArray

from taggant_lightning import ImageDataModule, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.statistics import binomial_log10_p, rank_scores, sequential_log10_p
from taggant_lightning.statistics.rank_score import rank_score_pmf
from taggant_lightning.statistics.sequential import log10_wealth
from taggant_lightning.verdict.key_detection import ask

NUM_KEYS, NUM_CLASSES, IMAGES_PER_KEY, BOBS, MODEL = 40, 100, 25, 2, "small_cnn"
COUNTS, DRAWS, LEVELS, BET = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 30, 35, 40), 200, (-3.0, -6.0), 0.5
Ranks = NDArray[np.int64]


def world(seed: int, keep: Path | None) -> list[dict[str, Any]]:
    """Train one world and return its models' ranks."""
    options = {**CIFAR, "augment": "simple"}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        secret = f"power benchmark, world {seed}".encode()
        keys = KeySet.draw(num_keys=NUM_KEYS, num_classes=NUM_CLASSES, shape=(3, 32, 32), top_k=10, grid=4, secret=secret)
        where = str(keys.save(Path(folder) / "keys"))
        signing = TaggantSigning(where, f"{folder}/signature", images_per_key=IMAGES_PER_KEY, min_images_per_key=2, seed=seed)
        original = ImageDataModule(**options, seed=seed)
        begun = time.monotonic()
        train(MODEL, seed, original, signing)
        print(f"world {seed}: signed in {time.monotonic() - begun:.0f} s", flush=True)
        for kind in ("signed", "clean"):
            for bob in range(BOBS):
                own = {**options, "seed": 1000 * (bob + 1) + seed}
                data = SignedDataModule(f"{folder}/signature", **own) if kind == "signed" else ImageDataModule(**own)
                share_source(data, original)
                begun = time.monotonic()
                model = train(MODEL, own["seed"], data)
                ranks = ask(model, keys, data.image_size)
                row = {"world": seed, "kind": kind, "bob": bob, "accuracy": accuracy(model, data), "ranks": ranks.tolist()}
                rows.append(row)
                hits = {k: int((ranks <= k).sum()) for k in (1, 10)}
                print({**row, "ranks": None, "hits": hits, "seconds": time.monotonic() - begun}, flush=True)
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    torch.save(model.state_dict(), keep / f"{kind}-{seed}-{bob}.pt")
    return rows


@cache
def _binomial(hits: int, trials: int, rate: float) -> float:
    return binomial_log10_p(hits, trials, rate)


@cache
def _rank_tails(trials: int) -> NDArray[np.float64]:
    """Return log10 of all tails at once: none here is near what a float cannot hold, and one at a time takes hours."""
    tails: NDArray[np.float64] = np.minimum(0.0, np.log10(np.cumsum(rank_score_pmf(trials, NUM_CLASSES)[::-1])[::-1]))
    return tails


def _rank_score(total: int, trials: int) -> float:
    return float(_rank_tails(trials)[total])


TESTS: dict[str, Callable[[Ranks], float]] = {
    "binomial, top 10": lambda ranks: _binomial(int((ranks <= 10).sum()), len(ranks), 10 / NUM_CLASSES),
    "binomial, top 1": lambda ranks: _binomial(int((ranks <= 1).sum()), len(ranks), 1 / NUM_CLASSES),
    "rank score": lambda ranks: _rank_score(int(rank_scores(NUM_CLASSES)[ranks - 1].sum()), len(ranks)),
    "sequential, top 10": lambda ranks: sequential_log10_p((ranks <= 10).tolist(), 10 / NUM_CLASSES, BET),
}


def analyse(rows: list[dict[str, Any]], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Subsample keys and run every test.

    Args:
        rows: Models with `kind` and `ranks`.
        draws: Subsamples a model and number of keys.
        seed: Of the subsamples, which all tests share.

    Returns:
        For each test and kind of model, by number of keys: share of subsamples at each level and median log10 p; for the
        sequential test also the mean number of queries until it stops at each level, among those that do.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {test: {kind: [] for kind in ("signed", "clean")} for test in TESTS}
    for count in COUNTS:
        ps: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            ranks = np.array(row["ranks"])
            for _ in range(draws):  # of all keys too: the sequential test depends on their order
                chosen = ranks[rng.choice(len(ranks), count, replace=False)]
                for test, function in TESTS.items():
                    ps.setdefault((test, row["kind"]), []).append(function(chosen))
        for (test, kind), values in ps.items():
            shares = {f"at_1e{level:.0f}": float(np.mean([v <= level for v in values])) for level in LEVELS}
            found[test][kind].append({"keys": count, **shares, "median_log10_p": float(np.median(values))})
    return {"draws": draws, "tests": found, "queries_to_stop": _stopping(rows, rng)}


def _stopping(rows: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    """Return how many keys the sequential test asks signed models until it stops, over orders of all the keys."""
    found = {}
    for level in LEVELS:
        stops = []
        for row in (r for r in rows if r["kind"] == "signed"):
            for _ in range(DRAWS):
                hits = (rng.permutation(row["ranks"]) <= 10).tolist()
                path = log10_wealth(hits, 10 / NUM_CLASSES, BET)
                stops.append(next((i + 1 for i, w in enumerate(path) if w >= -level), None))
        reached = [s for s in stops if s is not None]
        found[f"at_1e{level:.0f}"] = {
            "share": len(reached) / len(stops),
            "mean_queries": float(np.mean(reached)) if reached else None,
        }
    return found


def plot(found: dict[str, Any], models: dict[str, int], path: str) -> None:
    """Draw power against the number of keys, as PNG and SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "taggant"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    colours = ("#c0392b", "#8e6bbf", "#2c6fbb", "#4d8f4d")
    for axis, level in zip(axes, LEVELS, strict=True):
        for (test, kinds), colour in zip(found["tests"].items(), colours, strict=True):
            for kind, style in (("signed", "-"), ("clean", ":")):
                points = [(row["keys"], row[f"at_1e{level:.0f}"]) for row in kinds[kind]]
                axis.plot(*zip(*points, strict=True), style, color=colour, label=test if kind == "signed" else None)
        axis.set(xlabel="keys asked", title=f"share with p ≤ 1e{level:.0f}", ylim=(-0.02, 1.02))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"{models['signed']} signed models (dotted: {models['clean']} clean)")
    axes[0].legend(frameon=False, fontsize=8)
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        figure.savefig(f"{path}.{suffix}", dpi=110, metadata=metadata)
    plt.close(figure)


def main() -> None:
    """Train, or analyse, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="130-133", help="first-last")
    parser.add_argument("--ranks", help="file for the ranks of what is trained")
    parser.add_argument("--keep", type=Path, help="folder for the trained models' weights")
    parser.add_argument("--from", dest="source", help="analyse this file of ranks instead of training")
    parser.add_argument("--draws", type=int, default=DRAWS, help="subsamples a model and number of keys")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--plot", help="name of the picture, without its ending")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if arguments.source is None:
        first, last = (int(part) for part in arguments.worlds.split("-"))
        rows: list[dict[str, Any]] = []
        for seed in range(first, last + 1):
            rows += world(seed, arguments.keep)
            if arguments.ranks:
                write_figures(arguments.ranks, {"num_keys": NUM_KEYS, "images_per_key": IMAGES_PER_KEY, "rows": rows})
        return
    rows = json.loads(Path(arguments.source).read_text())["rows"]
    models = {kind: sum(row["kind"] == kind for row in rows) for kind in ("signed", "clean")}
    found = analyse(rows, arguments.draws)
    for test, kinds in found["tests"].items():
        for kind in ("signed", "clean"):
            shown = [f"{row['keys']}: {row['at_1e-3']:.2f} ({row['median_log10_p']:.1f})" for row in kinds[kind]]
            print(f"{test:<20} {kind:<7} {'  '.join(shown)}")
    print(found["queries_to_stop"])
    if arguments.json:
        write_figures(arguments.json, {"models": models, "from": arguments.source, **found})
    if arguments.plot:
        plot(found, models, arguments.plot)


if __name__ == "__main__":
    main()

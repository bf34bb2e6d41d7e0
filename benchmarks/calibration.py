"""Do all tests keep their null? Real models, odd models and planted mistakes, each asked many KeySets that it owes nothing to.

    TAGGANT_DATA=… python benchmarks/power.py --worlds 130-130 --keep MODELS
    PYTHONPATH=. TAGGANT_DATA=… python benchmarks/calibration.py --models MODELS --out experiments/calibration

Against a fixed model fresh KeySets are independent, so a few models serve for many KeySets. Exact tests are compared with their
distribution on both sides; for the sequential test, and where answers are incomplete, P(p ≤ α) may lie below α and not above.
"""

import argparse
import hashlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import CIFAR, accuracy, kept, save_plot, share_source, subplots, train, write_figures
from numpy.typing import NDArray

from taggant_lightning import ImageDataModule, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.methods.taggants.hits import key_ranks
from taggant_lightning.statistics import rank_scores, sequential_log10_p
from taggant_lightning.statistics.tests import make_test
from taggant_lightning.statistics.tests.sequential_top_k import BET
from taggant_lightning.verdict.key_detection import ask
from tests.answerers import EXACT, SHORT, labels_of
from tests.control import LEVELS, control_of, excess_of, score_tail, top_k_tail, transform
from tests.mutants import CASES

NUM_KEYS, LEVEL = 20, 1e-3
DIGITS = {"lr": 2e-3, "mean": 0.3, "std": 0.35}
Ranks = NDArray[np.int64]


def secret(*words: object) -> bytes:
    """Return a secret that words say."""
    return hashlib.sha256(f"calibration {words}".encode()).digest()


def digits_models(epochs: int, folder: Path) -> Iterator[tuple[str, torch.nn.Module, ImageDataModule]]:
    """Train models of the digits: every architecture on the originals, and an MLP on data signed with other keys."""
    for number, name in enumerate(("small_mlp", "small_cnn", "small_resnet", "small_vit")):
        data = ImageDataModule("digits", seed=100 + number)
        yield f"digits, {name}", train(name, 100 + number, data, epochs=epochs, **DIGITS), data
    keys = KeySet.draw(num_keys=20, num_classes=10, shape=(1, 8, 8), secret=secret("other keys"))
    signing = TaggantSigning(
        str(keys.save(folder / "keys")), str(folder / "signature"), images_per_key=8, min_images_per_key=2, eps="64/255",
        steps=100 if epochs > 2 else 3,
    )  # fmt: skip
    train("small_mlp", 110, ImageDataModule("digits", seed=110), signing, epochs=epochs, **DIGITS)
    data = SignedDataModule(signature=str(folder / "signature"), source="digits", seed=111)
    yield "digits, small_mlp, signed with other keys", train("small_mlp", 111, data, epochs=epochs, **DIGITS), data


def cifar_models(models: Path, epochs: int) -> Iterator[tuple[str, torch.nn.Module, ImageDataModule]]:
    """Read a clean and a signed CNN that power.py kept, and train three other architectures shortly."""
    original = ImageDataModule(**CIFAR, augment="simple", seed=120)
    for kind in ("clean", "signed"):
        words = ", signed with other keys" if kind == "signed" else ""
        yield f"CIFAR-100, small_cnn{words}", kept("small_cnn", models / f"{kind}-130-0.pt"), original
    for number, name in enumerate(("small_mlp", "small_resnet", "small_vit")):
        data = share_source(ImageDataModule(**CIFAR, augment="simple", seed=121 + number), original)
        yield f"CIFAR-100, {name}", train(name, 121 + number, data, epochs=epochs), data


def ask_real(name: str, model: torch.nn.Module, data: ImageDataModule, keysets: int) -> tuple[Ranks, int]:
    """Ask a model many fresh KeySets; return ranks, and the number of classes."""
    classes, side = data.num_classes, 8 if data.num_classes == 10 else 32
    shape, grid = (data.channels, side, side), 4 if side == 32 else None
    drawn = (
        KeySet.draw(num_keys=NUM_KEYS, num_classes=classes, shape=shape, grid=grid, secret=secret(name, n))
        for n in range(keysets)
    )
    return np.array([ask(model, keys, data.image_size) for keys in drawn]), classes


def controls(ranks: Ranks, classes: int, *, exact: bool) -> dict[str, dict[str, Any]]:
    """Run every test on ranks (KeySets, K); return for each the control's p-value and what a plot needs."""
    found: dict[str, dict[str, Any]] = {}
    scores = rank_scores(classes)[np.minimum(ranks, classes) - 1].sum(axis=1)
    first_k = 10 if classes == 100 else 3
    for name, top_k in (("top-k", first_k), ("top-1", 1), ("rank score", 0)):
        tail = top_k_tail(ranks.shape[1], top_k, classes) if top_k else score_tail(ranks.shape[1], classes)
        values = (ranks <= top_k).sum(axis=1) if top_k else scores
        test = make_test("binomial_top_k" if top_k else "rank_score", num_classes=classes, top_k=top_k or None)
        for own, value in zip(ranks[:3], values[:3], strict=True):  # the tables are what the package says
            if abs(test.evaluate(own).log10_p - tail[value]) > 1e-6:
                raise SystemExit(f"{name}: the package's p-value differs from the table's")
        if exact:
            u = transform(tail, values, seed=1)
            found[name] = {"p": control_of(u), "u": u}
        else:
            found[name] = {"p": excess_of(tail[values]), "log10_p": tail[values]}
    p = np.array([sequential_log10_p(row.tolist(), first_k / classes, BET) for row in ranks <= first_k])
    found["sequential"] = {"p": excess_of(p), "log10_p": p}
    return found


def odd(keysets: int) -> Iterator[tuple[str, bool, dict[str, dict[str, Any]]]]:
    """Run every test on models that answer oddly; 100 classes."""
    for answerer in (*EXACT, *SHORT):
        numbers = range(10**6, 10**6 + keysets)
        ranks = np.array([key_ranks(answerer(n, NUM_KEYS, 100), labels_of(n, NUM_KEYS, 100), 100) for n in numbers])
        exact = answerer in EXACT
        yield (answerer.__doc__ or "").splitlines()[0].rstrip("."), exact, controls(ranks, 100, exact=exact)


def line(name: str, found: dict[str, dict[str, Any]]) -> str:
    """Return a row of the table; ¹ marks one-sided controls."""
    cells = [f"{own['p']:.3f}{' ¹' if 'log10_p' in own else ''}" for own in found.values()]
    return f"| {' | '.join([name, *cells])} |"


def plot(groups: dict[str, dict[str, dict[str, Any]]], mutants: list[tuple[Any, Any, Any]], out: Path) -> None:
    """Draw the distance of each distribution from its null, and P(p ≤ α) over α."""
    figure, axes = subplots(2, 2, (9, 6.6))
    grid = np.linspace(0, 1, 101)
    colours = {"top-k": "#c0392b", "top-1": "#8e6bbf", "rank score": "#2c6fbb", "sequential": "#3c8c4a"}
    for axis, group in zip(axes.flat, ("real", "odd"), strict=False):
        for found in groups[group].values():
            for test, own in found.items():
                if "u" in own:
                    distance = [np.mean(own["u"] <= g) - g for g in grid]
                    axis.plot(grid, distance, color=colours[test], alpha=0.6, linewidth=0.9)
        size = min(len(own["u"]) for f in groups[group].values() for own in f.values() if "u" in own)
        for sign in (-1, 1):  # 99 % of the largest distances from a true null lie within
            axis.axhline(sign * 1.628 / np.sqrt(size), color="#777777", linestyle="--", linewidth=0.8)
        axis.set(title=f"{group} models: exact tests", xlabel="u", ylabel="share of PIT values ≤ u, minus u")
    for name, colour in list(colours.items())[:3]:
        axes[0, 0].plot([], [], color=colour, label=name)
    axes[0, 0].legend(frameon=False, fontsize=8)
    alphas = np.logspace(-3.3, 0, 60)
    for group in ("real", "odd"):
        for found in groups[group].values():
            for test, own in found.items():
                if "log10_p" in own:
                    share = [np.mean(own["log10_p"] <= np.log10(a) + 1e-12) for a in alphas]
                    axes[1, 0].plot(alphas, share, color=colours[test], alpha=0.6, linewidth=0.9)
    axes[1, 0].set(title="sequential, and incomplete answers: one-sided", xlabel="α", ylabel="P(p ≤ α)")
    for number, (case, _, values) in enumerate(mutants):
        p = values if case.one_sided else np.log10(np.maximum(1e-12, 1 - values))
        axes[1, 1].plot(
            alphas,
            [np.mean(p <= np.log10(a) + 1e-12) for a in alphas],
            linewidth=1.1,
            color=f"C{number % 10}",
            linestyle="-" if number < 10 else "--",
            label=case.name,
        )
    axes[1, 1].set(title="planted mistakes", xlabel="α", ylabel="P(p ≤ α)")
    axes[1, 1].legend(frameon=False, fontsize=6)
    for axis in axes[1]:
        axis.plot(alphas, alphas, color="black", linestyle=":", linewidth=1)
        axis.set(xscale="log", yscale="log", ylim=(2e-4, 1.1))
    save_plot(figure, out / "calibration")


def main() -> None:
    """Run, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", help="folder of `power.py --keep`; without it only digits are asked")
    parser.add_argument("--keysets", type=int, default=500, help="each model")
    parser.add_argument("--quick", action="store_true", help="few epochs and no planted mistakes")
    parser.add_argument("--out", required=True, help="folder for results.json and the plot")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    groups: dict[str, dict[str, dict[str, Any]]] = {"real": {}, "odd": {}}
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        models = list(digits_models(2 if arguments.quick else 20, Path(folder)))
        models += list(cifar_models(Path(arguments.models), 3)) if arguments.models else []
        for name, model, data in models:
            facts[name] = {"accuracy": accuracy(model, data)}
            groups["real"][name] = controls(*ask_real(name, model, data, arguments.keysets), exact=True)
            print(line(name, groups["real"][name]), flush=True)
    for name, exact, found in odd(arguments.keysets):
        groups["odd"][name] = found
        facts[name] = {"exact": exact}
        print(line(name, found), flush=True)
    mutants = []
    for case in () if arguments.quick else CASES:
        p = {"true": case.p(False), "mutant": case.p(True)}
        mutants.append((case, p, case.run(True, case.keysets)))
        print(f"| {case.name} | {case.test} | {case.keysets} | {p['true']:.3f} | {p['mutant']:.1e} |", flush=True)
    found = [own["p"] for group in groups.values() for f in group.values() for own in f.values()]
    caught = sum(p["mutant"] < LEVEL <= p["true"] for _, p, _ in mutants)
    print(f"smallest of {len(found)} controls: {min(found):.4f}; told apart {caught} of {len(mutants)}")
    p_values = {g: {m: {t: own["p"] for t, own in f.items()} for m, f in own.items()} for g, own in groups.items()}
    figures = {"keysets": arguments.keysets, "num_keys": NUM_KEYS, "levels": LEVELS, "facts": facts, "controls": p_values}
    figures["mutants"] = {case.name: {"test": case.test, "keysets": case.keysets, **p} for case, p, _ in mutants}
    write_figures(f"{arguments.out}/results.json", figures)
    if mutants:
        plot(groups, mutants, Path(arguments.out))
    if min(found) < LEVEL / len(found) or caught < len(mutants):
        raise SystemExit("a null does not hold, or a planted mistake was not seen")


if __name__ == "__main__":
    main()

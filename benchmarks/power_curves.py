"""Power against the number of keys, from the ranks that power.py wrote: four tests, signed models and models that owe nothing.

    PYTHONPATH=. python benchmarks/power_curves.py --ranks experiments/power/ranks.json --out experiments/power

For each model and KeySet the keys are put in many random orders; the first n of an order are n keys drawn without replacement.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import save_plot, subplots, write_figures
from numpy.typing import NDArray

from taggant_lightning.statistics import rank_score_log10_p, rank_scores
from taggant_lightning.statistics.sequential import log10_wealth
from taggant_lightning.taggants.primary import BET
from tests.control import score_tail, top_k_tail

LEVELS = {"1e-3": -3.0, "1e-6": -6.0}
GROUPS = ("signed", "clean, same keys", "owes nothing, any keys")
Curve = Callable[[NDArray[np.int64]], NDArray[np.float64]]


def top_k_curve(top_k: int, num_classes: int) -> Curve:
    """Return the binomial test: ranks in query order (…, K) become log10 p after each number of keys (…, K)."""

    def curve(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
        hits, out = np.cumsum(ranks <= top_k, axis=-1), np.empty(ranks.shape)
        for n in range(1, ranks.shape[-1] + 1):
            out[..., n - 1] = top_k_tail(n, top_k, num_classes)[hits[..., n - 1]]
        return out

    return curve


def rank_curve(num_classes: int) -> Curve:
    """Return the rank test; the highest total of all is checked against the package's single tail."""

    def curve(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
        scores = rank_scores(num_classes)
        totals, out = np.cumsum(scores[np.minimum(ranks, num_classes) - 1], axis=-1), np.empty(ranks.shape)
        for n in range(1, ranks.shape[-1] + 1):
            out[..., n - 1] = score_tail(n, num_classes)[totals[..., n - 1]]
        highest = int(totals[..., -1].max())
        if abs(out[..., -1].min() - rank_score_log10_p(highest, n, num_classes)) > 1e-6:
            raise SystemExit(f"the two ways to the tail of the rank test differ at {highest} of {n} keys")
        return out

    return curve


def sequential_curve(top_k: int, num_classes: int, bet: float = BET) -> Curve:
    """Return the sequential test: the always-valid log10 p after each query."""
    won, lost = log10_wealth([True, False], top_k / num_classes, bet)
    lost -= won

    def curve(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
        stake = np.cumsum(np.where(ranks <= top_k, won, lost), axis=-1)
        return -np.maximum(0.0, np.maximum.accumulate(stake, axis=-1))

    return curve


def tests_of(top_k: int, num_classes: int) -> dict[str, Curve]:
    """Return the four tests by name."""
    return {
        f"top-{top_k}": top_k_curve(top_k, num_classes),
        "top-1": top_k_curve(1, num_classes),
        "rank score": rank_curve(num_classes),
        f"sequential top-{top_k}": sequential_curve(top_k, num_classes),
    }


def collect(worlds: list[dict[str, Any]]) -> dict[str, NDArray[np.int64]]:
    """Return the ranks of each group, (pairs of model and KeySet, K)."""
    bobs = [bob for world in worlds for bob in world["bobs"]]
    own = {kind: [b["ranks"][str(b["world"])] for b in bobs if b["data"] == kind] for kind in ("signed", "clean")}
    nothing = [r for b in bobs for world, r in b["ranks"].items() if b["data"] == "clean" or int(world) != b["world"]]
    return dict(zip(GROUPS, map(np.array, (own["signed"], own["clean"], nothing)), strict=True))


def analyse(ranks: NDArray[np.int64], tests: dict[str, Curve], draws: int, seed: int) -> dict[str, Any]:
    """Return for each test: shares of p at most each level and the median log10 p, by the number of keys."""
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.broadcast_to(np.arange(ranks.shape[1]), (len(ranks), draws, ranks.shape[1])), axis=-1)
    shuffled = np.take_along_axis(ranks[:, None, :], orders, axis=-1)
    found: dict[str, Any] = {}
    for name, curve in tests.items():
        p = curve(shuffled)
        found[name] = {f"share at {word}": (p <= level + 1e-12).mean(axis=(0, 1)).tolist() for word, level in LEVELS.items()}
        found[name]["median log10 p"] = np.median(p, axis=(0, 1)).tolist()
        if name.startswith("sequential"):
            stopped = p <= LEVELS["1e-3"] + 1e-12
            queries = np.where(stopped.any(axis=-1), stopped.argmax(axis=-1) + 1, ranks.shape[1])
            found[name] |= {
                "mean queries, stop at 1e-3": float(queries.mean()),
                "share stopped": float(stopped[..., -1].mean()),
            }
    return found


def needed(shares: list[float], wanted: float) -> int | None:
    """Return the fewest keys from which on the share stays at least as wanted, None if there are not enough."""
    below = [n for n, share in enumerate(shares, 1) if share < wanted]
    return None if below and below[-1] == len(shares) else max(below, default=0) + 1


def table(curves: dict[str, Any]) -> list[str]:
    """Return the table for people."""
    signed, nothing = curves[GROUPS[0]], curves[GROUPS[2]]
    lines = [
        "| test | keys for 90 % power at 1e-3 | at 1e-6 | median log10 p: 10 keys | 20 | 40 | false at 1e-3: 10 keys | 40 |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, own in signed.items():
        most = len(own["median log10 p"])
        keys = [needed(own[f"share at {word}"], 0.9) or f"> {most}" for word in LEVELS]
        medians = [f"{own['median log10 p'][n - 1]:.1f}" for n in (10, 20, most)]
        false = [f"{100 * nothing[name]['share at 1e-3'][n - 1]:.3f} %" for n in (10, most)]
        lines.append("| " + " | ".join(map(str, [name, *keys, *medians, *false])) + " |")
    return lines


def plot(curves: dict[str, Any], out: Path) -> None:
    """Draw power at both levels, median log10 p, and false positives."""
    figure, axes = subplots(2, 2, (8.6, 6.2))
    colours = dict(zip(curves[GROUPS[0]], ("#c0392b", "#8e6bbf", "#2c6fbb", "#3c8c4a"), strict=True))
    panels = [
        ("share at 1e-3", GROUPS[0]),
        ("share at 1e-6", GROUPS[0]),
        ("median log10 p", GROUPS[0]),
        ("share at 1e-3", GROUPS[2]),
    ]
    for axis, (what, group) in zip(axes.flat, panels, strict=True):
        for name, colour in colours.items():
            values = curves[group][name][what]
            axis.plot(range(2, len(values) + 1), values[1:], color=colour, label=name, linewidth=1.8)
        axis.set(xlabel="keys asked", title=f"{group}: {what}".replace("share at", "share with p ≤"))
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.25)
    axes[1, 1].axhline(1e-3, color="#777777", linestyle=":", label="1e-3, the bound")
    axes[0, 0].legend(frameon=False, fontsize=9)
    axes[1, 1].legend(frameon=False, fontsize=8)
    save_plot(figure, out / "power")


def main() -> None:
    """Analyse, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", required=True, help="what power.py wrote")
    parser.add_argument("--draws", type=int, default=2000, help="orders of the keys, each model and KeySet")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--out", required=True, help="folder for results.json and the plot")
    arguments = parser.parse_args()
    stored = json.loads(Path(arguments.ranks).read_text())
    options, groups = stored["options"], collect(stored["worlds"])
    tests = tests_of(options["top_k"], options["num_classes"])
    curves = {group: analyse(ranks, tests, arguments.draws, arguments.seed) for group, ranks in groups.items()}
    sizes = {group: len(ranks) for group, ranks in groups.items()}
    print(sizes, *table(curves), sep="\n")
    for group, own in curves.items():
        print(group, {n: v for n, v in own[f"sequential top-{options['top_k']}"].items() if "stop" in n})
    rounded = json.loads(json.dumps(curves), parse_float=lambda text: round(float(text), 5))
    write_figures(f"{arguments.out}/results.json", {"pairs": sizes, "draws": arguments.draws, "curves": rounded})
    plot(curves, Path(arguments.out))


if __name__ == "__main__":
    main()

"""The signing engine beside the published loop and ART's gradient matching: same task, same evaluator, in alternation.

    TAGGANT_DATA=… python benchmarks/signing.py --models small_cnn --json docs/results/signing_cnn.json
    TAGGANT_DATA=… python benchmarks/signing.py --models small_vit --json docs/results/signing_vit.json
    python benchmarks/signing.py --sections growth,memory --json docs/results/signing_growth.json
    python benchmarks/signing.py --quick      # what CI runs; fails if ours is slower than the published loop

Sections: `curve`: seconds to a cosine, key by key, every method in turn; `bobs`: hits of models trained on what `curve` crafted
(every Bob meets every method, each with other keys; which keys go with which method changes from Bob to Bob); `exactness`: ways
to take the derivative, against float64; `growth`: CPU time against images and keys; `memory`: peak memory, a process a figure.

The evaluator is the cosine of the sum over the un-augmented signing images in float32; its time is not counted.
"""

import argparse
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from common import CIFAR, accuracy, share_source, train, write_figures
from costs import measure_growth, measure_memory
from derivatives import measure_trained
from problems import TOP_K, Problem, cifar_problem, digits_problem
from rivals import gradient_matching, textbook
from scipy import stats
from torch import Tensor

from taggant_lightning import SignedDataModule
from taggant_lightning.methods.taggants.crafting.crafting import Crafted, craft_key
from taggant_lightning.methods.taggants.crafting.perturbation import to_steps
from taggant_lightning.methods.taggants.crafting.round import assemble
from taggant_lightning.statistics import binomial_log10_p
from taggant_lightning.verdict.key_detection import ask

PUBLISHED_STEPS = 250
# `our seconds`: as many steps, with the published decays spread over them, as take the time that ours takes.
METHODS = ("ours", "ours, double backward", "textbook", "textbook, our schedule", "textbook, our seconds", "art")
Curve = list[tuple[float, float]]


class Clock:
    """Seconds that a method spends, and the cosine it has reached, after each of its steps; scoring is not counted.

    CPU seconds, on one thread: what else the machine does must not decide which method is faster.
    """

    def __init__(self, score: Callable[[Tensor], float]) -> None:
        self.score, self.spent, self.curve = score, 0.0, Curve()
        self.since = time.process_time()

    def __call__(self, delta: Tensor) -> None:
        """Note one step."""
        self.spent += time.process_time() - self.since
        self.curve.append((self.spent, self.score(delta)))
        self.since = time.process_time()


@dataclass
class Run:
    """One method on one key.

    Attributes:
        curve: Seconds spent and cosine reached after each step.
        crafted: What comes out, in whole 8-bit steps, with its cosine.
        filled: Mean of |δ| / eps.
    """

    curve: Curve
    crafted: Crafted
    filled: float


def run_method(method: str, of: Problem, key: int, steps_in_time: int) -> Run:
    """Craft one key by one method."""
    task, clock = of.task(key), Clock(of.evaluator(key))
    precision = "bf16-mixed" if "bf16" in method else "32-true"
    settings = of.settings(derivative="exact" if "double" in method else "auto", precision=precision)
    if method.startswith("ours"):
        crafted = craft_key(
            of.images[key], task.key, [of.surrogate], settings, key=key, device=torch.device("cpu"),
            on_step=lambda _, deltas: clock(deltas[0].detach()),
        )  # fmt: skip
        steps = crafted.steps[0]
    else:
        if method == "art":
            delta = gradient_matching(task, clock)
        elif method == "textbook, our schedule":
            delta = textbook(task, clock, steps=settings.steps, ours=True)
        else:
            delta = textbook(task, clock, steps=PUBLISHED_STEPS if method == "textbook" else steps_in_time)
        steps = to_steps(delta, of.images[key].pixels[0], of.eps)
    final = Crafted([], [steps], clock.score(steps.float() / 255))
    return Run(clock.curve, final, float(steps.float().abs().mean() / (255 * of.eps)))


def measure_curves(of: Problem, methods: list[str]) -> dict[str, list[Run]]:
    """Craft every key by every method, in turn, and the other way round for every second key."""
    runs: dict[str, list[Run]] = {m: [] for m in methods}
    for key in range(len(of.keys)):
        for method in methods if key % 2 == 0 else methods[::-1]:
            in_time = of.settings().steps
            if method == "textbook, our seconds" and runs["ours"] and runs["textbook"]:
                spent = {m: mean(r.curve[-1][0] for r in runs[m]) for m in ("ours", "textbook")}
                in_time = max(1, round(PUBLISHED_STEPS * spent["ours"] / spent["textbook"]))
            runs[method].append(run_method(method, of, key, in_time))
        ends = ", ".join(f"{m} {runs[m][-1].curve[-1][1]:.3f} in {runs[m][-1].curve[-1][0]:.1f} s" for m in methods)
        print(f"key {key}: {ends}", flush=True)
    return runs


def reach(curve: Curve, wanted: float) -> float:
    """Return the seconds after which the cosine first is what is wanted; infinite if it never is."""
    return next((seconds for seconds, value in curve if value >= wanted), math.inf)


def mean_curve(runs: list[Run]) -> Curve:
    """Return the curve of the objective of all keys: mean seconds and mean cosine after each step."""
    return [(mean(s for s, _ in points), mean(c for _, c in points)) for points in zip(*(r.curve for r in runs))]


def summarise_curves(of: Problem, runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Return the table's columns a method, and how many times less than the textbook loop ours takes.

    The cosine that is wanted is the one that the textbook loop, or else the first method, ends with: of the mean over the
    keys, and key by key.
    """
    base = "textbook" if "textbook" in runs else next(iter(runs))
    curves = {m: mean_curve(own) for m, own in runs.items()}
    wanted, ends = curves[base][-1][1], [r.curve[-1][1] for r in runs[base]]
    table: dict[str, Any] = {}
    for method, own in runs.items():
        by_key = [reach(r.curve, end) for r, end in zip(own, ends, strict=True)]
        counts = [len(images.ids) for images in of.images]
        table[method] = {
            "steps": len(own[-1].curve),
            "ms_per_image_step": 1e3 * median(r.curve[-1][0] / len(r.curve) / n for r, n in zip(own, counts, strict=True)),
            "seconds": curves[method][-1][0],
            "seconds_to_wanted": reach(curves[method], wanted),
            "median_seconds_to_wanted_by_key": median(by_key),
            "keys_that_reach": sum(math.isfinite(s) for s in by_key),
            "final_cosine": mean(r.crafted.cosine for r in own),
            "mean_abs_delta_over_eps": mean(r.filled for r in own),
        }
    first, ours = table[base], table["ours"]
    by_key = [
        other.curve[-1][0] / reach(mine.curve, end) for other, mine, end in zip(runs[base], runs["ours"], ends, strict=True)
    ]
    summary = {
        "keys": len(of.keys),
        "base": base,
        "wanted": wanted,
        "methods": table,
        "times_less": first["seconds"] / ours["seconds_to_wanted"],
        "times_less_median_of_keys": median(by_key),
        "times_less_than_its_first_crossing": first["seconds_to_wanted"] / ours["seconds_to_wanted"],
    }
    if "textbook, our schedule" in table:
        scheduled = table["textbook, our schedule"]
        summary["by_schedule"] = first["seconds"] / scheduled["seconds_to_wanted"]
        summary["by_engine"] = scheduled["ms_per_image_step"] / ours["ms_per_image_step"]
    return summary


def measure_bobs(of: Problem, runs: dict[str, list[Run]], model_name: str, bobs: int) -> dict[str, Any]:
    """Train Bobs that meet every method, each with other keys, and compare hits Bob by Bob."""
    methods = list(runs)
    groups = np.arange(len(of.keys)) % len(methods)
    keys_each = len(of.keys) // len(methods)
    hits: dict[str, list[int]] = {m: [] for m in methods}
    accuracies = []
    for bob in range(bobs):
        method_of = [methods[(group + bob) % len(methods)] for group in groups]
        crafted = [runs[method][key].crafted for key, method in enumerate(method_of)]
        with tempfile.TemporaryDirectory() as folder:
            signature = Path(folder) / "signature"
            assemble(of.keys, of.data.train_source, of.images, crafted, of.eps, {}).save(signature)
            data = SignedDataModule(str(signature), **CIFAR, augment="simple", seed=1000 + bob)
            model = train(model_name, 1000 + bob, share_source(data, of.data))
            accuracies.append(accuracy(model, data))
        hit = ask(model, of.keys, of.data.image_size) <= TOP_K
        for method in methods:
            hits[method].append(int(sum(h for h, m in zip(hit, method_of, strict=True) if m == method)))
        print(f"bob {bob}: " + ", ".join(f"{m} {h[-1]}" for m, h in hits.items()), flush=True)
    found: dict[str, Any] = {"bobs": bobs, "keys_a_bob_and_method": keys_each, "accuracy": mean(accuracies), "methods": {}}
    for method in methods:
        p = [binomial_log10_p(h, keys_each, TOP_K / of.keys.num_classes) for h in hits[method]]
        entry: dict[str, Any] = {"hits": hits[method], "total": sum(hits[method]), "median_log10_p": median(p)}
        if method != "ours" and bobs > 1:
            differences = np.array(hits["ours"]) - np.array(hits[method])
            middle, error = differences.mean() / keys_each, stats.sem(differences) / keys_each
            margin = float(stats.t.ppf(0.975, bobs - 1) * error)
            entry["ours_minus_this_share_of_keys"] = [float(middle), float(middle - margin), float(middle + margin)]
        found["methods"][method] = entry
    return found


def print_table(name: str, summary: dict[str, Any], bobs: dict[str, Any] | None) -> None:
    """Print the table of one model."""
    print(f"\n{name}: {summary['keys']} keys; the textbook loop ends with a mean cosine of {summary['wanted']:.3f}")
    columns = (
        "steps  ms/image-step  seconds  seconds to it  keys reach it  final cosine  hits, log10 p (share of keys, ours − this)"
    )
    print(f"{'method':<23} {columns}")
    for method, row in summary["methods"].items():
        line = f"{method:<23} {row['steps']:5d}  {row['ms_per_image_step']:13.3f}  {row['seconds']:7.2f}"
        line += f"  {row['seconds_to_wanted']:13.2f}  {row['keys_that_reach']:13d}  {row['final_cosine']:12.3f}"
        if bobs:
            entry = bobs["methods"][method]
            line += f"  {entry['total']}/{bobs['bobs'] * bobs['keys_a_bob_and_method']}, {entry['median_log10_p']:.1f}"
            if "ours_minus_this_share_of_keys" in entry:
                line += " ({:+.2f}, {:+.2f} to {:+.2f})".format(*entry["ours_minus_this_share_of_keys"])
        print(line)
    names = [n for n in summary if n.startswith(("times", "by_"))]
    print("ours against the textbook loop: " + ", ".join(f"{n.replace('_', ' ')} {summary[n]:.2f}" for n in names), flush=True)


def quick() -> int:
    """Compare ours with the textbook loop on one key of digits; return 1 if it is slower on any model."""
    slower = []
    for name in ("small_cnn", "small_vit"):
        of = digits_problem(name, 32)
        summary = summarise_curves(of, measure_curves(of, ["ours", "textbook"]))
        print_table(name, summary, None)
        pace = {m: summary["methods"][m]["ms_per_image_step"] for m in ("ours", "textbook")}
        if summary["times_less"] < 1 or pace["ours"] > pace["textbook"]:
            slower.append(name)
    if slower:
        print(f"ours is slower than the textbook loop on {', '.join(slower)}", file=sys.stderr)
    return 1 if slower else 0


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one key of digits, two minutes at most; exit code 1 if slower")
    parser.add_argument("--sections", default="curve,bobs,exactness", help="of curve, bobs, exactness, growth, memory")
    parser.add_argument("--models", default="small_cnn,small_vit", help="small models for curve, bobs, exactness and growth")
    parser.add_argument("--large", default="resnet18,vit_tiny", help="models for memory")
    parser.add_argument("--methods", default=";".join(METHODS), help="joined by semicolons")
    parser.add_argument("--num-keys", type=int, default=12)
    parser.add_argument("--images-per-key", type=int, default=48)
    parser.add_argument("--bobs", type=int, default=12)
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    warnings.filterwarnings("ignore")
    if arguments.quick:
        return quick()
    sections, models = arguments.sections.split(","), arguments.models.split(",")
    figures: dict[str, Any] = {}
    for name in models if {"curve", "bobs", "exactness"} & set(sections) else ():
        of = cifar_problem(name, arguments.num_keys, arguments.images_per_key)
        found: dict[str, Any] = {}
        if "exactness" in sections:
            found["exactness"] = measure_trained(of)
        if {"curve", "bobs"} & set(sections):
            runs = measure_curves(of, arguments.methods.split(";"))
            found["summary"] = summarise_curves(of, runs)
            found["bobs"] = measure_bobs(of, runs, name, arguments.bobs) if "bobs" in sections else None
            print_table(name, found["summary"], found["bobs"])
        figures[name] = found
    if "growth" in sections:
        figures["growth"] = measure_growth(models)
    if "memory" in sections:
        figures["memory"] = measure_memory(arguments.large.split(","))
    if arguments.json:
        options = {n: getattr(arguments, n) for n in ("sections", "models", "methods", "num_keys", "images_per_key", "bobs")}
        write_figures(arguments.json, {"options": options, **figures})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

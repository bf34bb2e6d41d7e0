"""The signing engine beside the published loop and ART's gradient matching: same task, same evaluator, in alternation.

    TAGGANT_DATA=… python benchmarks/signing.py --models small_cnn --json docs/results/signing_cnn.json
    TAGGANT_DATA=… python benchmarks/signing.py --models small_vit --json docs/results/signing_vit.json
    python benchmarks/signing.py --sections growth,memory --json docs/results/signing_growth.json
    python benchmarks/signing.py --quick      # what CI runs; fails if ours is slower than the published loop

Sections: `curve`: seconds to a cosine, key by key, every method in turn; `bobs`: hits of models trained on what `curve` crafted
(every Bob meets every method, each with other keys; which keys go with which method changes from Bob to Bob); `exactness`: the
derivatives against float64; `growth`: CPU time against images and keys; `memory`: peak memory, a process a figure.

The evaluator is the cosine of the sum over the un-augmented signing images in float32; its time is not counted.
"""

import argparse
import copy
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import CIFAR, SIZE, accuracy, share_source, train, write_figures
from rivals import Task, gradient_matching, textbook
from scipy import stats
from torch import Tensor

from taggant_lightning import ImageClassifier, ImageDataModule, KeySet, SignedDataModule
from taggant_lightning.data.resize import fit
from taggant_lightning.statistics import binomial_log10_p
from taggant_lightning.taggants.alignment import alignment, alignment_by_difference, cosine, summed_gradient
from taggant_lightning.taggants.crafting import Crafted, Settings, craft_key
from taggant_lightning.taggants.descent import DEFAULT_LR
from taggant_lightning.taggants.detection import ask, key_images
from taggant_lightning.taggants.objective import SigningImages, Surrogate
from taggant_lightning.taggants.perturbation import to_steps
from taggant_lightning.taggants.round import assemble
from taggant_lightning.taggants.selection import select

OURS = Settings(
    eps=16 / 255,
    steps=60,
    optimizer="momentum",
    lr=DEFAULT_LR["momentum"],
    schedule="cosine",
    init="zero",
    restarts=1,
    derivative="auto",
    ensemble="alternate",
    micro_batch=64,
    image_size=SIZE,
    augment="simple",
    perceptual_weight=0.0,
    seed=0,
)
TOP_K = 10
METHODS = ("ours", "ours, double backward", "textbook", "textbook, our schedule", "textbook, our seconds", "art")


@dataclass
class Problem:
    """A surrogate with keys and signing images."""

    data: ImageDataModule
    model: ImageClassifier
    keys: KeySet
    images: list[SigningImages]
    eps: float
    recipe: str

    @property
    def surrogate(self) -> Surrogate:
        """The model with all its parameters."""
        return Surrogate(self.model, list(self.model.parameters()))

    def settings(self, **changes: Any) -> Settings:
        """Return our defaults for this problem."""
        return replace(OURS, image_size=self.data.image_size, eps=self.eps, augment=self.recipe, **changes)

    def task(self, key: int) -> Task:
        """Return one key's task for the rivals."""
        images = self.images[key]
        seen = key_images(self.keys, self.data.image_size)[key : key + 1]
        return Task(
            self.model, images.images[0], images.ids, images.label, seen, self.data.image_size, self.eps, self.recipe, key
        )

    def evaluator(self, key: int) -> Callable[[Tensor], float]:
        """Return the function that scores a perturbation: cosine of the un-augmented sum, float32."""
        task, surrogate = self.task(key), self.surrogate
        target = surrogate.key_gradient(task.key, task.label)

        def score(delta: Tensor) -> float:
            batch = fit(task.images + delta, task.size)
            loss = [lambda: F.cross_entropy(self.model(batch), task.labels, reduction="sum")]
            return float(cosine(summed_gradient(loss, surrogate.parameters), target))

        return score


def problem(model: ImageClassifier, data: ImageDataModule, num_keys: int, images_per_key: int, **extra: Any) -> Problem:
    """Draw keys and signing images."""
    shape = data.train_source.pixels(0).shape
    keys = KeySet.draw(
        num_keys=num_keys, num_classes=data.num_classes, shape=shape, grid=8, top_k=TOP_K, secret=b"signing benchmark"
    )
    chosen = select(
        data.train_source.labels, data.train_indices, keys.labels, images_per_key=images_per_key, minimum=4,
        selection="random", seed=0, score=lambda ids: np.zeros(len(ids)),
    )  # fmt: skip
    images = [
        SigningImages.of(ids.tolist(), [data.train_source.pixels(int(i)) for i in ids], int(label))
        for ids, label in zip(chosen, keys.labels, strict=True)
    ]
    return Problem(data, model, keys, images, **extra)


def cifar_problem(model_name: str, num_keys: int, images_per_key: int) -> Problem:
    """Train a surrogate on CIFAR-100 at the CPU's scale."""
    data = ImageDataModule(**CIFAR, augment="simple", seed=77)
    return problem(train(model_name, 77, data), data, num_keys, images_per_key, eps=16 / 255, recipe="simple")


def digits_problem(model_name: str, images_per_key: int) -> Problem:
    """Train a surrogate on the digits bundled with scikit-learn, seen at 16×16."""
    data = ImageDataModule("digits", image_size=SIZE, augment="simple", seed=77)
    return problem(train(model_name, 77, data, epochs=2), data, 1, images_per_key, eps=64 / 255, recipe="simple")


class Clock:
    """Seconds that a method spends, and the cosine it has reached, after each of its steps; scoring is not counted."""

    def __init__(self, score: Callable[[Tensor], float]) -> None:
        self.score, self.spent, self.curve = score, 0.0, list[tuple[float, float]]()
        self.since = time.perf_counter()

    def __call__(self, delta: Tensor) -> None:
        """Note one step."""
        self.spent += time.perf_counter() - self.since
        self.curve.append((self.spent, self.score(delta)))
        self.since = time.perf_counter()

    def reach(self, wanted: float) -> float | None:
        """Return the seconds after which the cosine first is what is wanted, or None."""
        return next((seconds for seconds, value in self.curve if value >= wanted), None)


def run_method(method: str, of: Problem, key: int, steps_in_time: int) -> tuple[Clock, Tensor]:
    """Craft one key by one method."""
    task, clock = of.task(key), Clock(of.evaluator(key))
    if method.startswith("ours"):
        settings = of.settings(derivative="exact" if "double" in method else "auto")
        crafted = craft_key(
            of.images[key], task.key, [of.surrogate], settings, key=key, device=torch.device("cpu"),
            on_step=lambda _, deltas: clock(deltas[0].detach()),
        )  # fmt: skip
        return clock, crafted.steps[0]
    if method == "art":
        delta = gradient_matching(task, clock)
    elif method == "textbook, our schedule":
        delta = textbook(task, clock, steps=OURS.steps, ours=True)
    else:
        delta = textbook(task, clock, steps=250 if method == "textbook" else steps_in_time)
    return clock, to_steps(delta, of.images[key].pixels[0], of.eps)


def measure_curves(of: Problem, methods: list[str]) -> tuple[list[dict[str, Any]], dict[tuple[str, int], Crafted]]:
    """Craft every key by every method, in turn, and the other way round for every second key."""
    rows, results, pace = [], {}, {m: list[float]() for m in methods}
    for key in range(len(of.keys)):
        clocks: dict[str, Clock] = {}
        steps_in_time = 60
        for method in methods if key % 2 == 0 else methods[::-1]:
            if method == "textbook, our seconds" and pace["ours"] and pace["textbook"]:
                steps_in_time = max(1, round(OURS.steps * mean(pace["ours"]) / mean(pace["textbook"])))
            clock, steps = run_method(method, of, key, steps_in_time)
            clocks[method] = clock
            pace[method].append(clock.spent / len(clock.curve))
            final = of.evaluator(key)(steps.float() / 255)
            results[method, key] = Crafted([], [steps], final)
        wanted = clocks["textbook"].curve[-1][1]
        for method, clock in clocks.items():
            rows.append(
                {
                    "key": key,
                    "method": method,
                    "steps": len(clock.curve),
                    "seconds": clock.spent,
                    "seconds_per_image_step": clock.spent / len(clock.curve) / len(of.images[key].ids),
                    "wanted": wanted,
                    "seconds_to_wanted": clock.reach(wanted),
                    "stored_cosine": results[method, key].cosine,
                    "mean_abs_delta_over_eps": float(results[method, key].steps[0].float().abs().mean() / (255 * of.eps)),
                }
            )
        print(f"key {key}: " + ", ".join(f"{m} {c.curve[-1][1]:.3f} in {c.spent:.1f} s" for m, c in clocks.items()), flush=True)
    return rows, results


def summarise_curves(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians over the keys, and the ratios to the textbook loop."""
    by = {(r["method"], r["key"]): r for r in rows}
    methods, keys = list(dict.fromkeys(r["method"] for r in rows)), sorted({r["key"] for r in rows})
    table: dict[str, Any] = {}
    for method in methods:
        own = [by[method, key] for key in keys]
        reached = [r["seconds_to_wanted"] for r in own]
        table[method] = {
            "ms_per_image_step": 1e3 * median(r["seconds_per_image_step"] for r in own),
            "seconds": median(r["seconds"] for r in own),
            "seconds_to_wanted": median(math.inf if s is None else s for s in reached),
            "keys_that_reach": sum(s is not None for s in reached),
            "stored_cosine": mean(r["stored_cosine"] for r in own),
            "mean_abs_delta_over_eps": mean(r["mean_abs_delta_over_eps"] for r in own),
        }

    def ratio(above: str, above_field: str, below: str, below_field: str) -> float:
        values = [(by[above, k][above_field], by[below, k][below_field]) for k in keys]
        return median(math.inf if a is None else 0.0 if b is None else a / b for a, b in values)

    reach = "seconds_to_wanted"
    summary: dict[str, Any] = {"keys": len(keys), "methods": table}
    summary["speedup"] = ratio("textbook", "seconds", "ours", reach)
    summary["speedup_over_first_crossing"] = ratio("textbook", reach, "ours", reach)
    if "textbook, our schedule" in methods:
        summary["speedup_by_schedule"] = ratio("textbook", "seconds", "textbook, our schedule", reach)
        summary["speedup_by_engine"] = ratio(
            "textbook, our schedule", "seconds_per_image_step", "ours", "seconds_per_image_step"
        )
    return summary


def measure_bobs(
    of: Problem, results: dict[tuple[str, int], Crafted], methods: list[str], model_name: str, bobs: int
) -> dict[str, Any]:
    """Train Bobs that meet every method, each with other keys, and compare hits Bob by Bob."""
    groups = np.arange(len(of.keys)) % len(methods)
    hits: dict[str, list[int]] = {m: [] for m in methods}
    accuracies = []
    for bob in range(bobs):
        method_of = [methods[(group + bob) % len(methods)] for group in groups]
        crafted = [results[method, key] for key, method in enumerate(method_of)]
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
    keys_each = len(of.keys) // len(methods)
    found: dict[str, Any] = {"bobs": bobs, "keys_a_bob_and_method": keys_each, "accuracy": mean(accuracies), "methods": {}}
    for method in methods:
        entry: dict[str, Any] = {"hits": hits[method], "total": sum(hits[method])}
        entry["log10_p_of_the_total"] = binomial_log10_p(sum(hits[method]), bobs * keys_each, TOP_K / of.keys.num_classes)
        if method != "ours" and bobs > 1:
            differences = np.array(hits["ours"]) - np.array(hits[method])
            middle, error = differences.mean() / keys_each, stats.sem(differences) / keys_each
            margin = float(stats.t.ppf(0.975, bobs - 1) * error)
            entry["ours_minus_this_share_of_keys"] = [float(middle), float(middle - margin), float(middle + margin)]
        found["methods"][method] = entry
    return found


def measure_exactness(of: Problem) -> list[dict[str, Any]]:
    """Compare derivatives in float32 with double backward in float64, at the first, a middle and the last perturbation."""
    deltas: list[Tensor] = []
    task, surrogate = of.task(0), of.surrogate
    craft_key(
        of.images[0], task.key, [surrogate], of.settings(), key=0, device=torch.device("cpu"),
        on_step=lambda _, d: deltas.append(d[0].detach().clone()),
    )  # fmt: skip
    precise = copy.deepcopy(of.model).double()
    rows = []
    for place, delta in (("start", torch.zeros_like(deltas[0])), ("middle", deltas[30]), ("end", deltas[-1])):

        def derivatives(model: ImageClassifier, take: Any, parts: int, delta: Tensor = delta) -> Tensor:
            dtype = next(model.parameters()).dtype
            variable, images = delta.to(dtype).requires_grad_(), task.images.to(dtype)
            size = math.ceil(len(images) / parts)

            def loss(rows: slice) -> Tensor:
                return F.cross_entropy(model(fit(images[rows] + variable[rows], task.size)), task.labels[rows], reduction="sum")

            chunks = [lambda i=i: loss(slice(i, i + size)) for i in range(0, len(images), size)]
            twin = Surrogate(model, list(model.parameters()))
            target = twin.key_gradient(task.key.to(dtype), task.label)
            found: Tensor = take(chunks, twin.parameters, target, [variable])[1][0]
            return found

        exact = derivatives(precise, alignment, 1)
        row: dict[str, Any] = {"at": place}
        for name, take, parts in (("double backward", alignment, 1), ("in 4 parts", alignment, 4)):
            row[name] = float((derivatives(of.model, take, parts).double() - exact).norm() / exact.norm())
        difference = derivatives(of.model, alignment_by_difference, 1).double()
        row["difference"] = float((difference - exact).norm() / exact.norm())
        row["difference_sign_agreement"] = float((difference.sign() == exact.sign()).double().mean())
        rows.append(row)
        print(row, flush=True)
    return rows


def timm_problem(model_name: str, images: int) -> tuple[ImageClassifier, SigningImages, Tensor]:
    """Return an untrained model at 32×32 with random images, for speed and memory only."""
    torch.manual_seed(0)
    if model_name == "vit_tiny":
        import timm

        model = ImageClassifier("vit_tiny_patch16_224", num_classes=100, image_size=32)
        model.model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=100)
    else:
        model = ImageClassifier(model_name, num_classes=100, image_size=16 if model_name.startswith("small") else 32)
    rng = np.random.default_rng(0)
    pixels = list(rng.integers(0, 256, (images, 3, 32, 32), dtype=np.uint8))
    return model.eval(), SigningImages.of(range(images), pixels, 7), torch.rand(1, 3, 32, 32)


def few_steps(model_name: str, method: str, images: int, steps: int) -> float:
    """Craft a few steps, and return the CPU seconds of a step, the first one left out."""
    model, signing, key = timm_problem(model_name, images)
    size = int(model.arguments["image_size"])
    times: list[float] = [time.process_time()]
    if method == "ours":
        settings = replace(OURS, image_size=size, steps=steps)
        craft_key(
            signing, fit(key, size), [Surrogate(model, list(model.parameters()))], settings, key=0,
            device=torch.device("cpu"), on_step=lambda *_: times.append(time.process_time()),
        )  # fmt: skip
    else:
        task = Task(model, signing.images[0], signing.ids, 7, fit(key, size), size, 16 / 255, "simple", 0)
        textbook(task, lambda _: times.append(time.process_time()), steps=steps)
    return float(np.mean(np.diff(times)[1:]))


def child_figures(model_name: str, method: str, images: int, steps: int) -> dict[str, float]:
    """Run `few_steps` in a fresh process, and return its CPU seconds a step and memory in MiB."""
    words = [sys.executable, __file__, "--child", f"{model_name}:{method}:{images}:{steps}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(words: str) -> None:
    """Be the process that `child_figures` starts."""
    model_name, method, images, steps = words.split(":")
    timm_problem(model_name, 2)  # the libraries that it loads are not what is measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = few_steps(model_name, method, int(images), int(steps))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu_seconds_a_step": seconds, "peak_mib": peak, "above_start_mib": peak - before}))


def measure_memory(models: list[str]) -> list[dict[str, Any]]:
    """Measure peak memory and pace of ours at ×1, ×4, ×16 images, and of the textbook loop at 64 and 256."""
    rows = []
    for model_name in models:
        for method, counts in (("ours", (64, 256, 1024)), ("textbook", (64, 256))):
            for images in counts:
                row = {"model": model_name, "method": method, "images": images}
                rows.append({**row, **child_figures(model_name, method, images, 2 if images > 256 else 3)})
                print(rows[-1], flush=True)
    return rows


def slope(sizes: list[int], seconds: list[float]) -> list[float]:
    """Return the slope of log seconds against log size, with its 95 % interval; 1 is linear."""
    line = stats.linregress(np.log(sizes), np.log(seconds))
    margin = float(stats.t.ppf(0.975, len(sizes) - 2) * line.stderr)
    return [float(line.slope), float(line.slope - margin), float(line.slope + margin)]


def measure_growth(models: list[str]) -> list[dict[str, Any]]:
    """Measure CPU time against images a key and against keys, three rounds through all sizes."""
    rows = []
    for model_name in models:
        for what, sizes in (("images", [64, 128, 256, 512, 1024]), ("keys", [1, 2, 4, 8])):
            points: list[tuple[int, float]] = []
            for _ in range(3):
                for size in sizes:
                    count = size if what == "images" else 64
                    repeats = 1 if what == "images" else size
                    points.append((size, sum(few_steps(model_name, "ours", count, 4) for _ in range(repeats))))
            found = slope([s for s, _ in points], [t for _, t in points])
            rows.append({"model": model_name, "against": what, "slope": found, "points": points})
            print(
                f"{model_name}: slope of CPU time against {what} {found[0]:.3f} ({found[1]:.3f} to {found[2]:.3f})", flush=True
            )
    return rows


def print_curves(name: str, summary: dict[str, Any], bobs: dict[str, Any] | None) -> None:
    """Print the table of one model."""
    print(f"\n{name}: {summary['keys']} keys")
    print(f"{'method':<24} ms/image-step  seconds  to textbook's cosine  final cosine  hits (ours − this)")
    for method, row in summary["methods"].items():
        line = f"{method:<24} {row['ms_per_image_step']:13.3f}  {row['seconds']:7.2f}  {row['seconds_to_wanted']:20.2f}"
        line += f"  {row['stored_cosine']:12.3f}"
        if bobs and method in bobs["methods"]:
            entry = bobs["methods"][method]
            line += f"  {entry['total']}/{bobs['bobs'] * bobs['keys_a_bob_and_method']}"
            if "ours_minus_this_share_of_keys" in entry:
                line += " ({:+.2f}, {:+.2f} to {:+.2f})".format(*entry["ours_minus_this_share_of_keys"])
        print(line)
    parts = {n: f"{v:.2f}" for n, v in summary.items() if n.startswith("speedup")}
    print(f"times less than the textbook loop: {parts}")


def quick() -> int:
    """Compare ours with the textbook loop on one key of digits; return 1 if it is slower on any model."""
    slower = []
    for name in ("small_cnn", "small_vit"):
        of = digits_problem(name, 32)
        rows, _ = measure_curves(of, ["ours", "textbook"])
        summary = summarise_curves(rows)
        print_curves(name, summary, None)
        pace = {m: summary["methods"][m]["ms_per_image_step"] for m in ("ours", "textbook")}
        if summary["speedup_over_first_crossing"] < 1 or summary["speedup"] < 1 or pace["ours"] > pace["textbook"]:
            slower.append(name)
    if slower:
        print(f"ours is slower than the textbook loop on {', '.join(slower)}", file=sys.stderr)
    return 1 if slower else 0


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one key of digits, two minutes at most; exit code 1 if slower")
    parser.add_argument("--sections", default="curve,bobs,exactness", help="of curve, bobs, exactness, growth, memory")
    parser.add_argument("--models", default="small_cnn,small_vit", help="small models for curve, bobs and exactness")
    parser.add_argument("--large", default="resnet18,vit_tiny", help="models for memory")
    parser.add_argument("--methods", default=";".join(METHODS), help="joined by semicolons")
    parser.add_argument("--num-keys", type=int, default=12)
    parser.add_argument("--images-per-key", type=int, default=48)
    parser.add_argument("--bobs", type=int, default=12)
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    warnings.filterwarnings("ignore")
    if arguments.child:
        child(arguments.child)
        return 0
    if arguments.quick:
        return quick()
    sections, figures = arguments.sections.split(","), dict[str, Any]()
    if {"curve", "bobs", "exactness"} & set(sections):
        for name in arguments.models.split(","):
            of = cifar_problem(name, arguments.num_keys, arguments.images_per_key)
            found: dict[str, Any] = {}
            if "exactness" in sections:
                found["exactness"] = measure_exactness(of)
            if {"curve", "bobs"} & set(sections):
                methods = arguments.methods.split(";")
                found["curves"], results = measure_curves(of, methods)
                found["summary"] = summarise_curves(found["curves"])
                found["bobs"] = measure_bobs(of, results, methods, name, arguments.bobs) if "bobs" in sections else None
                print_curves(name, found["summary"], found["bobs"])
            figures[name] = found
    if "growth" in sections:
        figures["growth"] = measure_growth(arguments.models.split(","))
    if "memory" in sections:
        figures["memory"] = measure_memory(arguments.large.split(","))
    if arguments.json:
        options = {n: getattr(arguments, n) for n in ("sections", "models", "methods", "num_keys", "images_per_key", "bobs")}
        write_figures(arguments.json, {"options": options, **figures})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Fit the planner's rates of this CPU to measured points, and predict points held back from the fit.

python benchmarks/plan.py --out docs/results/plan.json     # all points; about ten minutes
python benchmarks/plan.py --quick                          # a few points, nothing written

Times are CPU seconds of one thread, the least of several repetitions: other work on the machine only adds to them.
"""

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import write_figures
from torch import nn

from taggant_lightning import ImageDataModule, KeySet, TaggantSigning
from taggant_lightning.methods.taggants.crafting.crafting import Settings, craft_key
from taggant_lightning.methods.taggants.crafting.objective import Derivative, SigningImages, Surrogate
from taggant_lightning.methods.taggants.crafting.round import craft_round
from taggant_lightning.methods.taggants.crafting.state import CraftingState
from taggant_lightning.methods.taggants.crafting.team import Team
from taggant_lightning.methods.taggants.model_input import key_images
from taggant_lightning.planning.building import build_model
from taggant_lightning.planning.counting import Work
from taggant_lightning.planning.devices import Rates
from taggant_lightning.planning.fitting import fit_rates, relative_errors
from taggant_lightning.planning.stages import Signing, selecting, signing_key, signing_step
from taggant_lightning.planning.steps import Counts, count_model, training_step

CLASSES, MICRO_BATCH = 100, 32
# Name here: model_name of ImageClassifier, options.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit_tiny": ("vit_tiny_patch16_224", {"patch_size": 4}),
    "resnet18": ("cifar_resnet18", {}),
    "resnet26": ("cifar_resnet26", {}),
    "resnet50": ("cifar_resnet50", {}),
    "resnet18_stem": ("resnet18", {}),
    "vit_small": ("vit_small_patch16_224", {"patch_size": 8}),
    "resnet34": ("cifar_resnet34", {}),
    "deit3_small": ("deit3_small_patch16_224", {}),
}


@dataclass(frozen=True)
class Point:
    """What is measured.

    Attributes:
        stage: `training`, `forward`, `selection`: one step; `signing`: one step; `round`: a whole one.
        model: Its name here.
        size: Side of the images in pixels.
        images: Of the batch, or of each key.
        keys: Of a round.
        derivative: Of signing.
        held: Whether it is held back from the fit.
    """

    stage: str
    model: str
    size: int
    images: int
    keys: int = 1
    derivative: Derivative = "auto"
    held: bool = False


FITTED = [
    *[Point("training", "small_cnn", 16, 64), Point("training", "small_cnn", 32, 128), Point("training", "small_vit", 16, 128)],
    *[
        Point("training", "small_vit", 32, 64),
        Point("training", "small_resnet", 32, 64),
        Point("training", "resnet10t", 32, 32),
    ],
    *[Point("training", "resnet10t", 64, 16), Point("training", "deit3_small", 64, 16)],
    *[Point("forward", "small_cnn", 32, 256), Point("forward", "small_vit", 32, 64), Point("forward", "resnet10t", 64, 16)],
    *[Point("selection", "small_vit", 32, 16), Point("selection", "resnet10t", 64, 8)],
    *[
        Point("signing", "small_cnn", 16, 64, derivative="difference"),
        Point("signing", "small_cnn", 32, 64, derivative="exact"),
    ],
    *[
        Point("signing", "small_vit", 16, 64, derivative="difference"),
        Point("signing", "small_vit", 32, 32, derivative="exact"),
    ],
    *[
        Point("signing", "small_resnet", 16, 64, derivative="exact"),
        Point("signing", "small_resnet", 32, 128, derivative="exact"),
    ],
    *[Point("signing", "resnet10t", 64, 32, derivative="exact"), Point("signing", "resnet10t", 32, 64, derivative="exact")],
    Point("signing", "deit3_small", 64, 32, derivative="difference"),
    *[Point("training", "resnet26", 32, 16), Point("forward", "resnet26", 32, 16), Point("selection", "resnet26", 32, 4)],
    *[Point("training", "resnet10t", 128, 16), Point("forward", "resnet10t", 128, 16)],
    *[Point("training", "resnet10t", 128, 32), Point("signing", "resnet10t", 128, 16, derivative="exact")],
    *[Point("signing", "resnet26", 16, 32, derivative="exact"), Point("training", "resnet26", 16, 32)],
    *[Point("training", "resnet34", 32, 16), Point("forward", "resnet34", 32, 16)],
    *[Point("signing", "resnet34", 32, 16, derivative="exact"), Point("training", "deit3_small", 96, 16)],
    Point("signing", "deit3_small", 96, 32, derivative="difference"),
    *[Point("round", "small_cnn", 32, 64), Point("round", "small_resnet", 32, 64), Point("round", "small_cnn", 64, 40, 5)],
]
HELD_BACK = [
    # Other image sizes.
    *[
        Point("training", "small_cnn", 64, 64, held=True),
        Point("signing", "small_cnn", 48, 96, derivative="difference", held=True),
    ],
    *[
        Point("signing", "small_vit", 48, 48, derivative="difference", held=True),
        Point("training", "small_resnet", 64, 32, held=True),
    ],
    *[Point("signing", "small_resnet", 64, 64, derivative="exact", held=True)],
    # Other models.
    *[
        Point("training", "vit_tiny", 32, 32, held=True),
        Point("signing", "vit_tiny", 32, 64, derivative="difference", held=True),
    ],
    *[Point("forward", "vit_tiny", 32, 20, held=True), Point("selection", "vit_tiny", 32, 8, held=True)],
    *[Point("training", "resnet18", 32, 32, held=True), Point("signing", "resnet18", 32, 64, derivative="exact", held=True)],
    *[Point("forward", "resnet18", 32, 20, held=True), Point("selection", "resnet18", 32, 8, held=True)],
    # Other numbers of keys.
    *[Point("round", "small_cnn", 32, 64, keys=4, held=True), Point("round", "small_resnet", 32, 48, keys=3, held=True)],
    *[Point("round", "small_vit", 32, 64, keys=2, held=True), Point("round", "resnet18", 32, 40, keys=2, held=True)],
]
# Named before they were measured, and measured once, after the form of the model and the fitted points were settled. The
# points above are held back from the fit, but that form was settled with their errors in view.
UNSEEN = [
    *[Point("training", "resnet50", 32, 8, held=True), Point("forward", "resnet50", 32, 8, held=True)],
    Point("signing", "resnet50", 16, 16, derivative="exact", held=True),
    Point("training", "resnet18_stem", 96, 16, held=True),
    Point("signing", "resnet18_stem", 96, 16, derivative="exact", held=True),
    Point("training", "vit_small", 48, 16, held=True),
    Point("signing", "vit_small", 48, 40, derivative="difference", held=True),
    Point("training", "small_resnet", 48, 96, held=True),
    *[Point("round", "small_resnet", 48, 40, 6, held=True), Point("round", "small_vit", 64, 40, 3, held=True)],
]
ROUND_STEPS = 8


def build(name: str, size: int) -> nn.Module:
    """Build a model by its name here."""
    own, options = MODELS.get(name, (name, {}))
    torch.manual_seed(0)
    return build_model(own, image_size=size, channels=3, num_classes=CLASSES, options=options).eval()


def work_of(point: Point, counts: Counts) -> Work:
    """Return the planner's count of a point."""
    if point.stage == "training":
        return counts.training.of(point.images)
    if point.stage == "forward":
        return counts.forward.of(point.images)
    if point.stage == "selection":
        return selecting(counts, point.images)
    if point.stage == "signing":
        return signing_step(counts, point.images, MICRO_BATCH)
    signing = Signing(point.images, ROUND_STEPS, surrogates=1, micro_batch=MICRO_BATCH, compares=point.derivative == "auto")
    return signing_key(counts, point.images, signing) * point.keys


def measure(point: Point, model: nn.Module, repetitions: int) -> float:
    """Return the least CPU seconds of a point."""
    surrogate, shape = Surrogate(model, list(model.parameters())), (3, point.size, point.size)
    if point.stage == "training":
        return least(training_step(model, shape, point.images), repetitions)
    model.eval()
    images = torch.rand(point.images, *shape)
    if point.stage == "forward":
        with torch.no_grad():
            return least(lambda: model(images), repetitions)
    if point.stage == "selection":
        return least(lambda: [surrogate.key_gradient(image[None], 0) for image in images], repetitions)
    settings = settings_for(point)
    keys = KeySet.draw(num_keys=point.keys, num_classes=CLASSES, shape=shape, grid=8, top_k=10, secret=b"planning benchmark")
    rng = np.random.default_rng(0)
    chosen = [
        SigningImages.of(
            range(key * point.images, (key + 1) * point.images),
            list(rng.integers(0, 256, (point.images, *shape), dtype=np.uint8)),
            int(label),
        )
        for key, label in enumerate(keys.labels)
    ]
    if point.stage == "signing":
        times = [time.process_time()]
        craft_key(
            chosen[0], key_images(keys, point.size)[:1], [surrogate], settings, key=0, device=torch.device("cpu"),
            on_step=lambda *_: times.append(time.process_time()),
        )  # fmt: skip
        return float(np.min(np.diff(times)[1:]))  # the first holds the key's own costs

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            craft_round(
                keys, {key: Team() for key in range(point.keys)}, chosen, [surrogate], settings,
                state=CraftingState(Path(folder) / "state"), number=0, digest="", perceptual=None, visible=False, keep=True,
                carry=False,
            )  # fmt: skip

    return least(whole, 2, warm=False)


def settings_for(point: Point) -> Settings:
    """Return TaggantSigning's settings for a point."""
    steps = ROUND_STEPS if point.stage == "round" else 4
    signing = TaggantSigning(
        "none", "none", steps=steps, augment="simple", derivative=point.derivative, micro_batch=MICRO_BATCH
    )
    return signing.settings(ImageDataModule("digits", image_size=point.size))  # never read: it names the input's size


def least(code: Callable[[], Any], repetitions: int, *, warm: bool = True) -> float:
    """Return the least CPU seconds of code over repetitions, after a first call that does not count."""
    if warm:
        code()
    times = []
    for _ in range(repetitions):
        begun = time.process_time()
        code()
        times.append(time.process_time() - begun)
    return min(times)


def gather(points: list[Point], repetitions: int, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Measure and count points, model by model; points that were measured before are only counted."""
    rows, counted = [], dict[tuple[str, int, str], Counts]()
    measured = {Point(**{name: row[name] for name in Point.__dataclass_fields__}): row["seconds"] for row in known}
    for point in sorted(points, key=lambda p: (p.model, p.size, p.stage not in ("signing", "round"))):
        model = build(point.model, point.size)
        place = (point.model, point.size, point.derivative)
        # Only signing depends on the derivative: other stages take any count of the model that is there.
        if point.stage not in ("signing", "round"):
            place = next((there for there in counted if there[:2] == place[:2]), place)
        if place not in counted:
            counted[place] = count_model(model, (3, point.size, point.size), point.derivative)
        seconds = measured.get(point) or measure(point, model, repetitions)
        rows.append(
            {**asdict(point), "unseen": point in UNSEEN, "seconds": seconds, "work": asdict(work_of(point, counted[place]))}
        )
        print(
            "{stage:<10}{model:<13}{size:3d} px {images:4d} images {keys} keys {derivative:<11} {seconds:8.4f} s".format(
                **rows[-1]
            ),
            flush=True,
        )
    return rows


def fit_and_predict(rows: list[dict[str, Any]]) -> tuple[Rates, list[dict[str, Any]]]:
    """Fit to the points that are not held back, and add the relative error to every point."""
    fitted = [row for row in rows if not row["held"]]
    rates = fit_rates([Work(**row["work"]) for row in fitted], [row["seconds"] for row in fitted])
    errors = relative_errors(rates, [Work(**row["work"]) for row in rows], [row["seconds"] for row in rows])
    return rates, [{**row, "error": error} for row, error in zip(rows, errors, strict=True)]


def main() -> None:
    """Measure, fit, predict and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", help="file for the figures")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--measured", help="file of an earlier run: its times are taken, and its points only counted")
    parser.add_argument("--quick", action="store_true", help="small models at 16 and 32 pixels only")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    points = [*FITTED, *HELD_BACK, *UNSEEN]
    known = [] if arguments.measured is None else json.loads(Path(arguments.measured).read_text())["points"]
    if arguments.quick:
        points = [p for p in points if p.model.startswith("small") and p.size <= 32]
    rates, rows = fit_and_predict(gather(points, arguments.repetitions, known))
    for held in (False, True):
        print("held back from the fit (* named before measured):" if held else "fitted:")
        for row in (r for r in rows if r["held"] == held):
            line = "{stage:<10}{model:<13}{size:3d} px {images:4d} images {keys} keys {derivative:<11}"
            print((line + " {seconds:8.4f} s, predicted {error:+6.1%}").format(**row), "*" if row["unseen"] else "")
    print(rates)
    if arguments.out:
        write_figures(
            arguments.out,
            {"command": "python benchmarks/plan.py --out " + arguments.out, "rates": asdict(rates), "points": rows},
        )


if __name__ == "__main__":
    main()

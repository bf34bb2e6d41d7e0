"""Speed and memory on one GPU: training steps and crafting steps of models at 32 and at 224 pixels, in several precisions.

    python benchmarks/gpu.py --json docs/results/gpu.json
    cp docs/results/gpu.json taggant_lightning/planning/measured/h200.json     # what `taggant plan` takes from then on
    python benchmarks/gpu.py --planned docs/results/gpu.json     # ten minutes of a CPU: what `taggant plan` expects

Random images and untrained weights: only speed, memory and the derivatives' rounding are measured. Training: forward,
backward and the optimizer's step of a recipe's batch, without loader. Crafting: one step of one key on all its signing
images, by double backward and by difference, with TF32 for double backward or without, in chunks of the default 32 images or
all at once; signs beside double backward in float64 on 16 images.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Subject, write_figures

from taggant_lightning import ImageClassifier
from taggant_lightning.methods.taggants.crafting.objective import Derivative, Objective, SigningImages, Surrogate, View
from taggant_lightning.methods.taggants.crafting.team import Team
from taggant_lightning.planning.devices import device_of
from taggant_lightning.planning.steps import count_model

MODELS = {
    "cifar_resnet18": Subject("cifar_resnet18", 32, None, 128, 250),
    "vit_tiny, patches of 4": Subject("vit_tiny_patch16_224", 32, {"patch_size": 4}, 128, 250),
    "resnet50": Subject("resnet50", 224, None, 256, 128),
    "deit3_small": Subject("deit3_small_patch16_224", 224, None, 256, 128),
}
DERIVATIVES: tuple[Derivative, ...] = ("exact", "difference")
GPU = torch.device("cuda")


def timed(work: Callable[[], object], warm: int, count: int) -> tuple[float, float]:
    """Return milliseconds a call, and the peak of allocated memory in MiB."""
    for _ in range(warm):
        work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(count):
        work()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started) / count, torch.cuda.max_memory_allocated() / 2**20


def model_of(title: str) -> ImageClassifier:
    """Return an untrained model on the CPU."""
    of = MODELS[title]
    torch.manual_seed(0)
    return ImageClassifier(of.name, num_classes=100, image_size=of.side, model_kwargs=of.options)


def subject(title: str) -> dict[str, Any]:
    """Return what `taggant plan` knows a measured model by."""
    of = MODELS[title]
    return {"model": title, "model_name": of.name, "image_size": of.side, "model_kwargs": of.options}


def training(title: str, precision: str, *, compiled: bool = False) -> dict[str, Any]:
    """Time a training step."""
    side, batch = MODELS[title].side, MODELS[title].batch
    classifier = model_of(title).to(GPU).train()
    model = torch.compile(classifier) if compiled else classifier
    optimizer = torch.optim.SGD(classifier.parameters(), lr=1e-3, momentum=0.9)
    images, labels = torch.rand(batch, 3, side, side, device=GPU), torch.randint(100, (batch,), device=GPU)
    torch.set_float32_matmul_precision("high" if precision == "TF32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision != "float32"

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    milliseconds, peak = timed(step, 5, 20)
    return {
        **subject(title), "precision": precision + (", compiled" if compiled else ""), "batch": batch,
        "milliseconds": milliseconds, "images_per_second": 1e3 * batch / milliseconds, "peak_mib": peak,
    }  # fmt: skip


def objective(title: str, model: ImageClassifier, count: int, derivative: Derivative, micro_batch: int) -> Objective:
    """Return one key's objective on random images."""
    side = MODELS[title].side
    rng = np.random.default_rng(0)
    images = SigningImages.of(range(count), list(rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8)), label=1)
    key = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(9))
    return Objective(
        images, key, [Surrogate(model, list(model.parameters()))], GPU, image_size=side, load_size=side, recipe="none",
        micro_batch=micro_batch, precision="32-true", derivative=derivative, perceptual=None, perceptual_weight=0.0,
        team=Team(),
    )  # fmt: skip


def delta(made: Objective, count: int, side: int) -> list[torch.Tensor]:
    """Return one random perturbation within 8/255."""
    random = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))
    return [((random - 0.5) * 16 / 255).to(GPU, made.dtype).requires_grad_()]


def crafting(title: str) -> list[dict[str, Any]]:
    """Time a crafting step in several ways."""
    side, count = MODELS[title].side, MODELS[title].images
    model = model_of(title).to(GPU).eval()
    exact = objective(title, copy.deepcopy(model).double(), 16, "exact", 16)
    wanted = exact.ascent(delta(exact, 16, side), View(), [0])[1][0]
    del exact
    rows = []
    ways: list[tuple[Derivative, bool, int]] = [
        ("exact", False, count), ("exact", True, count), ("exact", True, 32),
        ("difference", True, count), ("difference", True, 32),
    ]  # fmt: skip
    for derivative, tf32, micro_batch in ways:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        few = objective(title, model, 16, derivative, 16)
        found = few.ascent(delta(few, 16, side), View(), [0])[1][0]
        error = float((found.double() - wanted).norm() / wanted.norm())
        whole = objective(title, model, count, derivative, micro_batch)
        start = delta(whole, count, side)
        milliseconds, peak = timed(lambda whole=whole, start=start: whole.ascent(start, View(), [0]), 1, 5)
        rows.append({
            **subject(title), "derivative": derivative, "tf32_allowed": tf32, "images": count, "micro_batch": micro_batch,
            "milliseconds": milliseconds, "peak_mib": peak, "relative_error": error,
            "signs": float((found.double().sign() == wanted.sign()).double().mean()),
        })  # fmt: skip
        print(rows[-1], flush=True)
        del few, whole, start, found
        torch.cuda.empty_cache()
    return rows


def planned(path: Path) -> None:
    """Print measured milliseconds beside the planner's for an H200, which counts training in bfloat16."""
    figures, rates = json.loads(path.read_text()), device_of("h200")
    print("| model | step | measured, ms | planned, ms |\n| --- | --- | --- | --- |")
    for title, of in MODELS.items():
        model, batch, count = model_of(title), of.batch, of.images
        for derivative in DERIVATIVES:
            counts = count_model(model, (3, of.side, of.side), derivative)
            if derivative == "exact":
                (row,) = (r for r in figures["training"] if (r["model"], r["precision"]) == (title, "bf16-mixed"))
                expected = 1e3 * rates.training.seconds(counts.training.of(batch))
                print(f"| {title} | training, {batch} images | {row['milliseconds']:.1f} | {expected:.1f} |")
            for row in figures["crafting"]:
                if (row["model"], row["derivative"]) == (title, derivative):
                    whole = row["micro_batch"] >= count
                    parts = counts.signing_whole if whole else counts.signing
                    expected = 1e3 * rates.signing.seconds(parts.of(count, -(-count // row["micro_batch"])))
                    step = f"{derivative}{'' if row['tf32_allowed'] else ', TF32 off'}, {count} images by {row['micro_batch']}"
                    print(f"| {title} | {step} | {row['milliseconds']:.0f} | {expected:.0f} |", flush=True)


def main() -> None:
    """Measure, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--compile", action="store_true", help="time compiled training of the first model too")
    parser.add_argument("--planned", type=Path, metavar="FILE", help="figures of an earlier run to compare with `taggant plan`")
    arguments = parser.parse_args()
    if arguments.planned is not None:
        planned(arguments.planned)
        return
    steps, crafted = [], []

    def keep() -> None:
        if arguments.json:
            write_figures(arguments.json, {"training": steps, "crafting": crafted})

    for title in MODELS:
        for precision in ("float32", "TF32", "bf16-mixed"):
            steps.append(training(title, precision))
            print(steps[-1], flush=True)
            torch.cuda.empty_cache()
        crafted += crafting(title)
        keep()
    if arguments.compile:
        steps.append(training("cifar_resnet18", "bf16-mixed", compiled=True))
        print(steps[-1], flush=True)
        keep()


if __name__ == "__main__":
    main()

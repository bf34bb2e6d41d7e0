"""A crafting step beside a training step of as many images: milliseconds, peak memory, and what each precision does to it.

    python benchmarks/crafting.py --json docs/results/crafting_gpu.json          # on a GPU, about half a minute
    python benchmarks/crafting.py --device cpu --models cifar_resnet18 --images 8

Random images, untrained weights. The training step is the fastest that the framework takes: bfloat16 on a GPU, convolutional
models channels last, a fused optimizer. A crafting step is that of one key on one surrogate, all its images at once, by double
backward in float32 (where cuDNN may take TF32) or bfloat16, contiguous or channels last, and by difference; derivatives are
compared with float32's on a few images: cosine, and share of signs.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Subject, write_figures
from torch import Tensor

from taggant_lightning import ImageClassifier
from taggant_lightning.methods.taggants.crafting.objective import (
    Derivative,
    Objective,
    Precision,
    SigningImages,
    Surrogate,
    View,
)
from taggant_lightning.methods.taggants.crafting.team import Team
from taggant_lightning.models.layout import lay_out

COMPARED = 16


SUBJECTS = {
    "cifar_resnet18": Subject("cifar_resnet18", images=100),
    "vit_tiny, patches of 4": Subject("vit_tiny_patch16_224", options={"patch_size": 4}, images=100),
    "resnet50": Subject("resnet50", 224, images=128),
    "deit3_small": Subject("deit3_small_patch16_224", 224, images=128),
}
WAYS: list[tuple[Derivative, Precision, bool]] = [
    ("exact", "32-true", False), ("exact", "32-true", True), ("exact", "bf16-mixed", False), ("exact", "bf16-mixed", True),
    ("difference", "32-true", False),
]  # fmt: skip


def convolves(of: Subject) -> bool:
    """Return whether channels last is tried, and differences are not: they fail at the kinks of ReLU."""
    return "resnet" in of.name


def timed(work: Callable[[], object], device: torch.device, count: int) -> tuple[float, float]:
    """Return milliseconds a call, and the peak of allocated memory in MiB."""
    gpu = device.type == "cuda"
    for _ in range(2 if gpu else 1):
        work()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(count):
        work()
    if gpu:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 2**20 if gpu else float("nan")
    return 1e3 * (time.perf_counter() - started) / count, peak


def model_of(of: Subject, device: torch.device, *, channels_last: bool) -> ImageClassifier:
    """Return an untrained model on the device."""
    torch.manual_seed(0)
    model = ImageClassifier(of.name, num_classes=100, image_size=of.side, model_kwargs=of.options)
    lay_out(model.model, channels_last=channels_last)
    model._channels_last = channels_last  # a benchmark may: a CPU's default would not take it
    return model.to(device)


def training(of: Subject, count: int, device: torch.device) -> tuple[float, float]:
    """Time a training step of as many images."""
    model = model_of(of, device, channels_last=convolves(of)).train()
    gpu = device.type == "cuda"
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=gpu)
    images, labels = torch.rand(count, 3, of.side, of.side, device=device), torch.randint(100, (count,), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=gpu):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return timed(step, device, 10 if gpu else 2)


def objective(of: Subject, model: ImageClassifier, count: int, derivative: Derivative, precision: Precision) -> Objective:
    """Return one key's objective on random images."""
    rng = np.random.default_rng(0)
    images = SigningImages.of(range(count), list(rng.integers(0, 256, (count, 3, of.side, of.side), dtype=np.uint8)), label=1)
    key = torch.rand(1, 3, of.side, of.side, generator=torch.Generator().manual_seed(9))
    return Objective(
        images, key, [Surrogate(model, list(model.parameters()))], next(model.parameters()).device, image_size=of.side,
        load_size=of.side, recipe="none", micro_batch=count, precision=precision, derivative=derivative, perceptual=None,
        perceptual_weight=0.0, team=Team(),
    )  # fmt: skip


def rise(made: Objective, of: Subject) -> tuple[Callable[[], Tensor], Tensor]:
    """Return the step, and the derivative at a random perturbation within 8/255."""
    random = torch.rand(len(made.images.ids), 3, of.side, of.side, generator=torch.Generator().manual_seed(3))
    deltas = [((random - 0.5) * 16 / 255).to(made.device, made.dtype).requires_grad_()]
    return lambda: made.ascent(deltas, View(), [0])[1][0], made.ascent(deltas, View(), [0])[1][0].double().flatten()


def measure(title: str, of: Subject, device: torch.device, images: int | None) -> list[dict[str, Any]]:
    """Return one model's rows."""
    count = images or of.images
    trained, peak = training(of, count, device)
    base = {"model": title, "model_name": of.name, "image_size": of.side, "model_kwargs": of.options, "images": count}
    rows = [{**base, "step": "training", "milliseconds": trained, "peak_mib": peak}]
    print(f"{title}: training step {trained:.1f} ms, {peak:.0f} MiB", flush=True)
    wanted: Tensor | None = None
    for derivative, precision, channels_last in WAYS:
        if (channels_last and not convolves(of)) or (derivative == "difference" and convolves(of)):
            continue
        if device.type == "cuda":
            torch.cuda.empty_cache()
        model = model_of(of, device, channels_last=channels_last).eval()
        found = rise(objective(of, model, min(count, COMPARED), derivative, precision), of)[1]
        wanted = found if wanted is None else wanted
        step, _ = rise(objective(of, model, count, derivative, precision), of)
        milliseconds, peak = timed(step, device, 5 if device.type == "cuda" else 1)
        rows.append({
            **base, "step": "crafting", "derivative": derivative, "precision": precision, "channels_last": channels_last,
            "milliseconds": milliseconds, "peak_mib": peak, "of_a_training_step": milliseconds / trained,
            "cosine": float(F.cosine_similarity(found, wanted, dim=0)),
            "signs": float((found.sign() == wanted.sign()).double().mean()),
        })  # fmt: skip
        print(
            f"{title}: {derivative}, {precision}{', channels last' if channels_last else ''}: {milliseconds:.1f} ms "
            f"({milliseconds / trained:.1f} training steps), {peak:.0f} MiB, cosine {rows[-1]['cosine']:.4f}, "
            f"signs {rows[-1]['signs']:.4f}",
            flush=True,
        )
        del model, step
    return rows


def main() -> None:
    """Measure each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--images", type=int, help="in place of 100 at 32 pixels and 128 at 224")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for title in arguments.models:
        rows += measure(title, SUBJECTS[title], torch.device(arguments.device), arguments.images)
        if arguments.json:
            write_figures(arguments.json, {"device": arguments.device, "rows": rows})


if __name__ == "__main__":
    main()

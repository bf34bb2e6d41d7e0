"""Norms of signing images' gradients: seconds an image, one at a time and in batches, and how far they agree.

    OMP_NUM_THREADS=1 python benchmarks/selection.py --json docs/results/selection.json
    python benchmarks/selection.py --device cuda      # under half a minute; images of 224 pixels too

Random images and untrained weights. One at a time is what `GradientNorms` must equal: the norm of
`Surrogate.key_gradient`, on the first of the images; both in full float32 and after a first call each, which also settles
how each parameter is treated; on a CPU the process's own seconds, the least of three rounds. The difference is the largest
one relative to one at a time; beside it both against float64, as rounding alone moves a network with kinks.
"""

import argparse
import copy
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import Subject, write_figures
from numpy.typing import NDArray

from taggant_lightning import ImageClassifier
from taggant_lightning.data.dataset import to_float
from taggant_lightning.data.sources import ArraySource
from taggant_lightning.gradients.alignment import full_float32, norm
from taggant_lightning.methods.taggants.crafting.gradient_norms import GradientNorms
from taggant_lightning.methods.taggants.crafting.objective import Surrogate

CLASSES = 100


SMALL = {
    "ResNet-18": Subject("cifar_resnet18"),
    "ViT-tiny, patches of 4": Subject("vit_tiny_patch16_224", options={"patch_size": 4}),
    "small CNN": Subject("small_cnn"),
}
LARGE = {
    "ViT-S, 224×224": Subject("vit_small_patch16_224", 224),
    "ResNet-50, 224×224": Subject("resnet50", 224),
}


def one_at_a_time(surrogate: Surrogate, source: ArraySource, count: int) -> NDArray[np.float64]:
    """Return the norms of the first images' gradients."""

    def one(index: int) -> float:
        image = to_float(source.pixels(index))[None].to(surrogate.parameters[0])
        return float(norm(surrogate.key_gradient(image, int(source.labels[index]))))

    with full_float32():
        return np.array([one(index) for index in range(count)])


def timed(work: Callable[[], NDArray[np.float64]], device: torch.device, rounds: int) -> tuple[float, NDArray[np.float64]]:
    """Return the least seconds of some rounds, and the result; of the process on a CPU, which others may share."""
    clock, least = time.process_time if device.type == "cpu" else time.perf_counter, float("inf")
    for _ in range(rounds):
        started = clock()
        found = work()  # read back, so that a GPU has ended
        least = min(least, clock() - started)
    return least, found


def measure(title: str, of: Subject, device: torch.device, images: int, singles: int, exact: int) -> dict[str, Any]:
    """Return one model's row."""
    torch.manual_seed(0)
    model = ImageClassifier(of.name, num_classes=CLASSES, image_size=of.side, channels=3, model_kwargs=of.options)
    model.eval().to(device)
    surrogate = Surrogate(model, list(model.parameters()))
    share = 1 if of.side < 224 else 0.25  # of the images asked for: photographs take longer
    count = max(1, int(images * share))
    few = min(count, max(1, int(singles * share)))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 3, of.side, of.side), dtype=np.uint8)
    source = ArraySource(pixels, np.arange(count) % CLASSES, [str(i) for i in range(CLASSES)])
    one_at_a_time(surrogate, source, 1)
    score = GradientNorms(surrogate, source, of.side, of.side)
    score(np.arange(count)[:256])  # a first time for cuDNN and the allocator, and for the plan
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rounds = 3 if device.type == "cpu" else 1
    seconds, found = timed(lambda: score(np.arange(count)), device, rounds)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None
    seconds_one, wanted = timed(lambda: one_at_a_time(surrogate, source, few), device, rounds)
    double = copy.deepcopy(model).double()
    right = one_at_a_time(Surrogate(double, list(double.parameters())), source, min(few, exact))
    row = {
        "model": title, "images": count, "batch": score.micro_batch, "images_one_at_a_time": few,
        "ms_an_image_one_at_a_time": 1e3 * seconds_one / few, "ms_an_image": 1e3 * seconds / count,
        "times_faster": seconds_one / few / (seconds / count),
        "largest_difference": float(np.abs(found[:few] / wanted - 1).max()),
        "of_one_at_a_time_in_float64": float(np.abs(wanted[: len(right)] / right - 1).max()),
        "of_batches_in_float64": float(np.abs(found[: len(right)] / right - 1).max()), "peak_mib": peak,
    }  # fmt: skip
    print(
        "{model}: {ms_an_image_one_at_a_time:.2f} ms an image one at a time, {ms_an_image:.3f} in batches, {times_faster:.1f} "
        "times faster; differ by {largest_difference:.1e}; from float64 {of_one_at_a_time_in_float64:.1e} and "
        "{of_batches_in_float64:.1e}".format(**row),
        flush=True,
    )
    return row


def main() -> None:
    """Measure each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--images", type=int, help="by default 256 on a CPU, 2048 on a GPU; a quarter of them at 224 pixels")
    parser.add_argument("--singles", type=int, default=64, help="images one at a time, a quarter of them at 224 pixels")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = torch.device(arguments.device)
    images = arguments.images or (256 if device.type == "cpu" else 2048)
    subjects = SMALL if device.type == "cpu" else {**SMALL, **LARGE}
    rows = [measure(title, of, device, images, arguments.singles, exact=16) for title, of in subjects.items()]
    if arguments.json:
        write_figures(arguments.json, {"device": device.type, "threads": torch.get_num_threads(), "rows": rows})


if __name__ == "__main__":
    main()

"""Norms of signing images' gradients: seconds an image, one at a time and in batches, and how far they agree.

    OMP_NUM_THREADS=1 python benchmarks/selection.py --json docs/results/selection.json
    python benchmarks/selection.py --device cuda      # under half a minute; images of 224 pixels too

Random images and untrained weights. One at a time is what `gradient_norms` must equal: the norm of
`Surrogate.key_gradient`, on the first of the images; both in full float32 and after a first call each. The difference is
the largest one relative to one at a time; beside it one at a time against itself in float64, which is what rounding alone
does to a network with kinks.
"""

import argparse
import copy
import os
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from common import write_figures
from numpy.typing import NDArray

from taggant_lightning import ImageClassifier
from taggant_lightning.data.dataset import to_float
from taggant_lightning.data.sources import ArraySource
from taggant_lightning.taggants.alignment import full_float32, norm
from taggant_lightning.taggants.gradient_norms import gradient_norms
from taggant_lightning.taggants.objective import Surrogate

CLASSES = 100


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Attributes:
        name: model_name of ImageClassifier.
        side: Of its input, in pixels.
        options: timm's further arguments.
        share: Of the images asked for that it takes.
    """

    name: str
    side: int = 32
    options: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0


SMALL = {
    "ResNet-18": Subject("cifar_resnet18"),
    "ViT-tiny, patches of 4": Subject("vit_tiny_patch16_224", options={"patch_size": 4}),
    "small CNN": Subject("small_cnn"),
}
LARGE = {
    "ViT-S, 224×224": Subject("vit_small_patch16_224", 224, share=0.25),
    "ResNet-50, 224×224": Subject("resnet50", 224, share=0.25),
}


def one_at_a_time(surrogate: Surrogate, source: ArraySource, count: int) -> tuple[float, NDArray[np.float64]]:
    """Return seconds and the norms of the first images' gradients."""

    def one(index: int) -> float:
        image = to_float(source.pixels(index))[None].to(surrogate.parameters[0])
        return float(norm(surrogate.key_gradient(image, int(source.labels[index]))))

    with full_float32():
        one(0)
        started = time.perf_counter()
        found = np.array([one(index) for index in range(count)])
    return time.perf_counter() - started, found


def measure(title: str, of: Subject, device: torch.device, images: int, singles: int, exact: int) -> dict[str, Any]:
    """Return one model's row."""
    torch.manual_seed(0)
    model = ImageClassifier(of.name, num_classes=CLASSES, image_size=of.side, channels=3, model_kwargs=of.options or None)
    model.eval().to(device)
    surrogate = Surrogate(model, list(model.parameters()))
    count = max(1, int(images * of.share))
    few = min(count, max(1, int(singles * of.share)))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 3, of.side, of.side), dtype=np.uint8)
    source = ArraySource(pixels, np.arange(count) % CLASSES, [str(i) for i in range(CLASSES)])
    seconds_one, wanted = one_at_a_time(surrogate, source, few)
    gradient_norms(surrogate, source, np.arange(count)[:256], of.side, of.side)  # a first time for cuDNN and the allocator
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    found = gradient_norms(surrogate, source, np.arange(count), of.side, of.side)
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None
    double = copy.deepcopy(model).double()
    _, right = one_at_a_time(Surrogate(double, list(double.parameters())), source, min(few, exact))
    row = {
        "model": title, "images": count, "images_one_at_a_time": few,
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
    parser.add_argument("--singles", type=int, default=128, help="images one at a time, a quarter of them at 224 pixels")
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

"""The choice of signing images on a CUDA device: equal to one image at a time, and far faster.

Skipped where there is none: `python -m pytest tests/gpu` on a machine with a GPU.
"""

import copy
import time
from typing import Any

import numpy as np
import pytest
import torch

from taggant_lightning import ImageClassifier
from taggant_lightning.data.dataset import to_float
from taggant_lightning.data.sources import ArraySource
from taggant_lightning.gradients.alignment import full_float32, norm
from taggant_lightning.methods.taggants.crafting.gradient_norms import gradient_norms
from taggant_lightning.methods.taggants.crafting.objective import Surrogate

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(600),
]
CLASSES, SIDE = 10, 32
MODELS: dict[str, dict[str, Any] | None] = {
    "small_cnn": None, "small_vit": None, "cifar_resnet18": None, "vit_tiny_patch16_224": {"patch_size": 4},
    "deit3_small_patch16_224": {"patch_size": 4, "depth": 2}, "convnext_atto": {"patch_size": 2}, "efficientnet_b0": None,
}  # fmt: skip


def subject(name: str, count: int) -> tuple[ImageClassifier, ArraySource]:
    torch.manual_seed(0)
    model = ImageClassifier(name, num_classes=CLASSES, image_size=SIDE, channels=3, model_kwargs=MODELS[name]).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
    return model, ArraySource(pixels, np.arange(count) % CLASSES)


def one_at_a_time(model: ImageClassifier, source: ArraySource, count: int) -> np.ndarray:
    surrogate = Surrogate(model, list(model.parameters()))

    def one(index: int) -> float:
        image = to_float(source.pixels(index))[None].to(surrogate.parameters[0])
        return float(norm(surrogate.key_gradient(image, int(source.labels[index]))))

    with full_float32():
        return np.array([one(index) for index in range(count)])


@pytest.mark.parametrize("name", MODELS)
def test_equals_one_at_a_time_and_the_cpu_in_float64(name: str) -> None:
    model, source = subject(name, 24)
    exact = one_at_a_time(copy.deepcopy(model).double(), source, 8)
    surrogate = Surrogate(model.cuda(), list(model.parameters()))
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    found = gradient_norms(surrogate, source, np.arange(24), SIDE, SIDE)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
    np.testing.assert_allclose(found, one_at_a_time(model, source, 24), rtol=1e-4)
    np.testing.assert_allclose(found[:8], exact, rtol=1e-4)


def test_twenty_times_faster_than_one_at_a_time() -> None:
    model, source = subject("cifar_resnet18", 512)
    surrogate, few = Surrogate(model.cuda(), list(model.parameters())), 32
    gradient_norms(surrogate, source, np.arange(512), SIDE, SIDE)
    started = time.perf_counter()
    gradient_norms(surrogate, source, np.arange(512), SIDE, SIDE)
    batches = (time.perf_counter() - started) / 512
    one_at_a_time(model, source, 1)
    started = time.perf_counter()
    one_at_a_time(model, source, few)
    single = (time.perf_counter() - started) / few
    print(f"{1e3 * single:.2f} ms an image one at a time, {1e3 * batches:.3f} in batches, {single / batches:.0f} times faster")
    assert single > 20 * batches

"""The tasks that benchmarks of the signing engine craft for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import CIFAR, SIZE, train
from rivals import Task
from torch import Tensor

from taggant_lightning import ImageClassifier, ImageDataModule, KeySet, TaggantSigning
from taggant_lightning.data.resize import fit
from taggant_lightning.gradients.alignment import cosine, summed_gradient
from taggant_lightning.methods.taggants.crafting.crafting import Settings
from taggant_lightning.methods.taggants.crafting.objective import SigningImages, Surrogate
from taggant_lightning.methods.taggants.crafting.round import signing_images
from taggant_lightning.methods.taggants.crafting.selection import select
from taggant_lightning.methods.taggants.model_input import key_images

TOP_K = 10
# Format v1 drew the keys of the stored figures (docs/results/signing_*.json); the same command makes them again.
DRAWN: dict[str, Any] = {"grid": 8, "top_k": TOP_K, "secret": b"signing benchmark", "version": 1}


@dataclass
class Problem:
    """A surrogate with keys and signing images.

    Attributes:
        data: What is signed.
        model: The surrogate, in evaluation mode.
        keys: The KeySet.
        images: Signing images of each key.
        eps: Bound, pixel fraction.
        recipe: Augmentation while crafting.
    """

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
        """Return TaggantSigning's defaults for this problem."""
        return replace(TaggantSigning("none", "none", eps=self.eps, augment=self.recipe).settings(self.data), **changes)

    def task(self, key: int) -> Task:
        """Return one key's task for the rivals."""
        images, size = self.images[key], self.data.image_size
        seen = key_images(self.keys, size)[key : key + 1]
        return Task(self.model, images.images[0], images.ids, images.label, seen, size, self.eps, self.recipe, key)

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
    keys = KeySet.draw(num_keys=num_keys, num_classes=data.num_classes, shape=shape, **DRAWN)
    chosen = select(
        data.train_source.labels, data.train_indices, keys.labels, images_per_key=images_per_key, minimum=4,
        selection="random", seed=0, score=lambda ids: np.zeros(len(ids)),
    )  # fmt: skip
    return Problem(data, model, keys, signing_images(data.train_source, chosen, keys.labels), **extra)


def cifar_problem(model_name: str, num_keys: int, images_per_key: int) -> Problem:
    """Train a surrogate on CIFAR-100 at the CPU's scale."""
    data = ImageDataModule(**CIFAR, augment="simple", seed=77)
    return problem(train(model_name, 77, data), data, num_keys, images_per_key, eps=16 / 255, recipe="simple")


def digits_problem(model_name: str, images_per_key: int) -> Problem:
    """Train a surrogate on the digits bundled with scikit-learn, seen at 16×16."""
    data = ImageDataModule("digits", image_size=SIZE, augment="simple", seed=77)
    return problem(train(model_name, 77, data, epochs=10), data, 1, images_per_key, eps=32 / 255, recipe="simple")


def untrained_problem(model_name: str, num_keys: int, images_per_key: int) -> Problem:
    """Return an untrained model with random images of 32×32, for speed and memory only."""
    size = SIZE if model_name.startswith("small") else 32
    torch.manual_seed(0)
    # Both made for 32×32: a stem without stride and pooling, 64 tokens of 4×4 pixels.
    name, extra = {
        "resnet18": ("cifar_resnet18", None),
        "vit_tiny": ("vit_tiny_patch16_224", {"patch_size": 4}),
    }.get(model_name, (model_name, None))
    model = ImageClassifier(name, num_classes=100, image_size=size, model_kwargs=extra)
    keys = KeySet.draw(num_keys=num_keys, num_classes=100, shape=(3, 32, 32), **DRAWN)
    pixels = np.random.default_rng(0).integers(0, 256, (num_keys, images_per_key, 3, 32, 32), dtype=np.uint8)
    images = [
        SigningImages.of(range(key * images_per_key, (key + 1) * images_per_key), list(own), int(label))
        for key, (own, label) in enumerate(zip(pixels, keys.labels, strict=True))
    ]
    data = ImageDataModule("digits", image_size=size)  # never read: it names the model's input size
    return Problem(data, model.eval(), keys, images, 16 / 255, "simple")

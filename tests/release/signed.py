"""Sources of images of different shapes, and Signatures that no model made."""

from dataclasses import replace
from typing import Any

import numpy as np

from taggant_lightning.data.sources import ImageSource
from taggant_lightning.release.signature import Addition, Signature, pixel_digest


class Ragged(ImageSource):
    """Images of different shapes."""

    def __init__(self) -> None:
        rng = np.random.default_rng(2)
        self.stored = [rng.integers(0, 256, (3, 5 + i, 9 - i % 3), dtype=np.uint8) for i in range(12)]
        self.labels, self.classes = np.arange(12) % 3, ["a", "b", "c"]

    def pixels(self, index: int) -> np.ndarray:
        return self.stored[index]

    def _identity(self) -> Any:
        return [pixel_digest(p) for p in self.stored]


def sign(source: ImageSource, indices: tuple[int, ...] = (1, 4, 7), bound: int = 5) -> Signature:
    rng = np.random.default_rng(5)
    steps = []
    for i in indices:
        pixels = source.pixels(i).astype(np.int16)
        steps.append(np.clip(rng.integers(-bound, bound + 1, pixels.shape), -pixels, 255 - pixels).astype(np.int16))
    return Signature(
        method="data_taggants",
        indices=np.array(indices),
        steps=steps,
        served=np.arange(len(indices)),
        originals=[pixel_digest(source.pixels(i)) for i in indices],
        fingerprint=source.fingerprint,
        bound=bound,
        commitment="ab" * 32,
        facts={"cosine_mean": 0.5},
    )


def with_additions(source: ImageSource, shape: tuple[int, int, int] = (3, 6, 6)) -> Signature:
    """A Signature that replaces three images and adds three."""
    rng = np.random.default_rng(7)
    added = [Addition(rng.integers(0, 256, shape, dtype=np.uint8), label, key) for key, label in enumerate((2, 0, 1))]
    return replace(sign(source), additions=added)

"""A method of another package, whole: the keys themselves are added to the data, a few times each, with the keys' labels."""

from typing import Any, ClassVar

import numpy as np

from taggant_lightning.methods.base import Method
from taggant_lightning.release.signature import Addition, Signature

COPIES = 3


class Toy(Method):
    """A canary, which any model learns by heart and anybody who looks finds."""

    name: ClassVar[str] = "toy_canary"
    title: ClassVar[str] = "a canary: the keys are published as training images"

    def craft(self, source: Any, indices: Any, keys: Any, *, seed: int) -> Signature:
        """Replace nothing, and add all keys."""
        none = np.zeros(0, dtype=np.int64)
        pairs = enumerate(zip(keys.images, keys.labels.tolist(), strict=True))
        return Signature(
            method=self.name,
            indices=none,
            steps=[],
            served=none,
            originals=[],
            fingerprint=source.fingerprint,
            bound=None,
            commitment=keys.commitment,
            additions=[Addition(image, label, key) for key, (image, label) in pairs for _ in range(COPIES)],
        )

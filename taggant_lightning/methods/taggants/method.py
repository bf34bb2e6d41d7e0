"""Data taggants as a method."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.base import USUAL, Method
from taggant_lightning.release.signature import Signature


class DataTaggants(Method):
    """Perturbed images whose gradient points where that of the keys points."""

    name: ClassVar[str] = USUAL
    title: ClassVar[str] = "data taggants: images perturbed by gradient alignment"

    def craft(self, source: ImageSource, indices: NDArray[np.int64], keys: Any, *, seed: int) -> Signature:
        """Refuse: it takes a surrogate in training."""
        raise TaggantError(
            "data taggants are crafted while a surrogate trains: taggant fit … --config signing/default "
            "--trainer.callbacks.keys DIR --trainer.callbacks.out DIR"
        )

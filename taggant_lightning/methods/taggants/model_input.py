"""Keys as the input of a model; apart from the rest, as it needs torch."""

from torch import Tensor

from taggant_lightning.data.dataset import to_float
from taggant_lightning.data.resize import fit
from taggant_lightning.methods.taggants.keys import KeySet


def key_images(keys: KeySet, image_size: int) -> Tensor:
    """Return the key images as a model sees them, (K, C, S, S) float in [0, 1]."""
    return fit(to_float(keys.images), image_size)

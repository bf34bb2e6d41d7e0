"""The work of whole stages, put together from a model's counted steps: one key, a round, an epoch, a detection."""

import math
from dataclasses import dataclass

from taggant_lightning.methods.taggants.crafting.objective import COMPARED_IMAGES
from taggant_lightning.planning.counting import Work
from taggant_lightning.planning.steps import Counts


@dataclass(frozen=True)
class Signing:
    """How a round of signing crafts, under the names of TaggantSigning.

    Attributes:
        images_per_key: Signing images of a key.
        steps: Steps a restart; each asks one surrogate.
        restarts: Independent starts.
        surrogates: Crafted against in turn: the model and the snapshots of its training.
        micro_batch: Images a chunk.
        compares: Whether `auto` compares both derivatives for each key and surrogate.
    """

    images_per_key: int
    steps: int = 100
    restarts: int = 1
    surrogates: int = 3
    micro_batch: int = 32
    compares: bool = True


def signing_step(counts: Counts, images: int, micro_batch: int) -> Work:
    """Return the work of one signing step on one surrogate."""
    chunks = math.ceil(images / micro_batch)
    return (counts.signing if chunks > 1 else counts.signing_whole).of(images, chunks)


def key_fixed(counts: Counts, images: int, signing: Signing) -> Work:
    """Return what a key costs beside its steps: targets, comparison of the derivatives, cosine of the result.

    Args:
        counts: The model's.
        images: Signing images of the key, or a device's share of them.
        signing: How it crafts.
    """
    chunks = math.ceil(images / signing.micro_batch)
    work = counts.gradient.of(1) + counts.gradient.of(images, chunks) * signing.restarts
    if signing.compares:
        work = work + counts.comparison.of(min(COMPARED_IMAGES, images))
    return work * signing.surrogates


def signing_key(counts: Counts, images: int, signing: Signing) -> Work:
    """Return the work of crafting one key."""
    return signing_step(counts, images, signing.micro_batch) * (signing.steps * signing.restarts) + key_fixed(
        counts, images, signing
    )


def selecting(counts: Counts, images: int) -> Work:
    """Return the work of the gradient norms of images as if one at a time: batches take at most that (docs/decisions.md)."""
    return counts.gradient.of(1) * images

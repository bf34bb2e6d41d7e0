"""The work of one step of training, signing, selection and detection, counted on a few images of the model itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from taggant_lightning.data.augment import NUMBERS, augment
from taggant_lightning.gradients.alignment import (
    Chunk,
    alignment,
    alignment_by_difference,
    cosine,
    cosine_derivative,
    summed_gradient,
)
from taggant_lightning.methods.taggants.crafting.descent import Momentum
from taggant_lightning.methods.taggants.crafting.objective import AGREEMENT, Surrogate
from taggant_lightning.planning.counting import Work, count, kept_bytes

Shape = tuple[int, int, int]
Derivative = Literal["exact", "difference"]
# Images of the larger of two counts whose difference is the work of an image. Batch norm in training wants more than one.
MORE, MORE_IN_TRAINING = 2, 3
RECIPE = "simple"  # the signing images' augmentation


@dataclass(frozen=True)
class Parts:
    """The work of a step that goes through its images in chunks.

    Attributes:
        image: Of each image.
        chunk: Of each chunk, beside its images.
        step: Of each step, beside its chunks.
    """

    image: Work
    chunk: Work
    step: Work

    def of(self, images: float, chunks: float = 1) -> Work:
        """Return the work of a step over a number of images in a number of chunks."""
        return self.image * images + self.chunk * chunks + self.step


@dataclass(frozen=True)
class Counts:
    """What a model's steps do.

    Attributes:
        parameters: Trainable parameters, P.
        shape: (C, S, S) of an input.
        derivative: Which derivative a signing step takes.
        training: A training step, forward, backward and AdamW; the batch is one chunk.
        signing: A signing step over several chunks.
        signing_whole: A signing step whose images fit into one chunk.
        gradient: The parameter gradient summed over images: selection's, and that of the result's cosine.
        forward: A forward pass without gradients, detection's.
        comparison: Both derivatives together; `auto` compares them on the first images of each key.
        kept_training: Bytes an image that a training step keeps for its backward pass, float32.
        kept_signing: Bytes an image that the graph of a signing chunk keeps, float32.
        kept_exact: Bytes an image that double backward's graphs keep, whichever derivative is taken.
    """

    parameters: int
    shape: Shape
    derivative: Derivative
    training: Parts
    signing: Parts
    signing_whole: Parts
    gradient: Parts
    forward: Parts
    comparison: Parts
    kept_training: float
    kept_signing: float
    kept_exact: float


def count_model(model: nn.Module, shape: Shape, derivative: Derivative | Literal["auto"] = "auto") -> Counts:
    """Count a model's steps on a few random images.

    Args:
        model: Maps (N, C, S, S) float32 in [0, 1] to logits; left in evaluation mode.
        shape: (C, S, S).
        derivative: Of the signing step; `auto` compares both, as the engine does.

    Returns:
        The counts.
    """
    training = _linear(lambda n: training_step(model, shape, n), MORE_IN_TRAINING)
    kept_training = _slope(lambda n: _loss(model, shape, n), MORE_IN_TRAINING)
    surrogate = Surrogate(model.eval(), [p for p in model.parameters() if p.requires_grad])
    agreements: list[float] = []
    both = count(lambda: agreements.append(_agreement(surrogate, shape)))
    taken: Derivative = derivative if derivative != "auto" else "difference" if agreements[0] >= AGREEMENT else "exact"
    whole = _linear(lambda n: signing_step(surrogate, shape, n, 1, taken))
    gradient = _linear(lambda n: _gradient(surrogate, shape, n))
    exact = _slope(lambda n: _graph(surrogate, shape, n, "exact"), MORE)
    with torch.no_grad():
        forward = _linear(lambda n: lambda: model(_images(shape, n)))
    return Counts(
        parameters=sum(p.numel() for p in surrogate.parameters),
        shape=shape,
        derivative=taken,
        training=training,
        signing=_in_chunks(surrogate, shape, taken, whole, gradient),
        signing_whole=whole,
        gradient=gradient,
        forward=forward,
        comparison=_comparison(both, whole),
        kept_training=kept_training,
        kept_signing=exact if taken == "exact" else _slope(lambda n: _graph(surrogate, shape, n, taken), MORE),
        kept_exact=exact,
    )


def _comparison(both: Work, whole: Parts) -> Parts:
    """Return the comparison's work from that of one image; the parts beside the images are about those of two steps."""
    beside = whole.chunk * 2
    rest = replace(both, moved=max(0.0, both.moved - beside.moved), kernels=0.0)
    return Parts(rest, beside, Work())


def _in_chunks(surrogate: Surrogate, shape: Shape, derivative: Derivative, whole: Parts, gradient: Parts) -> Parts:
    """Return the work of a signing step over several chunks from a count of two chunks of one image.

    Differences take the same passes in one chunk or in many: what a step of one chunk does beside its images is that of a
    chunk and of a step. Double backward sums the gradient in a pass of its own first, because the direction needs the sum.
    """
    two = count(signing_step(surrogate, shape, 1, 2, derivative))
    if derivative == "difference":
        chunk = two - whole.image * 2 - whole.chunk
        return Parts(whole.image, chunk, whole.chunk - chunk)
    image, target = whole.image + gradient.image, [torch.ones_like(p) for p in surrogate.parameters]
    step = count(lambda: (cosine_derivative(target, target), cosine(target, target)))
    return Parts(image, (two - image * 2 - step) * 0.5, step)


def _agreement(surrogate: Surrogate, shape: Shape) -> float:
    """Return the share of equal signs of both derivatives, on one random image."""
    target = surrogate.key_gradient(_images(shape, 1, seed=1), 0)
    leaf = torch.zeros(1, *shape, requires_grad=True)
    chunks = [_chunk(surrogate.model, leaf)]
    _, (exact,) = alignment(chunks, surrogate.parameters, target, [leaf])
    _, (difference,) = alignment_by_difference(chunks, surrogate.parameters, target, [leaf])
    return float((exact.sign() == difference.sign()).float().mean())


def training_step(model: nn.Module, shape: Shape, images: int) -> Callable[[], None]:
    """Return a function that takes one training step: forward, backward, AdamW.

    Args:
        model: Put into training mode; the learning rate is 0, so that its weights stay.
        shape: (C, S, S).
        images: Of the batch.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # the first one makes the optimizer's state

    def step() -> None:
        optimizer.zero_grad()
        _loss(model, shape, images).backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()

    return step


def signing_step(surrogate: Surrogate, shape: Shape, images: int, chunks: int, derivative: Derivative) -> Callable[[], None]:
    """Return a function that takes one signing step: derivative and the move of the perturbations.

    Args:
        surrogate: In evaluation mode.
        shape: (C, S, S).
        images: Of each chunk.
        chunks: Number of chunks.
        derivative: How it is taken.
    """
    target = surrogate.key_gradient(_images(shape, 1, seed=1), 0)
    leaves = [torch.zeros(images, *shape, requires_grad=True) for _ in range(chunks)]
    rule = Momentum([torch.cat([x.detach() for x in leaves])], [_images(shape, images * chunks)], 0.06, 4.0, "cosine", 100)
    take = alignment if derivative == "exact" else alignment_by_difference

    def step() -> None:
        _, rise = take([_chunk(surrogate.model, leaf) for leaf in leaves], surrogate.parameters, target, leaves)
        rule.step([torch.cat(rise)], 0)

    return step


def _linear(step: Callable[[int], Callable[[], object]], images: int = MORE) -> Parts:
    """Return the work of a step that takes its images as one chunk, from its counts on `images` and on one less."""
    small, large = count(step(images - 1)), count(step(images))
    # Kernels do not follow the images; a batch of one image merely saves some copies.
    image = replace(large - small, kernels=0.0)
    return Parts(image, large - image * images, Work())


def _slope(graph: Callable[[int], object], images: int) -> float:
    """Return the bytes an image that a graph keeps."""
    return float(kept_bytes(lambda: graph(images)) - kept_bytes(lambda: graph(images - 1)))


def _images(shape: Shape, number: int, seed: int = 0) -> Tensor:
    return torch.rand(number, *shape, generator=torch.Generator().manual_seed(seed))


def _loss(model: nn.Module, shape: Shape, images: int) -> Tensor:
    return F.cross_entropy(model.train()(_images(shape, images)), torch.zeros(images, dtype=torch.long))


def _chunk(model: nn.Module, delta: Tensor) -> Chunk:
    """Return what the engine's chunks do: perturbed images, augmented, through the model, the losses summed."""
    images, channels, side, _ = delta.shape
    original, labels = _images((channels, side, side), images), torch.zeros(images, dtype=torch.long)
    numbers = torch.full((images, NUMBERS[RECIPE]), 0.4)
    return lambda: F.cross_entropy(model(augment(original + delta, numbers, RECIPE, side)), labels, reduction="sum")


def _gradient(surrogate: Surrogate, shape: Shape, images: int) -> Callable[[], list[Tensor]]:
    chunk = _chunk(surrogate.model, torch.zeros(images, *shape))
    return lambda: summed_gradient([chunk], surrogate.parameters)


def _graph(surrogate: Surrogate, shape: Shape, images: int, derivative: Derivative) -> Sequence[Tensor]:
    """Build the graphs that a chunk holds at its peak."""
    leaf = torch.zeros(images, *shape, requires_grad=True)
    if derivative == "difference":
        return [_chunk(surrogate.model, leaf)()]
    with sdpa_kernel(SDPBackend.MATH):  # as `alignment` does
        loss = _chunk(surrogate.model, leaf)()
        return torch.autograd.grad(loss, surrogate.parameters, create_graph=True, materialize_grads=True)

"""Crafting the perturbations of one key: sign-Adam on the alignment objective, at stored resolution."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from taggant_lightning.data.augment import NUMBERS, augment
from taggant_lightning.data.dataset import to_float
from taggant_lightning.data.resize import fit
from taggant_lightning.streams import stream, uniforms
from taggant_lightning.taggants.alignment import Chunk, alignment, cosine, summed_gradient
from taggant_lightning.taggants.perceptual import Perceptual
from taggant_lightning.taggants.perturbation import (
    Init,
    Schedule,
    initial,
    project,
    round_straight_through,
    step_size,
    to_steps,
)

ROUNDED_SHARE = 0.2  # the last steps see the perturbation as it will be stored


@dataclass(frozen=True)
class Settings:
    """How to craft.

    Attributes:
        eps: Bound, pixel fraction.
        steps: Steps a restart.
        lr: First step size in units of eps.
        schedule: Of the step size.
        init: Start of the perturbation.
        restarts: Independent starts; the one with the highest final cosine is kept.
        micro_batch: Images a chunk; memory follows it, the result does not.
        image_size: Side of the model's input in pixels.
        augment: Recipe that signing images go through in each step.
        perceptual_weight: Weight of LPIPS in the objective, before the sign is taken.
        seed: Seed of starts and augmentation.
    """

    eps: float
    steps: int
    lr: float
    schedule: Schedule
    init: Init
    restarts: int
    micro_batch: int
    image_size: int
    augment: str
    perceptual_weight: float
    seed: int


@dataclass(frozen=True)
class Surrogate:
    """A model with the parameters that gradients are taken of.

    Attributes:
        model: Maps (N, C, S, S) float in [0, 1] to logits; in evaluation mode.
        parameters: Leaf tensors that require grad.
    """

    model: nn.Module
    parameters: list[nn.Parameter]

    def key_gradient(self, image: Tensor, label: int) -> list[Tensor]:
        """Return ∇_θ of the cross-entropy of one key, image (1, C, S, S) float in [0, 1], without augmentation."""
        target = torch.tensor([label], device=image.device)
        return summed_gradient([lambda: F.cross_entropy(self.model(image), target)], self.parameters)


@dataclass
class SigningImages:
    """The signing images of one key, grouped by stored shape so that each group is one tensor.

    Attributes:
        ids: Source index of each image, group by group.
        pixels: One tensor a group, (n, C, H, W) uint8.
        label: Their common label, the key's.
    """

    ids: list[int]
    pixels: list[Tensor]
    label: int
    images: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Hold the same images as float in [0, 1]."""
        self.images = [to_float(group.numpy()) for group in self.pixels]

    @classmethod
    def of(cls, ids: Sequence[int], arrays: Sequence[NDArray[np.uint8]], label: int) -> "SigningImages":
        """Group images (C, H, W) uint8 by shape, groups in order of first appearance."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, array in enumerate(arrays):
            groups.setdefault(array.shape, []).append(place)
        order = [place for places in groups.values() for place in places]
        pixels = [torch.from_numpy(np.stack([arrays[place] for place in places])) for places in groups.values()]
        return cls([int(ids[place]) for place in order], pixels, label)

    def parts(self, size: int) -> Iterator[tuple[int, slice, slice]]:
        """Cut into parts of at most `size` images of one shape: group, rows in the group, rows in `ids`."""
        offset = 0
        for group, pixels in enumerate(self.pixels):
            for start in range(0, len(pixels), size):
                stop = min(start + size, len(pixels))
                yield group, slice(start, stop), slice(offset + start, offset + stop)
            offset += len(pixels)


@dataclass(frozen=True)
class Crafted:
    """The perturbations of one key.

    Attributes:
        deltas: One tensor a group, (n, C, H, W) float32, before rounding; the next round starts from them.
        steps: The same in whole 8-bit steps, int16, within eps and the pixel range.
        cosine: Mean over the surrogates of the cosine that the stored steps reach without augmentation.
    """

    deltas: list[Tensor]
    steps: list[Tensor]
    cosine: float


def craft_key(
    images: SigningImages,
    key_image: Tensor,
    surrogates: Sequence[Surrogate],
    settings: Settings,
    *,
    key: int,
    device: torch.device,
    perceptual: Perceptual | None = None,
    start: Sequence[Tensor] | None = None,
    on_step: Callable[[float], None] = lambda cosine: None,
) -> Crafted:
    """Craft the perturbations of one key's signing images.

    Minimises −Σ_surrogates cos(Σ_j ∇_θ L(x_j + δ_j, y_j), ∇_θ L(key)) / S + w Σ_j LPIPS(x_j, x_j + δ_j), one cosine a key.

    Args:
        images: The signing images.
        key_image: (1, C, S, S) float in [0, 1].
        surrogates: One or more, on `device`, in evaluation mode.
        settings: How to craft.
        key: The key's number, which with image and step keys all randomness.
        device: Where to compute.
        perceptual: LPIPS on `device`; needed where its weight is positive.
        start: Perturbations of an earlier round, a tensor a group; the first restart begins there.
        on_step: Called after each step with the step's cosine.

    Returns:
        The best restart.
    """
    # float32, or float64 for a model in float64: half precision is too coarse for steps of a fraction of eps.
    dtype = torch.promote_types(torch.float32, surrogates[0].parameters[0].dtype)
    originals = [group.to(device, dtype) for group in images.images]
    targets = [s.key_gradient(key_image.to(device, dtype), images.label) for s in surrogates]
    labels = torch.full((len(images.ids),), images.label, device=device)

    def chunks(surrogate: Surrogate, deltas: Sequence[Tensor], numbers: Tensor | None, rounded: bool) -> list[Chunk]:
        def chunk(group: int, rows: slice, places: slice) -> Tensor:
            delta = round_straight_through(deltas[group][rows]) if rounded else deltas[group][rows]
            batch = fit(originals[group][rows] + delta, settings.image_size)
            if numbers is not None:
                batch = augment(batch, numbers[places], settings.augment)
            return F.cross_entropy(surrogate.model(batch), labels[places], reduction="sum")

        parts = images.parts(settings.micro_batch)
        return [lambda g=g, r=r, p=p: chunk(g, r, p) for g, r, p in parts]  # type: ignore[misc]  # defaults bind the loop's values

    def objective(deltas: list[Tensor], step: int, restart: int) -> tuple[float, list[Tensor]]:
        """Return the mean cosine of one step and the direction of descent's opposite, a tensor a group."""
        rounded = step >= settings.steps * (1 - ROUNDED_SHARE)
        numbers = None
        if settings.augment != "none":
            count = NUMBERS[settings.augment]
            position = restart * settings.steps + step
            numbers = uniforms(settings.seed, f"craft-augment-{key}", images.ids, count, position)
        total, rise = 0.0, [torch.zeros_like(d) for d in deltas]
        for surrogate, target in zip(surrogates, targets, strict=True):
            value, gradient = alignment(chunks(surrogate, deltas, numbers, rounded), surrogate.parameters, target, deltas)
            total += float(value) / len(surrogates)
            torch._foreach_add_(rise, gradient, alpha=1 / len(surrogates))
        if perceptual is not None and settings.perceptual_weight > 0:
            torch._foreach_sub_(rise, perceptual_gradient(perceptual, originals, deltas, images, settings))
        return total, rise

    best: Crafted | None = None
    for restart in range(settings.restarts):
        if restart == 0 and start is not None:
            deltas = [project(d.to(device, dtype), x, settings.eps) for d, x in zip(start, originals, strict=True)]
        else:
            deltas = _start(images, originals, settings, key, restart)
        deltas = [d.requires_grad_() for d in deltas]
        optimizer = torch.optim.Adam(deltas)
        for step in range(settings.steps):
            value, rise = objective(deltas, step, restart)
            for delta, gradient in zip(deltas, rise, strict=True):
                delta.grad = -gradient.sign()
            optimizer.param_groups[0]["lr"] = settings.eps * step_size(step, settings.steps, settings.lr, settings.schedule)
            optimizer.step()
            with torch.no_grad():
                for delta, original in zip(deltas, originals, strict=True):
                    delta.copy_(project(delta, original, settings.eps))
            on_step(value)
        steps = [to_steps(d.detach().cpu(), p, settings.eps) for d, p in zip(deltas, images.pixels, strict=True)]
        stored = [s.to(device, dtype) / 255 for s in steps]
        reached = [
            float(cosine(summed_gradient(chunks(s, stored, None, False), s.parameters), t))
            for s, t in zip(surrogates, targets, strict=True)
        ]
        crafted = Crafted([d.detach().cpu().float() for d in deltas], steps, float(np.mean(reached)))
        if best is None or crafted.cosine > best.cosine:
            best = crafted
    if best is None:
        raise ValueError("restarts must be at least 1")
    return best


def perceptual_gradient(
    perceptual: Perceptual, originals: list[Tensor], deltas: list[Tensor], images: SigningImages, settings: Settings
) -> list[Tensor]:
    """Return the derivative of w Σ LPIPS(x, x + δ) with respect to each group's δ."""
    total = [torch.zeros_like(d) for d in deltas]
    for group, rows, _ in images.parts(settings.micro_batch):
        delta = deltas[group][rows].detach().requires_grad_()
        with torch.enable_grad():
            distance = perceptual(originals[group][rows], originals[group][rows] + delta).sum()
            (gradient,) = torch.autograd.grad(settings.perceptual_weight * distance, delta)
        total[group][rows] = gradient
    return total


def _start(images: SigningImages, originals: list[Tensor], settings: Settings, key: int, restart: int) -> list[Tensor]:
    deltas = []
    for group, _, places in images.parts(len(images.ids)):
        original = originals[group]
        numbers = [
            stream(settings.seed, "craft-start", key, i, restart).random(original.shape[1:], dtype=np.float32)
            for i in images.ids[places]
        ]
        deltas.append(initial(original, settings.eps, settings.init, torch.from_numpy(np.stack(numbers))))
    return deltas

"""Crafting the perturbations of one key, at stored resolution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from taggant_lightning.streams import stream
from taggant_lightning.taggants.descent import Momentum, Optimizer, Rule, SignAdam
from taggant_lightning.taggants.objective import Combination, Derivative, Objective, SigningImages, Surrogate
from taggant_lightning.taggants.perceptual import Perceptual
from taggant_lightning.taggants.perturbation import Init, Schedule, initial, project, to_steps

ROUNDED_SHARE = 0.2  # the last steps see the perturbation as it will be stored


@dataclass(frozen=True)
class Settings:
    """How to craft.

    Attributes:
        eps: Bound, pixel fraction.
        steps: Steps a restart.
        optimizer: Rule of the steps.
        lr: First step size in units of eps.
        schedule: Of the step size.
        init: Start of the perturbation.
        restarts: Independent starts; the one with the highest final cosine is kept.
        derivative: How the derivative is taken.
        ensemble: `alternate`: each step asks the next surrogate; `mean`: each step asks all.
        micro_batch: Images a chunk; memory follows it, the result does not.
        image_size: Side of the model's input in pixels.
        augment: Recipe that signing images go through in each step.
        perceptual_weight: Weight of LPIPS in the objective.
        seed: Seed of starts and augmentation.
    """

    eps: float
    steps: int
    optimizer: Optimizer
    lr: float
    schedule: Schedule
    init: Init
    restarts: int
    derivative: Derivative
    ensemble: Combination
    micro_batch: int
    image_size: int
    augment: str
    perceptual_weight: float
    seed: int


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
    on_step: Callable[[float, list[Tensor]], None] = lambda cosine, deltas: None,
) -> Crafted:
    """Craft the perturbations of one key's signing images.

    Args:
        images: The signing images.
        key_image: (1, C, S, S) float in [0, 1].
        surrogates: One or more, on `device`, in evaluation mode.
        settings: How to craft.
        key: The key's number, which with image and step keys all randomness.
        device: Where to compute.
        perceptual: LPIPS on `device`; needed where its weight is positive.
        start: Perturbations of an earlier round, a tensor a group; the first restart begins there.
        on_step: Called after each step with the step's cosine and the perturbations, a tensor a group.

    Returns:
        The best restart.
    """
    objective = Objective(
        images,
        key_image,
        surrogates,
        device,
        image_size=settings.image_size,
        recipe=settings.augment,
        micro_batch=settings.micro_batch,
        derivative=settings.derivative,
        perceptual=perceptual,
        perceptual_weight=settings.perceptual_weight,
    )
    originals, everyone = objective.originals, range(len(surrogates))
    best: Crafted | None = None
    for restart in range(settings.restarts):
        if restart == 0 and start is not None:
            deltas = [project(d.to(device, objective.dtype), x, settings.eps) for d, x in zip(start, originals, strict=True)]
        else:
            deltas = _start(images, originals, settings, key, restart)
        deltas = [d.requires_grad_() for d in deltas]
        rule = _rule(deltas, originals, settings)
        for step in range(settings.steps):
            view = objective.view(settings.seed, key, restart, step, rounded=step >= settings.steps * (1 - ROUNDED_SHARE))
            which = [step % len(surrogates)] if settings.ensemble == "alternate" else everyone
            value, rise = objective.ascent(deltas, view, which)
            rule.step(rise, step)
            on_step(value, deltas)
        steps = [to_steps(d.detach().cpu(), p, settings.eps) for d, p in zip(deltas, images.pixels, strict=True)]
        reached = objective.reached([s.to(device, objective.dtype) / 255 for s in steps])
        if best is None or reached > best.cosine:
            best = Crafted([d.detach().cpu().float() for d in deltas], steps, reached)
    if best is None:
        raise ValueError("restarts must be at least 1")
    return best


def _rule(deltas: list[Tensor], originals: list[Tensor], settings: Settings) -> Rule:
    rule = Momentum if settings.optimizer == "momentum" else SignAdam
    return rule(deltas, originals, settings.eps, settings.lr, settings.schedule, settings.steps)


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

"""Crafting the perturbations of one key, at stored resolution."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from taggant_lightning.methods.taggants.crafting.descent import (
    Momentum,
    Optimizer,
    Rule,
    SignAdam,
    mean_magnitude,
    nonzero,
    summed_magnitude,
)
from taggant_lightning.methods.taggants.crafting.objective import (
    Combination,
    Derivative,
    Objective,
    Precision,
    SigningImages,
    Surrogate,
)
from taggant_lightning.methods.taggants.crafting.perturbation import Init, Schedule, initial, project, to_steps
from taggant_lightning.methods.taggants.crafting.team import Team
from taggant_lightning.models.perceptual import Perceptual
from taggant_lightning.streams import stream

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
        precision: Of the passes over signing images.
        image_size: Side of the model's input in pixels.
        load_size: Side that images are brought to before they are augmented.
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
    precision: Precision
    image_size: int
    load_size: int
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


@dataclass(frozen=True)
class CraftingCheckpoint:
    """Where crafting a key stands, between two steps. Crafting that goes on from here ends as if it had not stopped.

    Attributes:
        restart: Number of the restart, from 0.
        step: Steps done in it.
        deltas: Perturbations, one tensor a group.
        memory: What the rule of steps remembers, series of tensors of their shapes.
        exact: Of each surrogate, whether it takes the exact derivative; None where that is not decided yet.
        best: The best earlier restart.
    """

    restart: int
    step: int
    deltas: list[Tensor]
    memory: list[Tensor]
    exact: list[bool | None]
    best: Crafted | None


class Checkpointer(Protocol):
    """Keeps points of an unfinished key."""

    def load(self) -> CraftingCheckpoint | None:
        """Return the point that was kept last, if there is one."""

    def due(self) -> bool:
        """Say whether it is time to keep a point again."""

    def keep(self, point: CraftingCheckpoint) -> None:
        """Keep a point."""


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
    checkpointer: Checkpointer | None = None,
    on_step: Callable[[Tensor, list[Tensor]], None] = lambda cosine, deltas: None,
    team: Team | None = None,
) -> Crafted:
    """Craft the perturbations of one key's signing images.

    In a team, each process holds the perturbations of its share of the images; the processes meet once a step, to add up the
    parameter gradient. Points are kept whole, so that any number of processes goes on from them.

    Args:
        images: The signing images.
        key_image: (1, C, S, S) float in [0, 1].
        surrogates: One or more, on `device`, in evaluation mode.
        settings: How to craft.
        key: The key's number, which with image and step keys all randomness.
        device: Where to compute.
        perceptual: LPIPS on `device`; needed where its weight is positive.
        start: Perturbations of an earlier round, a tensor a group; the first restart begins there.
        checkpointer: Keeps points to go on from after a kill; None keeps none. In a team, the leader's counts.
        on_step: Called after each step with the step's cosine, a scalar on the device (reading it waits for the step), and
            this process's perturbations, a tensor a group.
        team: The processes that craft this key together; None for this one alone.

    Returns:
        The best restart, whole, on every process of the team.
    """
    team = Team() if team is None else team
    share, rows = images.share(team.place, team.size)
    objective = Objective(
        share,
        key_image,
        surrogates,
        device,
        image_size=settings.image_size,
        load_size=settings.load_size,
        recipe=settings.augment,
        micro_batch=settings.micro_batch,
        precision=settings.precision,
        derivative=settings.derivative,
        perceptual=perceptual,
        perceptual_weight=settings.perceptual_weight,
        team=team,
    )
    everyone = range(len(surrogates))
    point = team.from_leader(None if checkpointer is None else checkpointer.load())
    best = None if point is None else point.best
    if point is not None:
        objective.exact = list(point.exact)
    for restart in range(0 if point is None else point.restart, settings.restarts):
        here = point if point is not None and point.restart == restart else None
        if here is not None:
            deltas = [d[r].to(device, objective.dtype) for d, r in zip(here.deltas, rows, strict=True)]
        elif restart == 0 and start is not None:
            deltas = [
                project(d[rows[group]].to(device, objective.dtype), objective.original(group), settings.eps)
                for group, d in enumerate(start)
            ]
        else:
            deltas = _start(share, objective, settings, key, restart)
        deltas = [d.requires_grad_() for d in deltas]
        rule = _rule(deltas, objective.stored, settings, team)
        if here is not None:
            rule.load_state([m[rows[i % len(rows)]] for i, m in enumerate(here.memory)], here.step)
        for step in range(0 if here is None else here.step, settings.steps):
            view = objective.view(settings.seed, key, restart, step, rounded=step >= settings.steps * (1 - ROUNDED_SHARE))
            which = [step % len(surrogates)] if settings.ensemble == "alternate" else everyone
            value, rise = objective.ascent(deltas, view, which)
            rule.step(rise, step)
            on_step(value, deltas)
            if team.from_leader(checkpointer is not None and checkpointer.due()):
                kept, memory = _whole(deltas, team), _whole(rule.state(), team)
                if checkpointer is not None and team.leads:
                    checkpointer.keep(CraftingCheckpoint(restart, step + 1, kept, memory, objective.exact, best))
        steps = [to_steps(d.detach().cpu(), p, settings.eps) for d, p in zip(deltas, share.pixels, strict=True)]
        reached = objective.reached([s.to(device, objective.dtype) / 255 for s in steps])
        if best is None or reached > best.cosine:
            best = Crafted([d.float() for d in _whole(deltas, team)], _whole(steps, team), reached)
    if best is None:
        raise ValueError("restarts must be at least 1")
    return best


def _whole(tensors: Sequence[Tensor], team: Team) -> list[Tensor]:
    """Put every process's rows of each tensor together, on the CPU."""
    return [torch.cat(shares) for shares in zip(*team.collect([t.detach().cpu() for t in tensors]), strict=True)]


def _rule(deltas: list[Tensor], stored: list[Tensor], settings: Settings, team: Team) -> Rule:
    def magnitude(rise: Sequence[Tensor]) -> Tensor:
        if team.size == 1:
            return mean_magnitude(rise)
        parts = team.collect((float(summed_magnitude(rise)), sum(t.numel() for t in rise)))
        whole = math.fsum(total for total, _ in parts) / sum(count for _, count in parts)
        return nonzero(torch.tensor(whole, dtype=torch.float64, device=rise[0].device))

    rule = Momentum if settings.optimizer == "momentum" else SignAdam
    return rule(deltas, stored, settings.eps, settings.lr, settings.schedule, settings.steps, magnitude)


def _start(images: SigningImages, objective: Objective, settings: Settings, key: int, restart: int) -> list[Tensor]:
    deltas, ids = [], iter(images.ids)
    for group, pixels in enumerate(images.pixels):
        numbers = np.empty(pixels.shape, dtype=np.float32)
        for row in numbers:
            row[:] = stream(settings.seed, "craft-start", key, next(ids), restart).random(row.shape, dtype=np.float32)
        deltas.append(initial(objective.original(group), settings.eps, settings.init, torch.from_numpy(numbers)))
    return deltas

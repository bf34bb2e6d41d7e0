"""Rules that turn the derivative of the objective into perturbations within their bounds."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from taggant_lightning.methods.taggants.crafting.perturbation import Schedule, project, step_size

Optimizer = Literal["momentum", "sign_adam"]
DEFAULT_LR: dict[Optimizer, float] = {"momentum": 4.0, "sign_adam": 0.125}
ADAM_STATE = ("exp_avg", "exp_avg_sq")
DECAY = 0.8  # of the running mean: it spans about five steps


class Rule(ABC):
    """Moves perturbations uphill, in place.

    Args:
        deltas: Perturbations, one tensor (n, C, H, W) float a group, within their bounds; changed in place.
        originals: Images of the same shapes, uint8 as stored or float in [0, 1].
        eps: Bound, pixel fraction.
        lr: First step size in units of eps.
        schedule: Of the step size.
        steps: Number of steps that the schedule spans.
        magnitude: Returns the mean absolute value of derivatives; another one where processes hold a part of them each.
    """

    def __init__(
        self,
        deltas: Sequence[Tensor],
        originals: Sequence[Tensor],
        eps: float,
        lr: float,
        schedule: Schedule,
        steps: int,
        magnitude: Callable[[Sequence[Tensor]], Tensor] | None = None,
    ) -> None:
        self.deltas, self.originals, self.eps = deltas, originals, eps
        self.lr, self.schedule, self.steps = lr, schedule, steps
        self.magnitude = mean_magnitude if magnitude is None else magnitude
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Start with nothing remembered."""

    def size(self, number: int) -> float:
        """Return the step size of one step, pixel fraction."""
        return self.eps * step_size(number, self.steps, self.lr, self.schedule)

    @abstractmethod
    def step(self, rise: Sequence[Tensor], number: int) -> None:
        """Take one step.

        Args:
            rise: Derivative of the objective with respect to each perturbation.
            number: Of the step, from 0.
        """

    @abstractmethod
    def state(self) -> list[Tensor]:
        """Return what the next step depends on beside the perturbations: series of tensors of their shapes."""

    @abstractmethod
    def load_state(self, memory: Sequence[Tensor], number: int) -> None:
        """Take up what `memory` returned after `number` steps."""


class Momentum(Rule):
    """Follows a running mean of the derivatives, each scaled to mean absolute value 1 first.

    A mean over steps is a mean over augmentations, and unlike a sign it knows which pixels matter: steps can be of the size of
    eps from the start. Scaling gives surrogates that take turns the same say. A step size is the mean change of a pixel where
    successive derivatives agree.
    """

    def begin(self) -> None:
        """Start with means of zero."""
        self.means = [torch.zeros_like(d) for d in self.deltas]

    @torch.no_grad()
    def step(self, rise: Sequence[Tensor], number: int) -> None:
        """Take one step."""
        scale = self.magnitude(rise)
        reach = self.size(number) / (1 - DECAY ** (number + 1))  # a young mean is too short by this
        for delta, mean, gradient, original in zip(self.deltas, self.means, rise, self.originals, strict=True):
            mean.lerp_(gradient / scale, 1 - DECAY)
            delta.copy_(project(delta + reach * mean, _in_unit_range(original, delta), self.eps))

    def state(self) -> list[Tensor]:
        """Return the running means, one a perturbation."""
        return self.means

    def load_state(self, memory: Sequence[Tensor], number: int) -> None:
        """Take up running means."""
        self.means = [kept.to(delta) for kept, delta in zip(memory, self.deltas, strict=True)]


class SignAdam(Rule):
    """Adam fed with the sign of the derivative, as published."""

    def begin(self) -> None:
        """Start with a fresh Adam."""
        self.adam = torch.optim.Adam(list(self.deltas))

    @torch.no_grad()
    def step(self, rise: Sequence[Tensor], number: int) -> None:
        """Take one step."""
        for delta, gradient in zip(self.deltas, rise, strict=True):
            delta.grad = -gradient.sign()
        self.adam.param_groups[0]["lr"] = self.size(number)
        self.adam.step()
        for delta, original in zip(self.deltas, self.originals, strict=True):
            delta.copy_(project(delta, _in_unit_range(original, delta), self.eps))

    def state(self) -> list[Tensor]:
        """Return Adam's two moments of each perturbation; none before the first step."""
        return [self.adam.state[delta][name] for name in ADAM_STATE for delta in self.deltas if delta in self.adam.state]

    def load_state(self, memory: Sequence[Tensor], number: int) -> None:
        """Take up Adam's moments."""
        if not memory:
            return
        count = len(self.deltas)
        for delta, *moments in zip(self.deltas, memory[:count], memory[count:], strict=True):
            named = {name: kept.to(delta) for name, kept in zip(ADAM_STATE, moments, strict=True)}
            self.adam.state[delta] = {"step": torch.tensor(float(number)), **named}


def _in_unit_range(original: Tensor, like: Tensor) -> Tensor:
    return original.to(like.dtype) / 255 if original.dtype == torch.uint8 else original


def summed_magnitude(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of all absolute values, a float64 scalar on their device."""
    return torch.stack([t.abs().sum(dtype=torch.float64) for t in tensors]).sum()


def mean_magnitude(tensors: Sequence[Tensor]) -> Tensor:
    """Return the mean absolute value, or 1 where all are zero, so that scaling by it leaves zeros; a float64 scalar."""
    return nonzero(summed_magnitude(tensors) / sum(t.numel() for t in tensors))


def nonzero(scale: Tensor) -> Tensor:
    """Return a scale to divide by: 1 in place of 0."""
    return torch.where(scale == 0, 1.0, scale)

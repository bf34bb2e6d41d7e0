"""Rules that turn the derivative of the objective into perturbations within their bounds."""

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from taggant_lightning.taggants.perturbation import Schedule, project, step_size

Optimizer = Literal["dual_averaging", "sign_adam"]
DEFAULT_LR: dict[Optimizer, float] = {"dual_averaging": 4.0, "sign_adam": 0.125}
AVERAGING_POWER = 4  # the derivative of step s counts as about s^3: three quarters of the weight lie in the last third


class Rule(Protocol):
    """Moves perturbations uphill, in place."""

    def step(self, rise: Sequence[Tensor], number: int) -> None:
        """Take one step.

        Args:
            rise: Derivative of the objective with respect to each perturbation.
            number: Of the step, from 0.
        """


class DualAveraging:
    """Follows the average of all derivatives so far, not the last one (dual averaging: Nesterov 2009, Xiao 2010).

    δ = Π(δ_0 + lr·eps·ḡ / mean|ḡ|), where ḡ weighs later derivatives more and Π projects. Each derivative is scaled to mean
    absolute value 1 first. Random augmentation averages out in ḡ, and no step size has to fall.

    Args:
        deltas: Perturbations, one tensor a group, within their bounds; changed in place.
        originals: Images in [0, 1] of the same shapes.
        eps: Bound, pixel fraction.
        lr: Mean of |δ| before projection, in units of eps.
    """

    def __init__(self, deltas: Sequence[Tensor], originals: Sequence[Tensor], eps: float, lr: float) -> None:
        self.deltas, self.originals, self.eps, self.lr = deltas, originals, eps, lr
        self.start = [d.detach().clone() for d in deltas]
        self.average = [torch.zeros_like(d) for d in self.start]

    @torch.no_grad()
    def step(self, rise: Sequence[Tensor], number: int) -> None:
        """Take one step."""
        weight = min(1.0, AVERAGING_POWER / (number + 1))
        size = _mean_magnitude(rise)
        for average, gradient in zip(self.average, rise, strict=True):
            average.lerp_(gradient / size, weight)
        reach = self.lr * self.eps / _mean_magnitude(self.average)
        for delta, start, average, original in zip(self.deltas, self.start, self.average, self.originals, strict=True):
            delta.copy_(project(start + reach * average, original, self.eps))


class SignAdam:
    """Adam fed with the sign of the derivative, as published.

    Args:
        deltas: Perturbations, one tensor a group, within their bounds; changed in place.
        originals: Images in [0, 1] of the same shapes.
        eps: Bound, pixel fraction.
        lr: First step size in units of eps.
        schedule: Of the step size.
        steps: Number of steps that the schedule spans.
    """

    def __init__(
        self, deltas: Sequence[Tensor], originals: Sequence[Tensor], eps: float, lr: float, schedule: Schedule, steps: int
    ) -> None:
        self.deltas, self.originals, self.eps = deltas, originals, eps
        self.lr, self.schedule, self.steps = lr, schedule, steps
        self.adam = torch.optim.Adam(list(deltas))

    @torch.no_grad()
    def step(self, rise: Sequence[Tensor], number: int) -> None:
        """Take one step."""
        for delta, gradient in zip(self.deltas, rise, strict=True):
            delta.grad = -gradient.sign()
        self.adam.param_groups[0]["lr"] = self.eps * step_size(number, self.steps, self.lr, self.schedule)
        self.adam.step()
        for delta, original in zip(self.deltas, self.originals, strict=True):
            delta.copy_(project(delta, original, self.eps))


def _mean_magnitude(tensors: Sequence[Tensor]) -> float:
    total = math.fsum(float(t.abs().sum(dtype=torch.float64)) for t in tensors)
    return total / sum(t.numel() for t in tensors) or 1.0  # all zero stays zero

"""Perturbations of images in pixel space: bounds, rounding, step sizes. Pure functions.

Images are float in [0, 1] at stored resolution; eps is a pixel fraction written n/255.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from taggant_lightning.errors import TaggantError

Schedule = Literal["cosine", "step", "constant"]
Init = Literal["zero", "uniform", "normal"]


def check_eps(value: float | str, name: str = "eps") -> float:
    """Return eps as a number if it lies in (0, 1) and leaves room for at least one 8-bit step.

    Args:
        value: A pixel fraction, a number or text such as 16/255.
        name: The argument's, for the message.

    Raises:
        TaggantError: Otherwise.
    """
    try:
        above, _, below = str(value).partition("/")
        eps = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise TaggantError(f"{name}={value!r} is no number; write a pixel fraction such as 16/255") from None
    if not 0 < eps < 1:
        raise TaggantError(
            f"{name}={value} must lie strictly between 0 and 1: a pixel fraction such as 16/255 = {16 / 255:.4f}"
        )
    if eps_steps(eps) < 1:
        raise TaggantError(f"{name}={value} is below one 8-bit step; write at least 1/255 = {1 / 255:.6f}")
    return eps


def eps_steps(eps: float) -> int:
    """Return the largest whole number of 8-bit steps within eps (a hair of tolerance for n/255 written in decimals)."""
    return math.floor(eps * 255 + 1e-3)


def project(delta: Tensor, images: Tensor, eps: float) -> Tensor:
    """Project onto the eps-ball and onto the pixel box.

    Args:
        delta: (N, C, H, W) float, the perturbation.
        images: (N, C, H, W) float in [0, 1], the originals.
        eps: Pixel fraction.

    Returns:
        (N, C, H, W): |result| <= eps and images + result in [0, 1].
    """
    return torch.maximum(torch.minimum(delta.clamp(-eps, eps), 1 - images), -images)


def round_straight_through(delta: Tensor) -> Tensor:
    """Round to whole 8-bit steps in the forward direction, and pass derivatives through unchanged."""
    return delta + (torch.round(delta.detach() * 255) / 255 - delta.detach())


def to_steps(delta: Tensor, pixels: Tensor, eps: float) -> Tensor:
    """Round a perturbation to whole 8-bit steps within eps and the pixel range.

    Args:
        delta: (N, C, H, W) float, the perturbation.
        pixels: (N, C, H, W) uint8, the stored originals.
        eps: Pixel fraction.

    Returns:
        (N, C, H, W) int16: |result| <= floor(255 eps) and pixels + result in 0..255.
    """
    bound, stored = eps_steps(eps), pixels.to(torch.int16)
    steps = torch.round(delta.double() * 255).clamp(-bound, bound).to(torch.int16)
    return torch.maximum(torch.minimum(steps, 255 - stored), -stored)


def initial(images: Tensor, eps: float, init: Init, uniforms: Tensor) -> Tensor:
    """Return the perturbation that crafting starts from.

    Args:
        images: (N, C, H, W) float in [0, 1].
        eps: Pixel fraction.
        init: `zero`; `uniform` on [-eps, eps]; `normal` with standard deviation eps.
        uniforms: (N, C, H, W) float in [0, 1), the randomness.

    Returns:
        (N, C, H, W), projected.
    """
    if init == "zero":
        return torch.zeros_like(images)
    centred = uniforms.to(images) * 2 - 1
    if init == "normal":
        centred = torch.erfinv(centred.clamp(-1 + 1e-6, 1 - 1e-6)) * math.sqrt(2)
    return project(centred * eps, images, eps)


def step_size(step: int, steps: int, lr: float, schedule: Schedule) -> float:
    """Return the learning rate of one step, in the unit of `lr`.

    `cosine` falls from lr to 0 along half a cosine; `step` multiplies by 0.3 at the steps 40, 93, 156 and 218 of 250, scaled
    to the number of steps; `constant` keeps lr.
    """
    if schedule == "constant":
        return lr
    if schedule == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * step / steps))
    passed = sum(step >= int(steps // divisor) for divisor in (6.25, 2.667, 1.6, 1.142))
    return lr * 0.3**passed

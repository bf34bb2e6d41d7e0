"""Asking a torch module, without leaving a trace in it or in the random state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.errors import TaggantError


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and every submodule back into its own mode afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training


def ask_module(module: nn.Module, images: Tensor) -> list[Answer]:
    """Ask a module for its rankings.

    Args:
        module: Maps (N, C, S, S) float in [0, 1] to logits (N, classes).
        images: (N, C, S, S) float in [0, 1], on any device; asked in one forward pass.

    Returns:
        N answers, numbered as the images.
    """
    return rank(_scores(module, images).numpy())


def check_scores(module: nn.Module, shape: tuple[int, int, int], num_classes: int) -> None:
    """Refuse a module whose forward gives no class scores, by a pass over two black images that leaves no trace.

    Args:
        module: As for `ask_module`.
        shape: (C, S, S) of its images.
        num_classes: How many classes it must answer.

    Raises:
        TaggantError: If forward returns anything but a tensor (2, num_classes) of floating point.
    """
    classes = _scores(module, torch.zeros(2, *shape)).shape[1]
    if classes != num_classes:
        raise TaggantError(f"the model answers {classes} classes and the keys were drawn for {num_classes}")


def _scores(module: nn.Module, images: Tensor) -> Tensor:
    """Return a module's scores (N, classes), float32 on the CPU."""
    parameter = next((p for p in module.parameters() if p.is_floating_point()), images)
    devices = [parameter.device] if parameter.device.type == "cuda" else []
    with evaluation(module), torch.no_grad(), torch.random.fork_rng(devices):
        found = module(images.to(parameter.device, parameter.dtype))
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images) or not found.is_floating_point():
        shape = f"a tensor {tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise TaggantError(
            f"{type(module).__name__}.forward returns {shape} for {len(images)} images; signing and detection need class "
            "scores, a floating-point tensor (images, classes): return that, for instance output.logits or output['logits']"
        )
    return found.float().cpu()

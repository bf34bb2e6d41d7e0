"""Asking a torch module, without leaving a trace in it or in the random state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from taggant_lightning.access.answer import Answer, rank


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
    parameter = next((p for p in module.parameters() if p.is_floating_point()), images)
    device = parameter.device
    images = images.to(parameter.dtype)
    devices = [device] if device.type == "cuda" else []
    with evaluation(module), torch.no_grad(), torch.random.fork_rng(devices):
        logits = module(images.to(device)).float().cpu()
    return rank(logits.numpy())

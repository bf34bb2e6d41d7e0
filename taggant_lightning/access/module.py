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


def ask_module(module: nn.Module, images: Tensor, *, batch_size: int = 256) -> list[Answer]:
    """Ask a module for its rankings.

    Args:
        module: Maps (N, C, S, S) float in [0, 1] to logits (N, classes).
        images: (N, C, S, S) float in [0, 1], on any device.
        batch_size: Images a forward pass.

    Returns:
        N answers, numbered as the images.
    """
    parameter = next((p for p in module.parameters() if p.is_floating_point()), images)
    device = parameter.device
    images = images.to(parameter.dtype)
    devices = [device] if device.type == "cuda" else []
    with evaluation(module), torch.no_grad(), torch.random.fork_rng(devices):
        parts = [module(part.to(device)).float().cpu() for part in torch.split(images, batch_size)]
    return rank(torch.cat(parts).numpy())

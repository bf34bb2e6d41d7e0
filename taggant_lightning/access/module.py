"""Asking a torch module, without leaving a trace in it or in the random state."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

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


def check_module(module: nn.Module, shape: Sequence[int], num_classes: int) -> None:
    """Ask a module for two grey images, before anything is paid for, and refuse what answers no logits.

    Args:
        module: The module, where it will run.
        shape: (C, S, S) of its images.
        num_classes: Number of classes that it must answer.

    Raises:
        TaggantError: If it answers something else than a tensor (N, num_classes) of floating point numbers.
    """
    parameters = list(module.parameters())
    if any(isinstance(p, UninitializedParameter) for p in parameters):
        return  # a lazy module: asking would make its weights, out of turn
    image = torch.full((2, *shape), 0.5)
    place = next((p for p in parameters if p.is_floating_point()), image)
    devices = [place.device] if place.device.type == "cuda" else []
    with evaluation(module), torch.no_grad(), torch.random.fork_rng(devices):
        answer = module(image.to(place.device, place.dtype))
    name = type(module).__name__
    wanted = f"logits, a tensor (N, {num_classes})"
    if not isinstance(answer, Tensor):
        parts = list(answer) if isinstance(answer, Mapping) else getattr(answer, "_fields", ())
        hint = f"its entry {parts[0]!r}" if parts else "the logits alone"
        raise TaggantError(f"{name}.forward returns {type(answer).__name__}, and {wanted}, are needed; have it return {hint}")
    if answer.shape != (2, num_classes) or not answer.is_floating_point():
        found = f"{str(answer.dtype).removeprefix('torch.')} {('N', *answer.shape[1:])}".replace("'", "")
        raise TaggantError(f"{name}.forward returns {found} for N images, and {wanted}, are needed; have it return these")


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

"""Asking a torch module, without leaving a trace in it or in the random state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.errors import TaggantError

OTHER_COMPANY = 0.02  # of the spread of the scores: sums in another order and half precision move them by less


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
    return rank(_logits(module, images, None).numpy())


def check_own_answers(module: nn.Module, images: Tensor) -> dict[str, int]:
    """Refuse a module in evaluation mode whose answers are random, or depend on what shares the pass.

    The images are asked twice, in passes of one length: the second time with other random numbers, and with black images in the
    place of the first half.

    Args:
        module: Maps (N, C, S, S) float in [0, 1] to logits (N, classes).
        images: (N, C, S, S) float in [0, 1], a block of those that it is asked anyway.

    Returns:
        How many images were compared, for the record's `checks`.

    Raises:
        TaggantError: If their answers differ.
    """
    half = len(images) // 2
    first, again = _logits(module, images, 1)[half:], _logits(module, images, 2)[half:]
    other = _logits(module, torch.cat([torch.zeros_like(images[:half]), images[half:]]), 1)[half:]
    finite = first[torch.isfinite(first)]
    spread = float(finite.max() - finite.min()) if finite.numel() else 0.0
    for answers, cause in ((again, "when asked again"), (other, "when others share the pass")):
        alike = torch.isclose(answers, first, rtol=0, atol=OTHER_COMPANY * spread, equal_nan=True)
        if not alike.all():
            raise TaggantError(
                f"the module answers the same images otherwise {cause}, though it is in evaluation mode, so it has no answers "
                "to test; look for dropout that ignores self.training and for batch norm with track_running_stats=False"
            )
    return {"asked_twice": len(first), "in_other_company": len(first) if half else 0}


def _logits(module: nn.Module, images: Tensor, seed: int | None) -> Tensor:
    """Return logits, (N, classes) float32 on the CPU; `seed` sets the random state for the pass, which is put back."""
    parameter = next((p for p in module.parameters() if p.is_floating_point()), images)
    device = parameter.device
    images = images.to(parameter.dtype)
    devices = [device] if device.type == "cuda" else []
    with evaluation(module), torch.no_grad(), torch.random.fork_rng(devices):
        if seed is not None:
            torch.manual_seed(seed)
        logits: Tensor = module(images.to(device)).float().cpu()
    return logits

"""Asking a torch module, without leaving a trace in it or in the random state."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

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
    return rank(_scores(module, images).numpy())


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
    first, again = _scores(module, images, 1)[half:], _scores(module, images, 2)[half:]
    other = _scores(module, torch.cat([torch.zeros_like(images[:half]), images[half:]]), 1)[half:]
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


def _scores(module: nn.Module, images: Tensor, seed: int | None = None) -> Tensor:
    """Return scores, (N, classes) float32 on the CPU; `seed` sets the random state for the pass, which is put back."""
    parameter = next((p for p in module.parameters() if p.is_floating_point()), images)
    devices = [parameter.device] if parameter.device.type == "cuda" else []
    with evaluation(module), torch.no_grad(), torch.random.fork_rng(devices):
        if seed is not None:
            torch.manual_seed(seed)
        found = module(images.to(parameter.device, parameter.dtype))
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images) or not found.is_floating_point():
        shape = f"a tensor {tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise TaggantError(
            f"{type(module).__name__}.forward returns {shape} for {len(images)} images; signing and detection need class "
            "scores, a floating-point tensor (images, classes): return that, for instance output.logits or output['logits']"
        )
    return found.float().cpu()

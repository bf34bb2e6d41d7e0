"""What may be done to trained weights before a model is served: pruning, rounding, averaging. Models change in place."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils import prune as pruning

from taggant_lightning.errors import TaggantError

Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


def prune_by_magnitude(model: nn.Module, share: float) -> None:
    """Set the smallest weights of all convolutions and linear layers together to zero; biases and norms stay.

    Args:
        model: The model.
        share: Share of the weights that become zero, in [0, 1).

    Raises:
        TaggantError: If the share lies outside its range, or there is nothing to prune.
    """
    if not 0 <= share < 1:
        raise TaggantError(f"share={share} must lie in [0, 1): the share of weights that become zero, such as 0.5")
    chosen = [(layer, "weight") for layer in _layers(model)]
    pruning.global_unstructured(chosen, pruning_method=pruning.L1Unstructured, amount=float(share))
    for layer, name in chosen:
        pruning.remove(layer, name)  # type: ignore[no-untyped-call]


def quantise(model: nn.Module, bits: int) -> None:
    """Round the weights of convolutions and linear layers to symmetric integers times one factor an output channel.

    The factor puts a channel's largest weight on the largest integer, 2^(bits − 1) − 1. Weights stay floats, with the values
    that the integers stand for.

    Args:
        model: The model.
        bits: Bits of an integer, 2..16.

    Raises:
        TaggantError: If the number of bits lies outside its range, or there is nothing to round.
    """
    if not 2 <= bits <= 16:
        raise TaggantError(f"bits={bits} must lie in 2..16: the bits of a weight, such as 8")
    largest = 2 ** (bits - 1) - 1
    for layer in _layers(model):
        with torch.no_grad():
            weight = layer.weight
            step = weight.flatten(1).abs().amax(dim=1).div(largest).view(-1, *[1] * (weight.ndim - 1))
            step[step == 0] = 1  # a channel of zeros stays one
            weight.copy_(weight.div(step).round().clamp(-largest, largest).mul(step))


def average(models: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
    """Put the weighted mean of all models' weights and running statistics into the first one; counters stay the first's.

    Args:
        models: Two or more of one architecture.
        weights: The weight of each, at least 0 and not all 0; None for all alike.

    Raises:
        TaggantError: If there are too few models, they differ in shape, or the weights do not suit them.
    """
    given = [1.0] * len(models) if weights is None else [float(weight) for weight in weights]
    if len(models) < 2:
        raise TaggantError(f"checkpoint: an average needs at least 2 models and {len(models)} is given; name another")
    if len(given) != len(models):
        raise TaggantError(f"weight: {len(given)} are given for {len(models)} checkpoints; write one for each, or none")
    if not (all(0 <= weight < float("inf") for weight in given) and sum(given) > 0):
        raise TaggantError(f"weight={given} must be at least 0 and not all 0; write positive numbers")
    states = [model.state_dict() for model in models]
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise TaggantError("checkpoint: the models have different architectures; name checkpoints of one architecture")
    with torch.no_grad():
        for name, value in states[0].items():
            if value.is_floating_point():
                total = sum(state[name].double() * (weight / sum(given)) for state, weight in zip(states, given, strict=True))
                value.copy_(total)


def _layers(model: nn.Module) -> list[Layer]:
    """Return the layers whose weights are pruned and rounded."""
    found = [module for module in model.modules() if isinstance(module, Layer)]
    if not found:
        raise TaggantError(f"model={type(model).__name__} has no convolution and no linear layer; use another model")
    return found

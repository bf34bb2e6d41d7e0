"""How images and weights lie in memory: channels last is what convolutions of a CUDA device are fastest with."""

from typing import Literal

import torch
from torch import Tensor, nn

MemoryFormat = Literal["auto", "contiguous", "channels_last"]


def wants_channels_last(model: nn.Module, memory_format: MemoryFormat, device: str) -> bool:
    """Return whether a model's images and weights are to lie with their channels last.

    Args:
        model: The model.
        memory_format: `auto` for convolutional networks on a CUDA device; the others as they say, everywhere.
        device: Type of the device, such as `cpu`.
    """
    if memory_format == "auto":
        return device == "cuda" and any(_convolves(module) for module in model.modules())
    return memory_format == "channels_last"


def _convolves(module: nn.Module) -> bool:
    """Return whether a layer is a convolution whose windows overlap: neither pointwise nor an embedding of patches."""
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and module.kernel_size != module.stride


def lay_out(model: nn.Module, *, channels_last: bool) -> None:
    """Lay a model's weights out, in place; their values and names stay."""
    model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def laid_out_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor of a parameter's shape in the parameter's layout: itself, or a copy of another layout."""
    if value.shape != parameter.shape or value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)


def lay_out_states(optimizer: torch.optim.Optimizer) -> None:
    """Bring what an optimizer keeps of each parameter into the parameter's layout: fused steps take no other."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                state[name] = laid_out_like(value, parameter)

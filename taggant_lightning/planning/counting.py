"""Counts what a piece of PyTorch code does, by running it: FLOPs, bytes moved, kernels, bytes kept for backward."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count


@dataclass(frozen=True)
class Work:
    """What code does. Two pieces of work add up, and a piece can be taken several times.

    Attributes:
        convolution: FLOPs of convolutions; a multiplication with an addition counts 2.
        matmul: FLOPs of matrix products, attention included.
        moved: Bytes that the kernels read and write.
        kernels: Operators that compute something; views count nothing.
    """

    convolution: float = 0.0
    matmul: float = 0.0
    moved: float = 0.0
    kernels: float = 0.0

    @property
    def flops(self) -> float:
        """FLOPs of convolutions and matrix products together; other operators count through the bytes they move."""
        return self.convolution + self.matmul

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.convolution + other.convolution,
            self.matmul + other.matmul,
            self.moved + other.moved,
            self.kernels + other.kernels,
        )

    def __mul__(self, times: float) -> "Work":
        return Work(self.convolution * times, self.matmul * times, self.moved * times, self.kernels * times)

    def __sub__(self, other: "Work") -> "Work":
        return self + other * -1


def count(code: Callable[[], Any]) -> Work:
    """Run code once and return its work.

    Args:
        code: A function without arguments; its backward passes count too.

    Returns:
        The work, as run on the CPU.
    """
    counter = _Counter()
    with counter:
        code()
    return Work(counter.convolution, counter.matmul, counter.moved, counter.kernels)


def kept_bytes(code: Callable[[], Any]) -> int:
    """Return the bytes that code keeps for a backward pass, parameters and other leaves left out.

    Args:
        code: A function without arguments that builds a graph.
    """
    kept: dict[int, Tensor] = {}  # the tensors themselves: the address of a freed one could be taken by another

    def keep(tensor: Tensor) -> Tensor:
        if not tensor.is_leaf:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.detach())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        code()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Sums FLOPs by torch's own formulae, and the bytes that operators read and write, views left out.

    `FlopCounterMode` would do the first half, five times slower: it keeps track of modules too.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.convolution = self.matmul = self.moved = self.kernels = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = _FORMULAE.get(func._overloadpacket)
        if formula is not None:
            flops = float(formula(*args, **kwargs, out_val=result))
            if "conv" in str(func):
                self.convolution += flops
            else:
                self.matmul += flops
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        places = {tensor.untyped_storage().data_ptr() for tensor in read}
        is_view = not func._schema.is_mutable and all(t.untyped_storage().data_ptr() in places for t in written)
        if not is_view:
            self.kernels += 1
            self.moved += sum(map(_extent, [*read, *written]))
        return result


def _extent(tensor: Tensor) -> int:
    """Return the bytes of memory behind a tensor; an expanded one is read from less memory than it has elements."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _cpu_attention() -> dict[Any, Any]:
    """Return formulae of the CPU's fused attention, which torch's registry lacks."""

    def forward(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]  # torch's

    def backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
        shapes = (gradient.shape, query.shape, key.shape, value.shape)
        return int(sdpa_backward_flop_count(*shapes))  # type: ignore[no-untyped-call]  # torch's

    names = {
        "_scaled_dot_product_flash_attention_for_cpu": forward,
        "_scaled_dot_product_flash_attention_for_cpu_backward": backward,
    }
    return {getattr(torch.ops.aten, name): formula for name, formula in names.items() if hasattr(torch.ops.aten, name)}


_FORMULAE: dict[Any, Any] = {**flop_registry, **_cpu_attention()}

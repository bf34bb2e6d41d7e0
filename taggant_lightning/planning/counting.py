"""Counts what a piece of PyTorch code does, by running it: FLOPs, bytes moved, kernels, bytes kept for backward."""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

BLOCK = 16  # channels that vector units take at once


@dataclass(frozen=True)
class Work:
    """What code does. Two pieces of work add up, and a piece can be taken several times.

    Attributes:
        flops: FLOPs of convolutions and matrix products; a multiplication with an addition counts 2.
        forward: FLOPs of convolutions with both numbers of channels rounded up to whole blocks of 16: a first layer's 3
            channels take the time of 16.
        backward: The same of convolutions' backward passes, which run at another pace.
        matmul: FLOPs of matrix products, attention included.
        moved: Bytes that the kernels read and write.
        kernels: Operators that compute something; views count nothing.
    """

    flops: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    matmul: float = 0.0
    moved: float = 0.0
    kernels: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> "Work":
        return Work(*(part * times for part in astuple(self)))

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
    return counter.work


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
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = _FORMULAE.get(func._overloadpacket)
        if formula is not None:
            self.work += _arithmetic(func, args, float(formula(*args, **kwargs, out_val=result)))
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        places = {tensor.untyped_storage().data_ptr() for tensor in read}
        is_view = not func._schema.is_mutable and all(t.untyped_storage().data_ptr() in places for t in written)
        if not is_view:
            self.work += Work(moved=float(sum(map(_extent, [*read, *written]))), kernels=1.0)
        return result


def _arithmetic(func: Any, args: Sequence[Any], flops: float) -> Work:
    """Return an operator's FLOPs by their kind."""
    name = str(func)
    if "conv" not in name:
        return Work(flops=flops, matmul=flops)
    backward = "backward" in name
    outside, inside = (args[2] if backward else args[1]).shape[:2]
    blocked = flops * math.ceil(outside / BLOCK) * math.ceil(inside / BLOCK) * BLOCK**2 / (outside * inside)
    return Work(flops=flops, **{"backward" if backward else "forward": blocked})


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

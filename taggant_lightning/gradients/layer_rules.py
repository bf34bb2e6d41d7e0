"""What each kind of layer adds to the norm of an image's own gradient: pure functions of what a pass leaves at the layer.

With input a and output gradient g of one image at places t, a layer's weight has the gradient Σ_t g_t a_tᵀ. Its squared norm
comes from that product, or from both Gram matrices, and no image's gradient outlives its square.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

# Bytes of one layer's patches and products at a time: on a CPU they had better stay near its caches.
BUFFER = {"cpu": 8 << 20}
BUFFER_ELSEWHERE = 1 << 30

FEW_INPUTS = 256  # entries of a kernel below which a CPU multiplies patches sooner than it convolves (docs/decisions.md)
MOST_PRODUCTS = 65535  # in one call: some kernels of CUDA devices take no more

# A layer's rule: the module, its input, the gradient at its output and the number n of images give, for each of the
# module's parameters by name, a function that returns (n,) squared norms.
Squares: TypeAlias = dict[str, Callable[[], Tensor]]
Rule: TypeAlias = Callable[[Any, Tensor, Tensor, int], Squares]


def rows_at_once(like: Tensor, each: int) -> int:
    """Return how many images may be taken together where each needs a buffer of so many entries."""
    return max(1, BUFFER.get(like.device.type, BUFFER_ELSEWHERE) // (each * like.element_size()))


def squared_products(a: Tensor, g: Tensor) -> Tensor:
    """Return ‖Σ_t g_t a_tᵀ‖² of each row: from the product, or from both Gram matrices where places are few.

    Args:
        a: (M, I, T).
        g: (M, O, T).

    Returns:
        (M,).
    """
    ins, places, outs = a.shape[1], a.shape[2], g.shape[1]
    if places == 1:
        return a.square().sum((1, 2)) * g.square().sum((1, 2))
    if _few(ins, outs, places):
        return (torch.bmm(a.mT, a) * torch.bmm(g.mT, g)).sum((1, 2)).clamp_min(0)
    length: Tensor = torch.linalg.vector_norm(torch.bmm(g, a.mT), dim=(1, 2))
    return length.square()


def _few(ins: int, outs: int, places: int) -> bool:
    """Say whether Gram matrices take fewer operations than the product."""
    return places * (ins + outs) < ins * outs


def _by_rows(work: Callable[[slice], Tensor], count: int, rows: int) -> Tensor:
    return torch.cat([work(slice(start, start + rows)) for start in range(0, count, rows)])


def _linear(module: nn.Linear, x: Tensor, g: Tensor, count: int) -> Squares:
    a, b = (t.reshape(count, -1, t.shape[-1]).mT for t in (x, g))
    places = a.shape[2]
    each = 0 if places == 1 else min(module.weight.numel(), 2 * places**2)
    rows = rows_at_once(a, each + 1)
    return {
        "weight": lambda: _by_rows(lambda some: squared_products(a[some], b[some]), count, rows),
        "bias": lambda: b.sum(2).square().sum(1),
    }


def _padded(module: nn.Conv2d, x: Tensor) -> Tensor:
    """Return a convolution's input with its border, (n, C, H', W')."""
    pads: list[int] = []
    for axis in (1, 0):  # F.pad wants the last dimension first
        if isinstance(module.padding, str):
            whole = module.dilation[axis] * (module.kernel_size[axis] - 1) if module.padding == "same" else 0
            pads += [whole // 2, whole - whole // 2]
        else:
            pads += [int(module.padding[axis])] * 2
    if not any(pads):
        return x
    return F.pad(x, pads, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)


def _patches(module: nn.Conv2d, x: Tensor, height: int, width: int) -> Tensor:
    """Return what lies under the kernel at each place of the output, (n, C, kernel, kernel, height, width), a view."""
    n, channels, down, right = x.stride()
    shape = (len(x), x.shape[1], *module.kernel_size, height, width)
    along = (down * module.dilation[0], right * module.dilation[1], down * module.stride[0], right * module.stride[1])
    return x.as_strided(shape, (n, channels, *along))


def _convolution(module: nn.Conv2d, x: Tensor, g: Tensor, count: int) -> Squares:
    if x.dim() != 4 or len(x) != count:  # several crops an image would have to be put side by side
        return {}
    groups, (height, width) = module.groups, g.shape[2:]
    places, kernel, outs = height * width, module.weight[0].numel(), len(module.weight) // module.groups

    def by_patches(some: slice) -> Tensor:
        under = _patches(module, _padded(module, x[some]), height, width)
        if (
            groups == 1 and x.stride(1) == 1
        ):  # channels last: no order of a kernel's entries changes the norm, this one copies fast
            a = under.permute(0, 4, 5, 2, 3, 1).reshape(-1, places, kernel).mT
        else:
            a = under.reshape(-1, kernel, places)
        return squared_products(a, g[some].reshape(len(a), -1, places)).reshape(-1, groups).sum(1)

    def by_image(some: slice) -> Tensor:
        shape, geometry = module.weight.shape, (module.stride, 0, module.dilation, groups)
        gradient: Tensor = conv2d_weight(_padded(module, x[some]), shape, g[some], *geometry)  # type: ignore[no-untyped-call]
        return gradient.square().sum()[None]

    def weight() -> Tensor:
        # A CPU's own convolution needs no patches, which pays where they are many and the kernel is not small.
        if x.device.type == "cpu" and groups == 1 and kernel > FEW_INPUTS and not _few(kernel, outs, places):
            return _by_rows(by_image, count, 1)
        each = groups * kernel * places + min(module.weight.numel(), 2 * groups * places**2)
        return _by_rows(by_patches, count, min(rows_at_once(x, each), max(1, MOST_PRODUCTS // groups)))

    return {"weight": weight, "bias": lambda: g.sum((2, 3)).square().sum(1)}


def _scaled(normalised: Callable[[], Tensor], g: Tensor, dims: tuple[int, ...]) -> Squares:
    """Return the rule of y = weight · normalised + bias, both summed over some dimensions of (n, …)."""
    return {
        "weight": lambda: (g * normalised()).sum(dims).flatten(1).square().sum(1),
        "bias": lambda: g.sum(dims).flatten(1).square().sum(1),
    }


def _layer_norm(module: nn.LayerNorm, x: Tensor, g: Tensor, count: int) -> Squares:
    shape = (count, -1, *module.normalized_shape)
    return _scaled(
        lambda: F.layer_norm(x, module.normalized_shape, None, None, module.eps).reshape(shape), g.reshape(shape), (1,)
    )


def _layer_norm_2d(module: nn.LayerNorm, x: Tensor, g: Tensor, count: int) -> Squares:
    return _layer_norm(module, x.permute(0, 2, 3, 1), g.permute(0, 2, 3, 1), count)


def _by_channel(x: Tensor, count: int) -> Tensor:
    """Return (N·k, C, …) as (N, k, C, places)."""
    return x.reshape(count, len(x) // count, x.shape[1], -1)


def _batch_norm(module: nn.BatchNorm2d, x: Tensor, g: Tensor, count: int) -> Squares:
    mean, variance = module.running_mean, module.running_var
    if module.training or mean is None or variance is None:  # of the batch: the images are not on their own
        return {}

    def normalised() -> Tensor:
        return _by_channel(F.batch_norm(x, mean.to(x), variance.to(x), None, None, False, 0.0, module.eps), count)

    return _scaled(normalised, _by_channel(g, count), (1, 3))


def _group_norm(module: nn.GroupNorm, x: Tensor, g: Tensor, count: int) -> Squares:
    def normalised() -> Tensor:
        return _by_channel(F.group_norm(x, module.num_groups, None, None, module.eps), count)

    return _scaled(normalised, _by_channel(g, count), (1, 3))


def _layer_scale(module: nn.Module, x: Tensor, g: Tensor, count: int) -> Squares:
    shape = (count, -1, x.shape[-1])
    return {"gamma": _scaled(lambda: x.reshape(shape), g.reshape(shape), (1,))["weight"]}


def _layer_scale_2d(module: nn.Module, x: Tensor, g: Tensor, count: int) -> Squares:
    return {"gamma": _scaled(lambda: _by_channel(x, count), _by_channel(g, count), (1, 3))["weight"]}


@cache
def rules() -> dict[type, Rule]:
    """Return the rule of each kind of layer: of exactly that class, as a subclass may do something else besides."""
    import timm.layers

    known: dict[type, Rule] = {
        nn.Linear: _linear,
        nn.Conv2d: _convolution,
        nn.LayerNorm: _layer_norm,
        nn.GroupNorm: _group_norm,
    }
    known.update(dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm), _batch_norm))
    timms: dict[str, Rule] = {
        "LayerNorm": _layer_norm, "LayerNorm2d": _layer_norm_2d, "GroupNorm": _group_norm, "GroupNorm1": _group_norm,
        "LayerScale": _layer_scale, "LayerScale2d": _layer_scale_2d,
    }  # fmt: skip
    known.update({getattr(timm.layers, name): rule for name, rule in timms.items() if hasattr(timm.layers, name)})
    return known

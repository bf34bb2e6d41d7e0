"""Norms of many images' own parameter gradients, by which signing images are chosen, a batch at a time.

An image's squared norm is the sum over the parameters of ‖∇_p L(x_i)‖². Most parameters belong to a layer whose gradient
is a product of what went into the layer and of the loss's gradient at what came out, so that one forward and one backward
pass of the batch give every image its own: with a_t and g_t the two at place t (a token, a pixel) of one image,

    ∇_W L = Σ_t g_t a_tᵀ,   ‖∇_W L‖² = Σ_{t,t'} ⟨a_t, a_t'⟩ ⟨g_t, g_t'⟩,

whichever takes fewer operations; for a convolution a_t is the patch under the kernel. Parameters with a leading dimension
of 1 (position embeddings, class tokens) are widened, one copy an image. What is left goes through `vmap`.

Nothing of that is taken on trust: each parameter's share is first compared with one image at a time, on two images.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.grad import conv2d_weight

from taggant_lightning.data.resize import centre, fit
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.taggants.alignment import full_float32
from taggant_lightning.taggants.objective import Surrogate, chunk_size

log = logging.getLogger(__name__)

# Squared norms of one parameter may differ by this much, and by this share of the image's whole: rounding is far below,
# and a layer that is not what it seems is far above.
TOLERANCE, NEGLIGIBLE = 2e-3, 1e-6
MIXED = 1e3  # units of rounding by which an answer may differ from batch to batch
# Bytes of one layer's patches and products at a time: on a CPU they had better stay near its caches.
BUFFER = {"cpu": 8 << 20}
BUFFER_ELSEWHERE = 1 << 30

FEW_INPUTS = 256  # entries of a kernel below which a CPU multiplies patches sooner than it convolves (docs/decisions.md)
SLOW_KERNELS = ("cpu",)  # where `vmap` over a convolution's kernel takes longer than one image at a time

# A layer's rule: the module, its input, the gradient at its output and the number n of images give, for each of the
# module's parameters by name, a function that returns (n,) squared norms.
Squares: TypeAlias = dict[str, Callable[[], Tensor]]
Rule: TypeAlias = Callable[[Any, Tensor, Tensor, int], Squares]


def gradient_norms(
    surrogate: Surrogate,
    source: ImageSource,
    ids: NDArray[np.int64],
    load_size: int,
    image_size: int,
    micro_batch: int | None = None,
) -> NDArray[np.float64]:
    """Return the norm of each image's own parameter gradient, without augmentation, in full float32.

    Args:
        surrogate: In evaluation mode.
        source: The images.
        ids: (N,) source indices.
        load_size: Side that images are brought to, in pixels.
        image_size: Side of the model's input, the centre of that.
        micro_batch: Images a batch, counted from the first of `ids`; None for as many as crafting takes by default.

    Returns:
        (N,) float64: ‖∇_θ L(x_i)‖, the same for every `micro_batch` up to rounding.
    """
    device = surrogate.parameters[0].device
    size = chunk_size(load_size, device.type) if micro_batch is None else micro_batch

    def load(some: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        images = _load(source, some, load_size, image_size, surrogate.parameters[0])
        return images, torch.from_numpy(source.labels[some]).to(device)

    if len(ids) == 0:
        return np.zeros(0)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), full_float32():
        # The first and the last image of the source, whatever `ids` are: every process comes to the same plan.
        plan = _plan(surrogate, *load(np.array([0, len(source) - 1])))
        squares = [_squares(surrogate, plan, *load(ids[start : start + size])) for start in range(0, len(ids), size)]
        found: NDArray[np.float64] = torch.cat(squares).sqrt().cpu().double().numpy()  # read back once, so that batches queue
    return found


def _load(source: ImageSource, ids: NDArray[np.int64], load_size: int, image_size: int, like: Tensor) -> Tensor:
    """Return (n, C, S, S) float in [0, 1] of the dtype and on the device of `like`; images of one stored shape go together."""
    arrays = [source.pixels(int(i)) for i in ids]
    places: dict[tuple[int, ...], list[int]] = {}
    for place, array in enumerate(arrays):
        places.setdefault(array.shape, []).append(place)
    found: list[Tensor] = [like] * len(arrays)
    for some in places.values():
        pixels = torch.from_numpy(np.stack([arrays[place] for place in some])).to(like.device)
        images = centre(fit((pixels.to(torch.float32) / 255).to(like), load_size), image_size)
        if len(places) == 1:
            return images
        for place, image in zip(some, images, strict=True):
            found[place] = image
    return torch.stack(found)


@dataclass(frozen=True)
class _Plan:
    """How each parameter's share is computed. Parameters are meant by their number in `Surrogate.parameters`.

    Attributes:
        layers: Modules with their rule, and the numbers of their parameters by the parameters' names in the module.
        widened: Names in the model, by number, of parameters that get one copy an image.
        mapped: The same of those left to `vmap`.
        single: Whether to take one image at a time instead of all that.
    """

    layers: list[tuple[nn.Module, Rule, dict[str, int]]] = field(default_factory=list)
    widened: dict[int, str] = field(default_factory=dict)
    mapped: dict[int, str] = field(default_factory=dict)
    single: bool = False

    @property
    def direct(self) -> set[int]:
        """Numbers of the parameters that the batch's one pass gives."""
        return {number for _, _, numbers in self.layers for number in numbers.values()} | set(self.widened)


def _plan(surrogate: Surrogate, images: Tensor, labels: Tensor) -> _Plan:
    """Find out on two images which way gives each parameter's share."""
    model, kind = surrogate.model, type(surrogate.model).__name__
    numbers = {id(p): number for number, p in enumerate(surrogate.parameters)}
    names = {numbers[id(p)]: name for name, p in model.named_parameters() if id(p) in numbers}
    if len(names) < len(surrogate.parameters):
        log.info("%s: gradient norms one image at a time: a parameter is not the model's, or given twice", kind)
        return _Plan(single=True)
    ones = [(images[i : i + 1], labels[i : i + 1]) for i in range(len(images))]
    wanted = torch.stack([_single(surrogate, *one) for one in ones], dim=1)

    def agrees(found: dict[int, Tensor]) -> set[int]:
        """Return the numbers whose shares are those of one image at a time."""
        if not found:
            return set()
        order = list(found)
        right, error = wanted[order], (torch.stack([found[n] for n in order]) - wanted[order]).abs()
        good = (error <= TOLERANCE * right + NEGLIGIBLE * wanted.sum(0)).all(1)
        return {number for number, passed in zip(order, good.tolist(), strict=True) if passed}

    def attempt(work: Callable[[], dict[int, Tensor]]) -> set[int]:
        try:
            return agrees(work())
        except Exception as error:  # whatever a model's forward raises when its parameters or images are not as usual
            log.debug("%s: %s", kind, error)
            return set()

    mixed = _mixes(model, images)
    layers = [] if mixed else list(_layers(model, numbers))
    known = {number for _, _, own in layers for number in own.values()}
    widened = {n: name for n, name in names.items() if not mixed and n not in known and _widens(surrogate.parameters[n])}
    plan = _Plan(layers, widened)
    good = attempt(lambda: _by_layers(model, surrogate.parameters, plan, images, labels))
    if not good.issuperset(widened):  # one that is not widened rightly changes what all others see
        plan = _Plan(layers)
        good = attempt(lambda: _by_layers(model, surrogate.parameters, plan, images, labels))
    kept = [(module, rule, {key: n for key, n in own.items() if n in good}) for module, rule, own in layers]
    left = {n: name for n, name in names.items() if n not in good}
    plan = _Plan([layer for layer in kept if layer[2]], plan.widened, left)
    if not left:
        return plan
    kernels = any(surrogate.parameters[n].dim() > 3 for n in left)
    if kernels and images.device.type in SLOW_KERNELS:
        log.info("%s: gradient norms one image at a time: convolutions of an unknown kind", kind)
        return replace(plan, single=True)
    if attempt(lambda: _by_vmap(model, surrogate.parameters, left, images, labels)) != set(left):
        log.info("%s: gradient norms one image at a time: in a batch they come out otherwise", kind)
        return replace(plan, single=True)
    log.debug("%s: gradient norms of %s by vmap", kind, ", ".join(left.values()))
    return plan


def _mixes(model: nn.Module, images: Tensor) -> bool:
    """Say whether the model's answer to an image depends on the batch that it comes in."""
    with torch.no_grad():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    return bool((together - alone).abs().max() > MIXED * torch.finfo(alone.dtype).eps * alone.abs().max())


def _widens(parameter: Tensor) -> bool:
    return parameter.dim() > 1 and parameter.shape[0] == 1


def _layers(model: nn.Module, numbers: dict[int, int]) -> Iterator[tuple[nn.Module, Rule, dict[str, int]]]:
    """Yield modules that have a rule and wanted parameters which are theirs alone."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for module in model.modules():
        rule = _rules().get(type(module))
        if rule is not None and not getattr(module, "inplace", False):
            named = {key: p for key, p in module.named_parameters(recurse=False) if owners[id(p)] == 1}
            own = {key: numbers[id(p)] for key, p in named.items() if id(p) in numbers}
            if own:
                yield module, rule, own


def _squares(surrogate: Surrogate, plan: _Plan, images: Tensor, labels: Tensor) -> Tensor:
    """Return (n,) squared norms of the images' gradients."""
    model, parameters = surrogate.model, surrogate.parameters
    if not plan.single:
        found = _by_layers(model, parameters, plan, images, labels)
        if plan.direct.issubset(found):
            if plan.mapped:
                found.update(_by_vmap(model, parameters, plan.mapped, images, labels))
            return torch.stack([found[number] for number in range(len(parameters))]).sum(0)
        log.info("%s: gradient norms of a batch one image at a time: it took another way", type(model).__name__)
    return torch.stack([_single(surrogate, images[i : i + 1], labels[i : i + 1]).sum() for i in range(len(images))])


def _single(surrogate: Surrogate, image: Tensor, label: Tensor) -> Tensor:
    """Return (P,) squared norms of the P parameters' gradients of one image."""
    return torch.stack([g.square().sum() for g in surrogate.key_gradient(image, int(label))])


def _by_layers(
    model: nn.Module, parameters: Sequence[nn.Parameter], plan: _Plan, images: Tensor, labels: Tensor
) -> dict[int, Tensor]:
    """Return (n,) squared norms by parameter's number, of the layers that are called once each and of widened parameters."""
    found: dict[int, Tensor] = {}
    again: set[int] = set()
    count = len(images)

    def watch(rule: Rule, numbers: dict[str, int]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def left(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if len(given) != 1 or not isinstance(output, Tensor) or not output.requires_grad:
                return
            entered = given[0].detach()

            def returned(gradient: Tensor) -> None:
                if not entered.dim() or len(entered) % count:
                    return
                squares = rule(module, entered, gradient.detach(), count)
                for key, number in numbers.items():
                    if number in found:
                        again.add(number)
                    elif key in squares:
                        found[number] = squares[key]()

            output.register_hook(returned)  # type: ignore[no-untyped-call]  # now: what is done in place later has another gradient

        return left

    leaves = {n: parameters[n].detach().expand(count, *parameters[n].shape[1:]).clone() for n in plan.widened}
    inputs = [images.detach().requires_grad_(), *(leaf.requires_grad_() for leaf in leaves.values())]
    with ExitStack() as stack:
        for module, rule, numbers in plan.layers:
            stack.enter_context(_removed(module.register_forward_hook(watch(rule, numbers), prepend=True)))
        logits = functional_call(model, {plan.widened[n]: leaf for n, leaf in leaves.items()}, (inputs[0],))
        loss = F.cross_entropy(logits, labels, reduction="sum")
        # With respect to the images, so that the pass reaches every layer but sums no parameter's gradient over them.
        gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    for number, gradient in zip(leaves, gradients[1:], strict=True):
        if gradient is not None:
            found[number] = gradient.flatten(1).square().sum(1)
    return {number: value for number, value in found.items() if number not in again}


def _removed(handle: Any) -> Any:
    """Return a hook's handle as the context that removes it: not every release of torch types it as one."""
    return handle


def _by_vmap(
    model: nn.Module, parameters: Sequence[nn.Parameter], names: dict[int, str], images: Tensor, labels: Tensor
) -> dict[int, Tensor]:
    """Return (n,) squared norms by parameter's number, from each image's whole gradient of these parameters."""
    point = {name: parameters[number].detach() for number, name in names.items()}

    def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, values, (image[None],)), label[None])

    def squares(image: Tensor, label: Tensor) -> dict[str, Tensor]:
        return {name: g.square().sum() for name, g in grad(loss)(point, image, label).items()}

    rows = _rows(images, sum(p.numel() for p in point.values()))
    with torch.no_grad():  # the other parameters need no graph; `grad` makes its own
        found = vmap(squares, chunk_size=min(rows, len(images)))(images, labels)
    return {number: found[name] for number, name in names.items()}


def _rows(like: Tensor, each: int) -> int:
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
    rows = _rows(a, each + 1)
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
        a = _patches(module, _padded(module, x[some]), height, width).reshape(-1, kernel, places)
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
        return _by_rows(by_patches, count, _rows(x, each))

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
        return _by_channel(F.batch_norm(x, mean, variance, None, None, False, 0.0, module.eps), count)

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
def _rules() -> dict[type, Rule]:
    """Return the rule of each kind of layer: of exactly that class, as a subclass may do something else besides."""
    import timm.layers

    rules: dict[type, Rule] = {
        nn.Linear: _linear,
        nn.Conv2d: _convolution,
        nn.LayerNorm: _layer_norm,
        nn.GroupNorm: _group_norm,
    }
    rules.update(dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm), _batch_norm))
    timms: dict[str, Rule] = {
        "LayerNorm": _layer_norm, "LayerNorm2d": _layer_norm_2d, "GroupNorm": _group_norm, "GroupNorm1": _group_norm,
        "LayerScale": _layer_scale, "LayerScale2d": _layer_scale_2d,
    }  # fmt: skip
    rules.update({getattr(timm.layers, name): rule for name, rule in timms.items() if hasattr(timm.layers, name)})
    return rules

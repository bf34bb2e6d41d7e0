"""Norms of many images' own parameter gradients, by which signing images are chosen, a batch at a time.

An image's squared norm is the sum over the parameters of ‖∇_p L(x_i)‖². Most parameters belong to a layer whose gradient
is a product of what went into the layer and of the loss's gradient at what came out, so that one forward and one backward
pass of the batch give every image its own: with a_t and g_t the two at place t (a token, a pixel) of one image,

    ∇_W L = Σ_t g_t a_tᵀ,   ‖∇_W L‖² = Σ_{t,t'} ⟨a_t, a_t'⟩ ⟨g_t, g_t'⟩,

whichever takes fewer operations; for a convolution a_t is the patch under the kernel. Parameters with a leading dimension
of 1 (position embeddings, class tokens) are widened, one copy an image. What is left goes through `vmap`.

Nothing of that is taken on trust: each parameter's share is first compared with one image at a time, on two images and in
float64, and so are the answers, which must not depend on the batch.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from taggant_lightning.data.resize import centre, fit
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.gradients.alignment import full_float32
from taggant_lightning.gradients.layer_rules import Rule, rows_at_once, rules
from taggant_lightning.methods.taggants.crafting.objective import Surrogate, chunk_size

log = logging.getLogger(__name__)

# How far the shares of one parameter may lie apart, relative and as a share of the image's whole, and answers, in units of
# rounding. The comparison is in float64, where a layer that is not what it seems stands out and kinks of ReLU do no harm;
# the wider bound is for models that compute in their own precision only.
TOLERANCE, IN_OWN_PRECISION, NEGLIGIBLE, MIXED = 1e-6, 2e-3, 1e-6, 1e3
ON_A_CPU = 4  # images of 224×224 a batch (docs/decisions.md)
# Where `vmap` takes longer than one image at a time: over kernels of convolutions, and at all from this side on.
SLOW_TO_MAP, LARGE = ("cpu",), 112


class GradientNorms:
    """Norms of images' own parameter gradients, without augmentation, in full float32.

    Args:
        surrogate: In evaluation mode; as it is at the first call, up to its weights' values.
        source: The images.
        load_size: Side that images are brought to, in pixels.
        image_size: Side of the model's input, the centre of that.
        micro_batch: Most images a batch; None for as many as pay.

    Attributes:
        micro_batch: Images a batch, counted from the first of those asked for.
    """

    def __init__(
        self, surrogate: Surrogate, source: ImageSource, load_size: int, image_size: int, micro_batch: int | None = None
    ) -> None:
        self.surrogate, self.source, self.load_size, self.image_size = surrogate, source, load_size, image_size
        kind = surrogate.parameters[0].device.type
        # A CPU holds less than crafting's chunk of large images near its cores, and gains little from more.
        most = chunk_size(load_size, kind)
        if kind == "cpu":
            most = min(most, max(ON_A_CPU, ON_A_CPU * 224**2 // load_size**2))
        self.micro_batch = most if micro_batch is None else min(most, micro_batch)
        self._plan: _Plan | None = None

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return ‖∇_θ L(x_i)‖ of some images, the same for every `micro_batch` up to rounding.

        Args:
            ids: (N,) source indices.

        Returns:
            (N,) float64.
        """
        if len(ids) == 0:
            return np.zeros(0)
        size = self.micro_batch
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), full_float32():
            if self._plan is None:
                # The first and the last image of the source, whatever `ids` are: every process comes to the same plan.
                self._plan = _plan(self.surrogate, *self._load(np.array([0, len(self.source) - 1])))
            starts = range(0, len(ids), size)
            squares = [_squares(self.surrogate, self._plan, *self._load(ids[start : start + size])) for start in starts]
            # Read back once: a device need not wait for the next batch to be decoded.
            found: NDArray[np.float64] = torch.cat(squares).sqrt().cpu().double().numpy()
        return found

    def _load(self, ids: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        like = self.surrogate.parameters[0]
        images = _load(self.source, ids, self.load_size, self.image_size, like)
        return images, _moved(torch.from_numpy(self.source.labels[ids]), like.device)


def gradient_norms(
    surrogate: Surrogate,
    source: ImageSource,
    ids: NDArray[np.int64],
    load_size: int,
    image_size: int,
    micro_batch: int | None = None,
) -> NDArray[np.float64]:
    """Return the norms of some images, (N,) float64: `GradientNorms` asked once, whose arguments these are."""
    return GradientNorms(surrogate, source, load_size, image_size, micro_batch)(ids)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device; to a CUDA device by a copy that does not wait for what is computing there."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _load(source: ImageSource, ids: NDArray[np.int64], load_size: int, image_size: int, like: Tensor) -> Tensor:
    """Return (n, C, S, S) float in [0, 1] of the dtype and on the device of `like`; images of one stored shape go together."""
    arrays = [source.pixels(int(i)) for i in ids]
    places: dict[tuple[int, ...], list[int]] = {}
    for place, array in enumerate(arrays):
        places.setdefault(array.shape, []).append(place)
    found: list[Tensor] = [like] * len(arrays)
    for some in places.values():
        pixels = _moved(torch.from_numpy(np.stack([arrays[place] for place in some])), like.device)
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


@dataclass(frozen=True)
class _Point:
    """A model with the values that it is asked at.

    Attributes:
        model: Maps images to logits.
        parameters: P wanted parameters, or tensors that stand for them.
        names: Their names in the model, by number.
        others: What stands for the model's parameters and buffers, by name; none where they stand for themselves.
    """

    model: nn.Module
    parameters: Sequence[Tensor]
    names: dict[int, str]
    others: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, surrogate: Surrogate) -> "_Point":
        """Return a surrogate as it is."""
        numbers = {id(p): number for number, p in enumerate(surrogate.parameters)}
        named = surrogate.model.named_parameters()
        return cls(surrogate.model, surrogate.parameters, {numbers[id(p)]: name for name, p in named if id(p) in numbers})

    def in_float64(self) -> "_Point":
        """Return copies of the values in float64; the model itself keeps its own."""
        values = [*self.model.named_parameters(), *self.model.named_buffers()]
        others = {name: value.detach().double() for name, value in values if value.is_floating_point()}
        parameters = [others[self.names[number]].requires_grad_() for number in range(len(self.parameters))]
        return _Point(self.model, parameters, self.names, others)

    def answer(self, images: Tensor, instead: dict[str, Tensor] | None = None) -> Tensor:
        """Return logits, with still other values for some parameters."""
        logits: Tensor = functional_call(self.model, {**self.others, **(instead or {})}, (images,))
        return logits

    def mixes(self, images: Tensor) -> bool:
        """Say whether the answer to an image depends on the batch that it comes in."""
        with torch.no_grad():
            together, alone = self.answer(images), torch.cat([self.answer(image[None]) for image in images])
        return bool((together - alone).abs().max() > MIXED * torch.finfo(alone.dtype).eps * alone.abs().max())

    def single(self, image: Tensor, label: Tensor) -> Tensor:
        """Return (P,) squared norms of the parameters' gradients of one image, (1, C, S, S), and its label, (1,)."""
        loss = F.cross_entropy(self.answer(image), label)
        gradient = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
        return torch.stack([g.square().sum() for g in gradient])


def _plan(surrogate: Surrogate, images: Tensor, labels: Tensor) -> _Plan:
    """Find out on two images which way gives each parameter's share."""
    point, kind = _Point.of(surrogate), type(surrogate.model).__name__
    if len(point.names) < len(surrogate.parameters):
        log.info("%s: gradient norms one image at a time: a parameter is not the model's, or given twice", kind)
        return _Plan(single=True)
    rows = range(len(images))
    tolerance, wanted = IN_OWN_PRECISION, torch.zeros(0)
    try:
        exact, precise = point.in_float64(), images.double()
        wanted = torch.stack([exact.single(precise[i : i + 1], labels[i : i + 1]) for i in rows], dim=1)
        point, images, tolerance = exact, precise, TOLERANCE
    except Exception as error:  # a device or a model may know its own precision only
        log.debug("%s: %s", kind, error)
        wanted = torch.stack([point.single(images[i : i + 1], labels[i : i + 1]) for i in rows], dim=1)

    def attempt(work: Callable[[], dict[int, Tensor]]) -> set[int]:
        """Return the numbers of the parameters whose shares are those of one image at a time."""
        try:
            found = work()
        except Exception as error:  # whatever a model's forward raises when its parameters or images are not as usual
            log.debug("%s: %s", kind, error)
            return set()
        if not found:
            return set()
        order = list(found)
        right = wanted[order]
        apart = (torch.stack([found[n] for n in order]) - right).abs()
        good = (apart <= tolerance * right + NEGLIGIBLE * wanted.sum(0)).all(1)
        return {number for number, passed in zip(order, good.tolist(), strict=True) if passed}

    mixed = point.mixes(images)
    layers = [] if mixed else list(_layers(surrogate))
    known = {number for _, _, own in layers for number in own.values()}
    widened = {n: name for n, name in point.names.items() if not mixed and n not in known and _widens(point.parameters[n])}
    plan = _Plan(layers, widened)
    good = attempt(lambda: _by_layers(point, plan, images, labels))
    if not good.issuperset(widened):  # one that is not widened rightly changes what all others see
        plan = _Plan(layers)
        good = attempt(lambda: _by_layers(point, plan, images, labels))
    kept = [(module, rule, {key: n for key, n in own.items() if n in good}) for module, rule, own in layers]
    left = {n: name for n, name in point.names.items() if n not in good}
    plan = _Plan([layer for layer in kept if layer[2]], plan.widened, left)
    if not left:
        return plan
    kernels, large = any(point.parameters[n].dim() > 3 for n in left), images.shape[-1] >= LARGE
    if (kernels or large) and images.device.type in SLOW_TO_MAP:
        log.info("%s: gradient norms one image at a time: `vmap` over some of its parameters would take longer", kind)
        return replace(plan, single=True)
    if attempt(lambda: _by_vmap(point, left, images, labels)) != set(left):
        log.info("%s: gradient norms one image at a time: in a batch they come out otherwise", kind)
        return replace(plan, single=True)
    log.debug("%s: gradient norms of %s by vmap", kind, ", ".join(left.values()))
    return plan


def _widens(parameter: Tensor) -> bool:
    return parameter.dim() > 1 and parameter.shape[0] == 1


def _layers(surrogate: Surrogate) -> Iterator[tuple[nn.Module, Rule, dict[str, int]]]:
    """Yield modules that have a rule and wanted parameters which are theirs alone."""
    model, numbers = surrogate.model, {id(p): number for number, p in enumerate(surrogate.parameters)}
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for module in model.modules():
        rule = rules().get(type(module))
        if rule is not None and not getattr(module, "inplace", False):
            named = {key: p for key, p in module.named_parameters(recurse=False) if owners[id(p)] == 1}
            own = {key: numbers[id(p)] for key, p in named.items() if id(p) in numbers}
            if own:
                yield module, rule, own


def _squares(surrogate: Surrogate, plan: _Plan, images: Tensor, labels: Tensor) -> Tensor:
    """Return (n,) squared norms of the images' gradients."""
    if not plan.single:
        point = _Point.of(surrogate)
        found = _by_layers(point, plan, images, labels)
        if plan.direct.issubset(found):
            if plan.mapped:
                found.update(_by_vmap(point, plan.mapped, images, labels))
            return torch.stack([found[number] for number in range(len(point.parameters))]).sum(0)
        log.info("%s: gradient norms of a batch one image at a time: it took another way", type(surrogate.model).__name__)
    gradients = [surrogate.key_gradient(image[None], int(label)) for image, label in zip(images, labels, strict=True)]
    return torch.stack([torch.stack([g.square().sum() for g in gradient]).sum() for gradient in gradients])


def _by_layers(point: _Point, plan: _Plan, images: Tensor, labels: Tensor) -> dict[int, Tensor]:
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

    wide = {n: point.parameters[n].detach() for n in plan.widened}
    leaves = {n: value.expand(count, *value.shape[1:]).clone() for n, value in wide.items()}
    inputs = [images.detach().requires_grad_(), *(leaf.requires_grad_() for leaf in leaves.values())]
    with ExitStack() as stack:
        for module, rule, numbers in plan.layers:
            stack.enter_context(_removed(module.register_forward_hook(watch(rule, numbers), prepend=True)))
        logits = point.answer(inputs[0], {plan.widened[n]: leaf for n, leaf in leaves.items()})
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


def _by_vmap(point: _Point, names: dict[int, str], images: Tensor, labels: Tensor) -> dict[int, Tensor]:
    """Return (n,) squared norms by parameter's number, from each image's whole gradient of these parameters."""
    values = {name: point.parameters[number].detach() for number, name in names.items()}

    def loss(at: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(point.answer(image[None], at), label[None])

    def squares(image: Tensor, label: Tensor) -> dict[str, Tensor]:
        return {name: g.square().sum() for name, g in grad(loss)(values, image, label).items()}

    rows = rows_at_once(images, sum(value.numel() for value in values.values()))
    with torch.no_grad():  # the other parameters need no graph; `grad` makes its own
        found = vmap(squares, chunk_size=min(rows, len(images)))(images, labels)
    return {number: found[name] for number, name in names.items()}

"""Gradient alignment: a cosine between two parameter gradients, and its derivative with respect to the data.

Nothing here knows of images. The data enter through *chunks*: functions without arguments that return a scalar loss, built
from the parameters and from leaf tensors of the data. The gradient of the whole is the sum over the chunks, so that memory
follows the largest chunk and not the number of samples.

With g(δ) = Σ_chunks ∇_θ L and a fixed target t, the objective is c(δ) = ⟨g, t⟩ / (‖g‖‖t‖). By the chain rule

    ∇_δ c = ∇_δ ⟨g(δ), v⟩,   v = ∂c/∂g = (t/‖t‖ − c·g/‖g‖) / ‖g‖ held constant,

and the right-hand side is a sum over chunks too: the derivative by chunks is that of the whole, up to the order of float
additions. `v` needs the finished sum, hence two passes; a single chunk keeps its graph and needs one.

`alignment` takes that derivative by double backward, exact up to rounding. `alignment_by_difference` takes it from first
derivatives alone: ∇_δ ⟨g(δ), v⟩ is the slope of ∇_δ L along v in parameter space, hence

    ∇_δ c ≈ (∇_δ L(θ + h·v) − ∇_δ L(θ)) / h,

and ∇_δ L(θ) comes with the pass that sums g. Five forward passes' worth of work instead of seven to ten, no second-order
graph in memory, fused attention allowed. It needs a smooth model (GELU, SiLU, attention): at the kinks of ReLU it fails.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Chunk: TypeAlias = Callable[[], Tensor]
# Adds up, in place, what several processes hold of one sum.
Combine: TypeAlias = Callable[[Sequence[Tensor]], None]

# Length of h·v beside that of θ: rounding grows below and curvature above (docs/decisions.md).
RELATIVE_STEP = {torch.float32: 3e-5, torch.float64: 1e-8}


def alone(total: Sequence[Tensor]) -> None:
    """Leave a sum as it is: one process holds all of it."""


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return a list of tensors as one vector, (n,).

    Parameter gradients are vectors of many pieces. One operation on the whole in place of one a piece: on a GPU, steps of small
    images are paced by the number of operations, four fifths of which would be these.
    """
    return tensors[0].reshape(-1) if len(tensors) == 1 else torch.cat([t.reshape(-1) for t in tensors])


def pieces(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the pieces of a vector, views of the shapes of some tensors."""
    return [p.view_as(t) for p, t in zip(torch.split(vector, [t.numel() for t in like]), like, strict=True)]


def norm(a: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of a list of tensors taken as one vector, as a scalar tensor."""
    return _length(flat(a))


def cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Return the cosine between two lists of tensors taken as two vectors; 0 where one of them vanishes."""
    return _cosine(flat(a), flat(b))


def cosine_derivative(gradient: Sequence[Tensor], target: Sequence[Tensor]) -> list[Tensor]:
    """Return ∂cos(gradient, target)/∂gradient, tensors of the gradient's shapes; zeros where a norm vanishes."""
    return pieces(_cosine_derivative(flat(gradient), flat(target)), gradient)


def _length(vector: Tensor) -> Tensor:
    return torch.sum(vector * vector).sqrt()


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    product = _length(a) * _length(b)
    return torch.where(product > 0, torch.sum(a * b) / product.clamp_min(torch.finfo(product.dtype).tiny), 0.0)


def _cosine_derivative(gradient: Tensor, target: Tensor) -> Tensor:
    length, target_length = _length(gradient), _length(target)
    vanishes = length * target_length == 0  # asked on the device: reading it back would wait for all that is left to do there
    length, target_length = (torch.where(vanishes, torch.inf, n) for n in (length, target_length))
    c = torch.sum(gradient * target) / (length * target_length)
    return (target / target_length - c / length * gradient) / length


def _parameter_gradient(loss: Tensor, parameters: Sequence[Tensor], *, keep_graph: bool) -> Tensor:
    return flat(torch.autograd.grad(loss, parameters, create_graph=keep_graph, materialize_grads=True))


def summed_gradient(chunks: Sequence[Chunk], parameters: Sequence[Tensor], combine: Combine = alone) -> list[Tensor]:
    """Return Σ_chunks ∇_θ loss without a graph.

    Args:
        chunks: Functions that return a scalar loss.
        parameters: Leaf tensors; one that a loss does not use counts with gradient zero.
        combine: Called once with the sum, where other processes hold the other chunks.

    Returns:
        One detached tensor a parameter, of its shape; where parameters have several types, of the widest.
    """
    return pieces(_summed_gradient(chunks, parameters, combine), parameters)


def _summed_gradient(chunks: Sequence[Chunk], parameters: Sequence[Tensor], combine: Combine) -> Tensor:
    total: Tensor | None = None
    for chunk in chunks:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            own = _parameter_gradient(chunk(), parameters, keep_graph=False)
        total = own if total is None else total + own
    if total is None:  # a process may hold none of the chunks
        total = torch.zeros_like(flat([p.detach() for p in parameters]))
    combine([total])
    return total


def _add_used(total: Sequence[Tensor], parts: Sequence[Tensor | None]) -> None:
    """Add to each total its part, None for leaves that a chunk does not use: a chunk costs what it holds, not what all hold."""
    for whole, part in zip(total, parts, strict=True):
        if part is not None:
            whole.add_(part.detach())


def alignment(
    chunks: Sequence[Chunk],
    parameters: Sequence[Tensor],
    target: Sequence[Tensor],
    data: Sequence[Tensor],
    combine: Combine = alone,
) -> tuple[Tensor, list[Tensor]]:
    """Return the cosine between the chunks' summed gradient and a target, with its derivative with respect to the data.

    The forward passes run with unfused attention: the fused kernels have no second derivative.

    Args:
        chunks: Functions that return a scalar loss, differentiable twice with respect to `parameters` and `data`.
        parameters: P leaf tensors that require grad.
        target: P tensors of the parameters' shapes, for instance a key's gradient; or all of them as one vector.
        data: Leaf tensors that require grad, for instance perturbations; best each used by one chunk alone.
        combine: Called once with the summed gradient, where other processes hold the other chunks and their data.

    Returns:
        The cosine, a scalar tensor in [-1, 1], and one tensor for each entry of `data`, of its shape: ∂cosine/∂data.
    """
    wanted = flat(target)
    if len(chunks) == 1:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            gradient = _parameter_gradient(chunks[0](), parameters, keep_graph=True)
            total = gradient.detach().clone()
            combine([total])
            value = torch.sum(gradient * _cosine_derivative(total, wanted))
            derivative = torch.autograd.grad(value, data, materialize_grads=True)
        return _cosine(total, wanted), [d.detach() for d in derivative]
    total = _summed_gradient(chunks, parameters, combine)
    direction = _cosine_derivative(total, wanted)
    derivatives = [torch.zeros_like(d) for d in data]
    for chunk in chunks:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            along = torch.sum(_parameter_gradient(chunk(), parameters, keep_graph=True) * direction)
            _add_used(derivatives, torch.autograd.grad(along, data, allow_unused=True))
            del along  # with its graph, before the next chunk builds its own
    return _cosine(total, wanted), derivatives


@contextmanager
def full_float32() -> Iterator[None]:
    """Multiply float32 in full, and put the settings back.

    cuDNN's convolutions take TF32 (10 bits of mantissa) by default, matrix products where the user allows it; the
    difference of two passes at parameters that differ by 3e-5 would drown in its rounding.
    """
    backends: Any = torch.backends
    # Since torch 2.9 each kind of operation has a setting of its own. The older names are set as well: they refuse to be
    # read while both disagree, and a model's forward may read them (`torch.backends.cudnn.flags` does).
    kinds: list[Any] = []
    if hasattr(backends.cudnn, "conv"):
        kinds = [backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul, backends.mkldnn.matmul]
    before = [kind.fp32_precision for kind in kinds]
    allowed = before[0] == "tf32" if kinds else backends.cudnn.allow_tf32
    products: str | None = None
    with suppress(RuntimeError):  # it cannot be read where the user has written the newer name, which then counts alone
        products = torch.get_float32_matmul_precision()
    try:
        backends.cudnn.allow_tf32 = False
        if products is not None:
            torch.set_float32_matmul_precision("highest")
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        backends.cudnn.allow_tf32 = allowed
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value


@contextmanager
def _shifted(parameters: Sequence[Tensor], here: Tensor, there: Tensor) -> Iterator[None]:
    """Put parameters, in place, from where one vector has them to another, without gradients of their own, and back again."""
    values = [p.detach() for p in parameters]
    for parameter in parameters:
        parameter.requires_grad_(False)  # its gradient is neither wanted nor worth the memory
    try:
        torch._foreach_copy_(values, pieces(there, values))
        yield
    finally:
        torch._foreach_copy_(values, pieces(here, values))
        for parameter in parameters:
            parameter.requires_grad_(True)


def alignment_by_difference(
    chunks: Sequence[Chunk],
    parameters: Sequence[Tensor],
    target: Sequence[Tensor],
    data: Sequence[Tensor],
    combine: Combine = alone,
) -> tuple[Tensor, list[Tensor]]:
    """Return what `alignment` returns, the derivative from a one-sided difference of first derivatives.

    Args:
        chunks: Functions that return a scalar loss, smooth in `parameters` and the same at each call.
        parameters: P leaf tensors that require grad, float32 or float64; moved while it runs, and put back.
        target: P tensors of the parameters' shapes, or all of them as one vector.
        data: Leaf tensors that require grad.
        combine: As in `alignment`.

    Returns:
        The cosine, a scalar tensor in [-1, 1], and one tensor for each entry of `data`, of its shape, ≈ ∂cosine/∂data.
    """
    weights, wanted = flat([p.detach() for p in parameters]).clone(), flat(target)
    total = torch.zeros_like(weights)
    here = [torch.zeros_like(d) for d in data]
    for chunk in chunks:  # no name for a chunk's gradient: it would live on beside the next chunk's graph
        with torch.enable_grad(), full_float32():
            _add_first([total, *here], parameters, data, chunk())
    combine([total])
    direction = _cosine_derivative(total, wanted)
    length = _length(direction)
    # Where the direction vanishes so does the difference, whatever the length of the step.
    step = RELATIVE_STEP[parameters[0].dtype] * _length(weights) / torch.where(length == 0, 1.0, length)
    there = [torch.zeros_like(d) for d in data]
    with _shifted(parameters, weights, weights + step * direction):
        for chunk in chunks:
            with torch.enable_grad(), full_float32():
                _add_used(there, torch.autograd.grad(chunk(), data, allow_unused=True))
    torch._foreach_sub_(there, here)
    torch._foreach_div_(there, step)
    # Two passes that differ by their rounding alone would be taken for a derivative.
    torch._foreach_mul_(there, (length > 0).to(step.dtype))
    return _cosine(total, wanted), there


def _add_first(totals: Sequence[Tensor], parameters: Sequence[Tensor], data: Sequence[Tensor], loss: Tensor) -> None:
    """Add the first derivatives of a loss: the parameters' to the first total, one vector, and those of the data."""
    found = torch.autograd.grad(loss, [*parameters, *data], allow_unused=True)
    own = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=False)]
    _add_used(totals, [flat(own), *found[len(parameters) :]])

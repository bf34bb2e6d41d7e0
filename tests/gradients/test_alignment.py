"""The derivative against double backward, finite differences and by parts, in float64."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from taggant_lightning.gradients.alignment import (
    Chunk,
    alignment,
    alignment_by_difference,
    cosine,
    cosine_derivative,
    full_float32,
    summed_gradient,
)
from tests.conftest import TinyAttention, TwoLayers


def setting(model: nn.Module) -> tuple[nn.Module, list[nn.Parameter], Tensor, Tensor, list[Tensor]]:
    torch.manual_seed(0)
    model = model.double().eval()
    images, labels = torch.rand(7, 3, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 1, 0, 2])
    parameters = list(model.parameters())
    key = torch.rand(1, 3, 6, 6, dtype=torch.float64)
    target = summed_gradient([lambda: F.cross_entropy(model(key), torch.tensor([2]))], parameters)
    return model, parameters, images, labels, target


def chunks_of(model: nn.Module, images: Tensor, delta: Tensor, labels: Tensor, size: int) -> list[Chunk]:
    def chunk(rows: slice) -> Tensor:
        return F.cross_entropy(model(images[rows] + delta[rows]), labels[rows], reduction="sum")

    return [lambda start=start: chunk(slice(start, start + size)) for start in range(0, len(images), size)]


def textbook(model: nn.Module, images: Tensor, delta: Tensor, labels: Tensor, target: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One graph through everything: the slow twin."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = F.cross_entropy(model(images + delta), labels, reduction="sum")
        gradient = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        a, b = torch.cat([g.flatten() for g in gradient]), torch.cat([t.flatten() for t in target])
        value = a @ b / (a.norm() * b.norm())
        return value, torch.autograd.grad(value, delta)[0]


@pytest.mark.parametrize("model", [TwoLayers(), TinyAttention()], ids=["mlp", "attention"])
@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_equals_double_backward_whole_and_in_parts(model: nn.Module, size: int) -> None:
    model, parameters, images, labels, target = setting(model)
    delta = (0.05 * torch.randn_like(images)).requires_grad_()
    expected, expected_gradient = textbook(model, images, delta, labels, target)
    value, (gradient,) = alignment(chunks_of(model, images, delta, labels, size), parameters, target, [delta])
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-13)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("model", [TwoLayers(), TinyAttention()], ids=["mlp", "attention"])
def test_equals_finite_differences(model: nn.Module) -> None:
    model, parameters, images, labels, target = setting(model)
    delta = (0.05 * torch.randn_like(images)).requires_grad_()
    _, (gradient,) = alignment(chunks_of(model, images, delta, labels, 3), parameters, target, [delta])

    def value(shifted: Tensor) -> float:
        return cosine(summed_gradient(chunks_of(model, images, shifted, labels, 7), parameters), target).item()

    for _ in range(5):
        direction = torch.randn_like(images)
        step = 1e-5
        with torch.no_grad():
            slope = (value(delta + step * direction) - value(delta - step * direction)) / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_hand_computed_on_two_parameters() -> None:
    """Loss w·x: the gradient is x itself, so the cosine is that of two vectors in the plane."""
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    value, (gradient,) = alignment([lambda: w @ x], [w], [torch.tensor([1.0, 0.0], dtype=torch.float64)], [x])
    assert value.item() == pytest.approx(1 / math.sqrt(2))
    # d/dx1 of x1/|x| at (1, 1) is 1/(2√2), d/dx2 its opposite.
    torch.testing.assert_close(gradient, torch.tensor([1, -1], dtype=torch.float64) / (2 * math.sqrt(2)))


def test_sum_of_gradients_not_mean_of_cosines() -> None:
    """Two samples that cancel: the cosine of the sum follows what is left, not the average of two cosines."""
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    a = torch.tensor([3.0, 0.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([-3.0, 1.0], dtype=torch.float64, requires_grad=True)
    target = [torch.tensor([0.0, 1.0], dtype=torch.float64)]
    value, _ = alignment([lambda: w @ a, lambda: w @ b], [w], target, [a, b])
    assert value.item() == pytest.approx(1.0)


def test_vanishing_gradients_give_zero_and_not_nan() -> None:
    w = torch.zeros(2, requires_grad=True)
    x = torch.zeros(2, requires_grad=True)
    value, (gradient,) = alignment([lambda: w @ x], [w], [torch.ones(2)], [x])
    assert value == 0
    assert torch.equal(gradient, torch.zeros(2))
    assert all(torch.equal(v, torch.zeros(2)) for v in cosine_derivative([torch.ones(2)], [torch.zeros(2)]))


def test_unused_parameters_count_as_zero() -> None:
    w, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    value, (gradient,) = alignment([lambda: w @ x], [w, unused], [torch.ones(2), torch.ones(3)], [x])
    assert value.item() == pytest.approx(3 / math.sqrt(5 * 5))
    assert gradient.shape == x.shape


def test_error_in_single_precision_is_that_of_double_backward() -> None:
    """Against float64: whole or in parts, at most three times the error of one graph through everything."""
    model, parameters, images, labels, target = setting(TinyAttention())
    delta = (0.05 * torch.randn_like(images)).requires_grad_()
    _, precise = textbook(model, images, delta, labels, target)
    model.float()
    single = delta.detach().float().requires_grad_()
    images, target = images.float(), [t.float() for t in target]

    def error(found: Tensor) -> float:
        return float((found.double() - precise).norm() / precise.norm())

    plain = error(textbook(model, images, single, labels, target)[1])
    assert 1e-9 < plain < 1e-5
    for size in (2, 7):
        _, (found,) = alignment(chunks_of(model, images, single, labels, size), parameters, target, [single])
        assert error(found) <= 3 * plain


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Flatten(), nn.Linear(108, 16), nn.GELU(), nn.Linear(16, 3)), TinyAttention()]
)
def test_differences_agree_on_smooth_models(model: nn.Module, dtype: torch.dtype) -> None:
    model, parameters, images, labels, target = setting(model)
    delta = (0.05 * torch.randn_like(images)).requires_grad_()
    expected, precise = textbook(model, images, delta, labels, target)
    model.to(dtype)
    variable = delta.detach().to(dtype).requires_grad_()
    images, target = images.to(dtype), [t.to(dtype) for t in target]
    for size in (3, 7):
        chunks = chunks_of(model, images, variable, labels, size)
        value, (found,) = alignment_by_difference(chunks, parameters, target, [variable])
        assert value.item() == pytest.approx(expected.item(), abs=1e-5)
        relative = float((found.double() - precise).norm() / precise.norm())
        assert relative < (1e-6 if dtype == torch.float64 else 1e-2)
        assert float((found.sign() == precise.sign()).float().mean()) > 0.99


def test_differences_put_parameters_back_whatever_happens() -> None:
    model, parameters, images, labels, target = setting(TwoLayers())
    delta = torch.zeros_like(images).requires_grad_()
    before = [p.detach().clone() for p in parameters]
    calls = 0

    def fails_later() -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 1:
            assert not all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))  # the parameters are moved here
            raise RuntimeError("out of memory")
        return F.cross_entropy(model(images + delta), labels)

    alignment_by_difference(chunks_of(model, images, delta, labels, 3), parameters, target, [delta])
    with pytest.raises(RuntimeError, match="out of memory"):
        alignment_by_difference([fails_later], parameters, target, [delta])
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
    assert all(p.requires_grad and p.grad is None for p in parameters)


def test_differences_of_vanishing_gradients_are_zero() -> None:
    w = torch.ones(2, requires_grad=True)
    x = torch.zeros(2, requires_grad=True)
    value, (gradient,) = alignment_by_difference([lambda: w @ x], [w], [torch.ones(2)], [x])
    assert value == 0
    assert torch.equal(gradient, torch.zeros(2))


@pytest.fixture
def float32_settings() -> Iterator[None]:
    """Put the products' precision back."""
    original = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(original)


@pytest.mark.usefixtures("float32_settings")
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_settings_of_float32_are_put_back(precision: str) -> None:
    def seen() -> list[object]:
        cudnn, cuda, mkldnn = torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn
        kinds = (getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None), cuda.matmul, getattr(mkldnn, "matmul", None))
        newer = [getattr(kind, "fp32_precision", None) for kind in kinds]
        return [cudnn.allow_tf32, cuda.matmul.allow_tf32, torch.get_float32_matmul_precision(), *newer]

    torch.set_float32_matmul_precision(precision)
    before = seen()
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert seen() == before


@pytest.mark.usefixtures("float32_settings")
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_older_names_can_be_read_within_full_float32(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    with full_float32():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"
        with torch.backends.cudnn.flags(enabled=False):  # as a model's forward may write
            pass


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch 2.9 and later")
def test_newer_names_that_the_user_has_written_are_put_back() -> None:
    """Products by the newer name alone: then torch refuses to read the older one."""
    kinds = [torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul]
    before = [kind.fp32_precision for kind in kinds]
    try:
        for wanted in (["ieee", "tf32", "tf32"], ["tf32", "tf32", "ieee"], ["none", "none", "none"]):
            for kind, value in zip(kinds, wanted, strict=True):
                kind.fp32_precision = value
            expected = [kind.fp32_precision for kind in kinds]
            with full_float32():
                assert [kind.fp32_precision for kind in kinds] == ["ieee"] * 3
            assert [kind.fp32_precision for kind in kinds] == expected
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value


@pytest.mark.parametrize("take", [alignment, alignment_by_difference])
def test_what_is_done_with_gradients_does_not_grow_with_their_pieces(take: Callable) -> None:
    """On a GPU a step of small images costs what starting its operations costs."""

    class Counted(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.operations = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.operations += function.overloadpacket.__name__ in ("mul", "sum", "div", "sub", "add", "sqrt", "where", "copy_")
            return function(*args, **(kwargs or {}))

    def counted(pieces: int) -> int:
        parameters = [torch.rand(3, requires_grad=True) for _ in range(pieces)]
        data = torch.rand(3, requires_grad=True)
        target = [torch.rand(3) for _ in range(pieces)]
        with Counted() as mode:
            # One matrix product for all parameters, so that the loss itself costs as much for few as for many.
            take([lambda: (torch.stack(parameters).tanh() @ data).sum()], parameters, target, [data])
        return mode.operations

    assert counted(100) - counted(10) <= 90  # the sum of a stacked parameter's own two derivatives, and nothing of ours

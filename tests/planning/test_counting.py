"""Counts against hand calculation, and their linearity."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from taggant_lightning.methods.taggants.crafting.objective import Surrogate
from taggant_lightning.models.small import create_small
from taggant_lightning.planning.counting import Work, count, kept_bytes
from taggant_lightning.planning.steps import count_model, signing_step, training_step

FLOAT = 4


def test_linear_layer_by_hand() -> None:
    layer, images = nn.Linear(10, 6), torch.rand(5, 10)
    with torch.no_grad():
        work = count(lambda: layer(images))
    assert work.matmul == 2 * 5 * 10 * 6
    assert (work.forward, work.kernels) == (0, 1)  # the transposed weight is a view
    assert work.moved == FLOAT * (5 * 10 + 10 * 6 + 6 + 5 * 6)
    # Backward: the weight's gradient alone, as large as forward; the images want none.
    assert count(lambda: layer(images).sum().backward()).matmul == 2 * work.matmul


def test_convolution_by_hand() -> None:
    layer, images = nn.Conv2d(3, 8, 3, padding=1, stride=2), torch.rand(2, 3, 16, 16, requires_grad=True)
    with torch.no_grad():
        work = count(lambda: layer(images))
    assert work.flops == 2 * 2 * 8 * 8 * 8 * (3 * 3 * 3)
    assert work.forward == 2 * 2 * 8 * 8 * 16 * (16 * 3 * 3)  # in blocks of 16 channels
    both = count(lambda: layer(images).sum().backward())
    assert both.flops == 3 * work.flops
    assert both.backward == 2 * work.forward


def test_fused_attention_counts_as_two_products() -> None:
    query, key, value = (torch.rand(2, 3, 7, 4) for _ in range(3))
    with torch.no_grad():
        work = count(lambda: F.scaled_dot_product_attention(query, key, value))
    assert work.matmul == 2 * (2 * 2 * 3 * 7 * 7 * 4)


def test_works_add_up() -> None:
    one, two = Work(1, 2, 3, 4, 5, 6), Work(10, 20, 30, 40, 50, 60)
    assert one + two * 2 - one == Work(20, 40, 60, 80, 100, 120)


def test_kept_bytes_leave_out_leaves_and_count_a_tensor_once() -> None:
    weight = torch.rand(4, 4, requires_grad=True)

    def code() -> torch.Tensor:
        hidden = torch.rand(5, 4) @ weight  # kept by exp's result alone: its input is a leaf, and a constant
        return (hidden.exp() * hidden.exp()).sum()

    assert kept_bytes(code) == 2 * FLOAT * 5 * 4


@pytest.mark.parametrize(
    ("name", "derivative"),
    [("small_cnn", "difference"), ("small_cnn", "exact"), ("small_resnet", "exact"), ("small_vit", "difference")],
)
def test_counts_predict_larger_counts(name: str, derivative: str) -> None:
    shape = (3, 16, 16)
    model = create_small(name, num_classes=10, image_size=16, channels=3)
    counts = count_model(model, shape, derivative)
    training = count(training_step(model, shape, 9))
    surrogate = Surrogate(model.eval(), list(model.parameters()))
    for predicted, counted in (
        (counts.training.of(9), training),
        (counts.signing_whole.of(7), count(signing_step(surrogate, shape, 7, 1, derivative))),
        (counts.signing.of(20, 4), count(signing_step(surrogate, shape, 5, 4, derivative))),
    ):
        assert predicted.flops == pytest.approx(counted.flops, rel=1e-3)
        assert predicted.moved == pytest.approx(counted.moved, rel=0.05)
        assert predicted.kernels == pytest.approx(counted.kernels, rel=0.15)


def test_the_derivative_follows_smoothness_as_the_engine_decides() -> None:
    shape = (3, 16, 16)
    torch.manual_seed(0)
    for name, derivative in (("small_cnn", "difference"), ("small_vit", "difference"), ("small_resnet", "exact")):
        model = create_small(name, num_classes=10, image_size=16, channels=3)
        assert count_model(model, shape).derivative == derivative

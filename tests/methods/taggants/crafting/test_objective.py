"""The objective of one key: which derivative is taken, and which surrogate is asked."""

import logging

import pytest
import torch
from torch import Tensor, nn

from taggant_lightning.methods.taggants.crafting.objective import Derivative, Objective, Surrogate, View, chunk_size
from taggant_lightning.methods.taggants.crafting.team import Team
from tests.methods.taggants.crafting.test_crafting import CPU, KEY, images


class Counted(nn.Module):
    """Counts its calls."""

    def __init__(self, activation: nn.Module, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(108, 16), activation, nn.Linear(16, 3))
        self.calls = 0

    def forward(self, batch: Tensor) -> Tensor:
        self.calls += 1
        return self.net(batch)


def objective(*models: Counted, derivative: Derivative = "auto") -> Objective:
    surrogates = [Surrogate(m.eval(), list(m.parameters())) for m in models]
    return Objective(
        images(), KEY, surrogates, CPU, image_size=6, load_size=6, recipe="none", micro_batch=2, precision="32-true",
        derivative=derivative, perceptual=None, perceptual_weight=0.0, team=Team(),
    )  # fmt: skip


def start() -> list[Tensor]:
    return [torch.zeros(5, 3, 6, 6).requires_grad_()]


class Steps(nn.Module):
    """An activation whose slope jumps everywhere, so that differences see what double backward does not."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 3 + (torch.round(1e6 * x.detach()) % 2) * x


def test_auto_takes_differences_on_smooth_models_and_says_when_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taggant_lightning")
    smooth, rough = objective(Counted(nn.GELU())), objective(Counted(Steps()))
    value, rise = smooth.ascent(start(), View(), [0])
    same_value, same = objective(Counted(nn.GELU()), derivative="difference").ascent(start(), View(), [0])
    assert value == same_value
    assert torch.equal(rise[0], same[0])
    assert not caplog.messages
    _, rise = rough.ascent(start(), View(), [0])
    _, exact = objective(Counted(Steps()), derivative="exact").ascent(start(), View(), [0])
    assert torch.equal(rise[0], exact[0])
    (message,) = caplog.messages
    assert message.startswith("Counted: differences share")
    assert message.endswith("taking double backward")


def test_both_derivatives_agree() -> None:
    _, exact = objective(Counted(nn.GELU()), derivative="exact").ascent(start(), View(), [0])
    _, difference = objective(Counted(nn.GELU()), derivative="difference").ascent(start(), View(), [0])
    assert (exact[0].sign() == difference[0].sign()).float().mean() > 0.99
    torch.testing.assert_close(exact[0], difference[0], rtol=0, atol=0.02 * float(exact[0].abs().max()))


def test_only_the_named_surrogates_are_asked() -> None:
    a, b = Counted(nn.GELU()), Counted(nn.GELU(), seed=1)
    both = objective(a, b)
    a.calls = b.calls = 0
    value_a, rise_a = both.ascent(start(), View(), [0])
    assert a.calls > 0
    assert b.calls == 0
    value_b, rise_b = both.ascent(start(), View(), [1])
    value, rise = both.ascent(start(), View(), [0, 1])
    assert value == pytest.approx((value_a + value_b) / 2)
    torch.testing.assert_close(rise[0], (rise_a[0] + rise_b[0]) / 2)


def test_chunks_are_larger_on_a_gpu_where_images_are_small() -> None:
    assert [chunk_size(side, "cuda") for side in (32, 96, 224, 512)] == [256, 174, 32, 32]
    assert [chunk_size(side, "cpu") for side in (32, 224)] == [32, 32]

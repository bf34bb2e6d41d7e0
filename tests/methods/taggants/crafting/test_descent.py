"""Rules of the steps, against what the formulae say."""

import math

import pytest
import torch
from torch import Tensor

from taggant_lightning.methods.taggants.crafting.descent import Momentum, SignAdam

EPS = 16 / 255


def setting() -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
    torch.manual_seed(0)
    originals = [torch.rand(2, 3, 4, 4), torch.rand(1, 3, 5, 3)]
    return [torch.zeros_like(x) for x in originals], originals, [[torch.randn_like(x) for x in originals] for _ in range(9)]


def test_momentum_equals_its_sum_written_out() -> None:
    deltas, originals, rises = setting()
    originals = [0.5 * torch.ones_like(x) for x in originals]
    rule = Momentum(deltas, originals, 1.0, 1e-3, "cosine", len(rises))  # bounds out of reach
    for number, rise in enumerate(rises):
        rule.step([g * 10.0**number for g in rise], number)  # the size of a derivative does not matter
    unit = [torch.cat([g.flatten() for g in rise]) for rise in rises]
    unit = [u / u.abs().mean() for u in unit]
    wanted = torch.zeros_like(unit[0])
    for n in range(len(rises)):
        weights = [0.8 ** (n - s) for s in range(n + 1)]
        mean = sum(w * u for w, u in zip(weights, unit, strict=False)) / sum(weights)
        wanted += 1e-3 * 0.5 * (1 + math.cos(math.pi * n / len(rises))) * mean
    torch.testing.assert_close(torch.cat([d.flatten() for d in deltas]), wanted, rtol=1e-4, atol=1e-7)


def test_momentum_stays_without_a_derivative() -> None:
    deltas, originals, _ = setting()
    before = [d.clone() for d in deltas]
    rule = Momentum(deltas, originals, EPS, 1.0, "cosine", 3)
    rule.step([torch.zeros_like(d) for d in deltas], 0)
    assert all(torch.equal(a, b) for a, b in zip(before, deltas, strict=True))


@pytest.mark.parametrize("kind", [Momentum, SignAdam])
def test_bounds_hold_at_every_step(kind: type[Momentum | SignAdam]) -> None:
    deltas, originals, rises = setting()
    rule = kind(deltas, originals, EPS, 2.0, "step", 9)
    for number, rise in enumerate(rises):
        rule.step(rise, number)
        for delta, original in zip(deltas, originals, strict=True):
            assert delta.abs().max() <= EPS
            assert 0 <= (original + delta).min() <= (original + delta).max() <= 1
    assert deltas[0].abs().mean() > 0.3 * EPS


def test_sign_adam_moves_by_the_step_size_along_the_sign() -> None:
    deltas, originals, rises = setting()
    originals = [0.5 * torch.ones_like(x) for x in originals]
    SignAdam(deltas, originals, EPS, 0.25, "cosine", 9).step(rises[0], 0)
    for delta, rise in zip(deltas, rises[0], strict=True):
        torch.testing.assert_close(delta, 0.25 * EPS * rise.sign())

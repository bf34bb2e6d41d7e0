"""Bounds and rounding as properties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.crafting.perturbation import (
    check_eps,
    eps_steps,
    initial,
    project,
    round_straight_through,
    step_size,
    to_steps,
)

PIXELS = hnp.arrays(np.uint8, (2, 3, 4, 4))
DELTAS = hnp.arrays(np.float32, (2, 3, 4, 4), elements=st.floats(-2, 2, width=32))


@settings(max_examples=60, deadline=None)
@given(PIXELS, DELTAS, st.integers(1, 254))
def test_projection(pixels: np.ndarray, delta: np.ndarray, steps: int) -> None:
    images, eps = torch.from_numpy(pixels).float() / 255, steps / 255
    once = project(torch.from_numpy(delta), images, eps)
    assert once.abs().max() <= eps + 1e-7
    assert (images + once).min() >= -1e-7
    assert (images + once).max() <= 1 + 1e-7
    assert torch.equal(project(once, images, eps), once)
    free, moved = torch.from_numpy(delta), images + torch.from_numpy(delta)
    inside = (free.abs() <= eps) & (moved >= 0) & (moved <= 1)
    torch.testing.assert_close(once[inside], free[inside], rtol=0, atol=1e-7)  # 1 − x rounds


@settings(max_examples=60, deadline=None)
@given(PIXELS, DELTAS, st.integers(1, 254))
def test_stored_steps_keep_bound_and_range(pixels: np.ndarray, delta: np.ndarray, steps: int) -> None:
    stored = to_steps(torch.from_numpy(delta), torch.from_numpy(pixels), steps / 255)
    assert stored.dtype == torch.int16
    assert stored.abs().max() <= steps
    signed = torch.from_numpy(pixels).to(torch.int16) + stored
    assert 0 <= signed.min() <= signed.max() <= 255
    projected = project(torch.from_numpy(delta), torch.from_numpy(pixels).float() / 255, steps / 255)
    assert (stored - projected * 255).abs().max() <= 0.5 + 1e-3


def test_straight_through_rounds_forward_and_passes_back() -> None:
    delta = torch.tensor([0.6 / 255, 1.4 / 255], requires_grad=True)
    rounded = round_straight_through(delta)
    torch.testing.assert_close(rounded.detach() * 255, torch.tensor([1.0, 1.0]))
    rounded.sum().backward()
    assert torch.equal(delta.grad, torch.ones(2))


@pytest.mark.parametrize("init", ["zero", "uniform", "normal"])
def test_initial_lies_within_bounds(init: str) -> None:
    images = torch.rand(4, 3, 5, 5)
    start = initial(images, 0.1, init, torch.rand(4, 3, 5, 5))
    assert torch.equal(project(start, images, 0.1), start)
    assert (start == 0).all() == (init == "zero")


def test_schedules() -> None:
    assert [round(step_size(s, 250, 1.0, "step"), 4) for s in (0, 39, 40, 93, 156, 218)] == [1.0, 1.0, 0.3, 0.09, 0.027, 0.0081]
    assert step_size(0, 60, 0.5, "cosine") == 0.5
    assert step_size(30, 60, 0.5, "cosine") == pytest.approx(0.25)
    assert step_size(59, 60, 0.5, "constant") == 0.5


def test_eps_in_steps() -> None:
    assert [eps_steps(n / 255) for n in range(1, 255)] == list(range(1, 255))


@pytest.mark.parametrize("eps", [0, -0.1, 1, 1.5, float("nan"), 0.001])
def test_eps_out_of_range_has_a_sentence(eps: float) -> None:
    with pytest.raises(TaggantError, match=f"eps={eps} (must lie strictly between 0 and 1|is below one 8-bit step)"):
        check_eps(eps)

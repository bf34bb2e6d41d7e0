"""A module in memory: its answers must be its own, and asking leaves no trace in it."""

import pytest
import torch
from torch import nn

from taggant_lightning.access.module import check_own_answers
from taggant_lightning.errors import TaggantError

IMAGES = torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class AlwaysDrops(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x.flatten(1), 0.5, training=True)


def test_answers_that_are_the_modules_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 5)).train()
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    assert check_own_answers(model, IMAGES) == {"asked_twice": 5, "in_other_company": 5}
    assert check_own_answers(model, IMAGES[:1]) == {"asked_twice": 1, "in_other_company": 0}
    assert check_own_answers(nn.Flatten(), IMAGES * float("nan"))["asked_twice"] == 5
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (AlwaysDrops(), "when asked again"),
        (nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten()), "when others share the pass"),
    ],
)
def test_answers_that_are_not(model: nn.Module, cause: str) -> None:
    with pytest.raises(TaggantError, match=f"answers the same images otherwise {cause}, though it is in evaluation mode"):
        check_own_answers(model, IMAGES)

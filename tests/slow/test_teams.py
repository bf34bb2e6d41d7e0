"""Several processes craft one key: what comes out is what one process makes, from the beginning and from a point on."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from taggant_lightning.methods.taggants.crafting.crafting import Crafted
from taggant_lightning.methods.taggants.crafting.state import CraftingCheckpointer
from tests.slow.team import CASES, Eager, craft

pytestmark = pytest.mark.slow


def equal_pixels(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    same = [(x == y).flatten() for x, y in zip(a, b, strict=True)]
    return float(torch.cat(same).float().mean())


@pytest.mark.parametrize("size", [2, 3])
def test_a_team_makes_what_one_process_makes(size: int, tmp_path: Path) -> None:
    wholes: dict[str, Crafted] = {}
    for case in CASES:
        wholes[case], _ = craft(case)
        craft(case, keeper=Eager(tmp_path / f"{case}.lone", 3))
    subprocess.run([sys.executable, "-m", "tests.slow.team", str(tmp_path), str(size)], check=True, timeout=300)
    members: list[dict[str, Any]] = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(size)]
    for case, whole in wholes.items():
        total = 12  # steps, of all restarts
        for found in members:
            (cosine, steps, taken), (resumed_cosine, resumed_steps, left) = found[case]
            assert equal_pixels(steps, whole.steps) == 1.0
            assert cosine == pytest.approx(whole.cosine, abs=1e-9)
            assert equal_pixels(resumed_steps, whole.steps) == 1.0
            assert resumed_cosine == pytest.approx(whole.cosine, abs=1e-9)
            assert (taken, left) == (total, total - 3)
        # And one process goes on from a team's point.
        alone, left = craft(case, keeper=CraftingCheckpointer(tmp_path / f"{case}.point", "digest"))
        assert equal_pixels(alone.steps, whole.steps) == 1.0
        assert left == total - 4

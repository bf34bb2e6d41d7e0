"""Crafting state: from any point that was kept, crafting ends as if it had never stopped; files are secret and small."""

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from taggant_lightning.methods.taggants.crafting import state as crafting_state
from taggant_lightning.methods.taggants.crafting.crafting import Crafted, CraftingCheckpoint, craft_key
from taggant_lightning.methods.taggants.crafting.state import CraftingCheckpointer, CraftingState
from tests.methods.taggants.crafting.test_crafting import CPU, KEY, SETTINGS, images, surrogate

RAGGED = [(3, 6, 6), (3, 8, 6), (3, 6, 6), (3, 6, 6)]


class Stop(Exception):
    """Ends crafting."""


class Stopping(CraftingCheckpointer):
    """Keeps every point, and stops after some."""

    def __init__(self, path: Path, after: int) -> None:
        super().__init__(path, "digest")
        self.left = after

    def due(self) -> bool:
        return True

    def keep(self, point: CraftingCheckpoint) -> None:
        super().keep(point)
        self.left -= 1
        if self.left == 0:
            raise Stop


def craft(settings: Any, keeper: Any = None, **extra: Any) -> Crafted:
    surrogates = [surrogate(0), surrogate(1)]
    return craft_key(images(RAGGED), KEY, surrogates, settings, key=2, device=CPU, checkpointer=keeper, **extra)


def same(a: Crafted, b: Crafted) -> bool:
    pairs = zip([*a.deltas, *a.steps], [*b.deltas, *b.steps], strict=True)
    return a.cosine == b.cosine and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("optimizer", ["momentum", "sign_adam"])
@pytest.mark.parametrize(
    "changes", [{}, {"restarts": 3, "steps": 4}, {"derivative": "auto", "augment": "simple", "ensemble": "alternate"}]
)
def test_crafting_goes_on_from_every_point(tmp_path: Path, optimizer: Any, changes: dict[str, Any]) -> None:
    settings = replace(SETTINGS, optimizer=optimizer, **changes)
    whole, seen = craft(settings), []
    for after in range(1, settings.steps * settings.restarts + 1):
        path = tmp_path / f"{after}" / "point"
        with pytest.raises(Stop):
            craft(settings, Stopping(path, after))
        seen.clear()
        resumed = craft(settings, CraftingCheckpointer(path, "digest"), on_step=lambda cosine, deltas: seen.append(cosine))
        assert same(whole, resumed)
        assert len(seen) == settings.steps * settings.restarts - after


def test_a_point_of_another_run_is_not_taken_up(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        craft(SETTINGS, Stopping(tmp_path / "s" / "point", 3))
    assert CraftingCheckpointer(tmp_path / "s" / "point", "digest").load().step == 3
    assert CraftingCheckpointer(tmp_path / "s" / "point", "other").load() is None
    (tmp_path / "s" / "point").write_bytes(b"half")
    assert CraftingCheckpointer(tmp_path / "s" / "point", "digest").load() is None


def test_points_are_kept_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeping may take a twentieth of the time, and nothing is kept in the first second."""
    clock, kept = [0.0], []
    monkeypatch.setattr(crafting_state.time, "monotonic", lambda: clock[0])
    keeper = CraftingCheckpointer(tmp_path / "point", "digest")

    def write(*_: object) -> None:
        kept.append(clock[0])
        clock[0] += 0.5  # a slow disk

    monkeypatch.setattr(crafting_state, "write_secret", write)
    while clock[0] < 30:
        if keeper.due():
            keeper.keep(CraftingCheckpoint(0, 0, [torch.zeros(1)], [], [], None))
        clock[0] += 0.125
    assert kept == [1.0, 11.5, 22.0]


@pytest.mark.parametrize(("largest", "dtype"), [(127, torch.int8), (128, torch.int16)])
def test_finished_keys_are_small_and_secret(tmp_path: Path, largest: int, dtype: torch.dtype) -> None:
    """One byte a pixel value where the bound allows it; perturbations before rounding only for a later round."""
    from safetensors import safe_open

    shape = (2, 3, 50, 50)
    crafted = Crafted([torch.rand(shape)], [torch.full(shape, -largest, dtype=torch.int16)], 0.5)
    state, sizes = CraftingState(tmp_path / "state"), {}
    for carry in (False, True):
        state.save(0, 3, "digest", crafted, carry=carry)
        path = tmp_path / "state" / "round-00" / "key-0003.safetensors"
        sizes[carry] = path.stat().st_size
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with safe_open(path, framework="pt") as file:
            assert file.get_tensor("steps-0").dtype == dtype
        found = state.load(0, 3, "digest")
        assert found.deltas == [] if not carry else torch.equal(found.deltas[0], crafted.deltas[0])
        assert torch.equal(found.steps[0], crafted.steps[0])
        assert found.steps[0].dtype == torch.int16
    values = 2 * 3 * 50 * 50
    assert sizes[False] < values * (1 if dtype == torch.int8 else 2) + 500
    assert sizes[True] - sizes[False] < values * 4 + 200
    keeper = state.checkpointer(0, 3, "digest")
    keeper.keep(CraftingCheckpoint(0, 1, [torch.rand(shape)], [torch.rand(shape)], [True], None))
    assert keeper.path.stat().st_size < values * 8 + 500
    state.save(0, 3, "digest", crafted, carry=False)
    assert not keeper.path.exists()

"""Crafts one key in a team of processes; `python -m tests.slow.team FOLDER SIZE` starts one."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from taggant_lightning.methods.taggants.crafting.crafting import Crafted, craft_key
from taggant_lightning.methods.taggants.crafting.state import CraftingCheckpointer
from taggant_lightning.methods.taggants.crafting.team import Team
from tests.methods.taggants.crafting.test_crafting import CPU, KEY, SETTINGS, images, surrogate

RAGGED = [(3, 6, 6), (3, 8, 6), (3, 6, 6), (3, 7, 9), (3, 6, 6), (3, 6, 6), (3, 8, 6)]
CASES: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": "momentum", "lr": 1.0, "derivative": "auto", "augment": "simple", "ensemble": "alternate"},
    "sign_adam": {"restarts": 2, "steps": 6, "micro_batch": 2},
}


class Eager(CraftingCheckpointer):
    """Keeps a point after each of the first steps, and then none."""

    def __init__(self, path: Path, points: int) -> None:
        super().__init__(path, "digest")
        self.left = points

    def due(self) -> bool:
        self.left -= 1
        return self.left >= 0


def craft(case: str, team: Team | None = None, keeper: CraftingCheckpointer | None = None) -> tuple[Crafted, int]:
    """Craft, and return the result with the number of steps that were taken."""
    seen: list[float] = []
    settings = replace(SETTINGS, **CASES[case])
    surrogates = [surrogate(0), surrogate(1)]
    for s in surrogates:
        s.model.double()  # so that the order of additions does not hide mistakes
    key = KEY.double()
    crafted = craft_key(
        images(RAGGED), key, surrogates, settings, key=2, device=CPU, checkpointer=keeper, team=team,
        on_step=lambda cosine, deltas: seen.append(cosine),
    )  # fmt: skip
    return crafted, len(seen)


def member(rank: int, folder: str, size: int) -> None:
    """Be one process of the team."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    team = Team(range(size), rank, dist.group.WORLD)
    found = {}
    for case in CASES:
        keeper = Eager(Path(folder) / f"{case}.point", 4) if rank == 0 else None
        crafted, steps = craft(case, team, keeper)
        # Take up the point of a lone process, left by the test.
        lone = Path(folder) / f"{case}.lone"
        resumed, left = craft(case, team, CraftingCheckpointer(lone, "digest") if rank == 0 else None)
        found[case] = [(c.cosine, c.steps, n) for c, n in ((crafted, steps), (resumed, left))]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    mp.spawn(member, args=(sys.argv[1], int(sys.argv[2])), nprocs=int(sys.argv[2]))

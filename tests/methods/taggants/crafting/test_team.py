"""Sharing work out over processes: every key and every image has its place, and nobody idles without need."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from taggant_lightning.methods.taggants.crafting import team as ranks
from taggant_lightning.methods.taggants.crafting.team import Team, share_out
from tests.methods.taggants.crafting.test_crafting import images


@pytest.mark.parametrize("keys", range(1, 14))
@pytest.mark.parametrize("processes", [1, 2, 3, 8, 64])
def test_every_key_has_its_processes(keys: int, processes: int) -> None:
    shares = share_out([100] * keys, processes)
    assert len(shares) == keys
    assert all(len(some) >= 1 and 0 <= some.start < some.stop <= processes for some in shares)
    whole = keys - keys % processes
    # While there are enough keys, each process has one at a time; each of the rest is shared, and nobody idles.
    assert [list(some) for some in shares[:whole]] == [[key % processes] for key in range(whole)]
    shared = [rank for some in shares[whole:] for rank in some]
    assert shared == (list(range(processes)) if keys % processes else [])


def test_no_more_processes_than_images() -> None:
    assert share_out([3], 8) == [range(3)]
    assert share_out([100, 2], 8) == [range(4), range(4, 6)]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_of_images_are_a_partition(size: int) -> None:
    whole = images([(3, 6, 6), (3, 8, 6), (3, 6, 6), (3, 7, 9), (3, 6, 6), (3, 6, 6)])
    shares = [whole.share(place, size) for place in range(size)]
    assert [i for share, _ in shares for i in share.ids] == whole.ids
    for group, pixels in enumerate(whole.pixels):
        assert torch.equal(torch.cat([share.pixels[group] for share, _ in shares]), pixels)
        assert torch.equal(torch.cat([pixels[rows[group]] for _, rows in shares]), pixels)
    counts = [len(share.ids) for share, _ in shares]
    assert max(counts) - min(counts) <= 1
    for share, _ in shares:
        assert sum(len(range(*places.indices(99))) for _, _, places in share.parts(2)) == len(share.ids)


def test_a_team_of_one_sends_nothing() -> None:
    team, tensor = Team(), torch.ones(3)
    team.add_up([tensor])
    assert torch.equal(tensor, torch.ones(3))
    assert (team.from_leader(5), team.collect(5), team.leads, team.size) == (5, [5], True, 1)


@pytest.mark.parametrize("block", [1, 3, 4, 64])
@pytest.mark.parametrize("count", [0, 1, 11, 12])
def test_scores_keep_their_order_and_their_batches(count: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(0).permutation(50)[:count]
    whole = {tuple(ids[start : start + block]) for start in range(0, count, block)}

    def together(size: int) -> list[list[float]]:
        """Return what every one of some processes gets, and hold their batches to those of one process."""
        batches: set[tuple[int, ...]] = set()
        parts: dict[int, np.ndarray] = {}

        def score(some: np.ndarray) -> np.ndarray:
            batches.update(tuple(some[start : start + block]) for start in range(0, len(some), block))
            return some / 7

        def gather(own: dict[int, np.ndarray], trainer: object) -> dict[int, np.ndarray]:
            parts.update(own)
            return parts

        monkeypatch.setattr(ranks, "gather", gather)
        trainers = [SimpleNamespace(global_rank=rank, world_size=size) for rank in range(size)]
        for trainer in trainers:  # the first time for their shares
            ranks.score_together(score, ids, trainer, block)
        assert batches == whole
        return [ranks.score_together(score, ids, trainer, block).tolist() for trainer in trainers]

    for size in (1, 2, 3, 5):
        assert together(size) == [(ids / 7).tolist()] * size

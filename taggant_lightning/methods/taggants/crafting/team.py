"""Processes that craft one key together, and images scored by all of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from taggant_lightning.methods.ranks import gather
from taggant_lightning.methods.taggants.crafting.selection import Score

T = TypeVar("T")


class Team:
    """Processes that craft one key together, each a share of its images. All of them make the same calls in the same order.

    Args:
        ranks: Their ranks, ascending; the first one leads.
        rank: That of this process.
        group: Their process group; None where the team is one process, which sends nothing.
    """

    def __init__(self, ranks: Sequence[int] = (0,), rank: int = 0, group: Any = None) -> None:
        self.ranks, self.rank, self.group = list(ranks), rank, group

    @property
    def size(self) -> int:
        """Number of processes."""
        return len(self.ranks)

    @property
    def place(self) -> int:
        """Number of this process in the team, from 0."""
        return self.ranks.index(self.rank)

    @property
    def leads(self) -> bool:
        """Whether this process is the first."""
        return self.place == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, in place, by their sums over the team; the same bits on each process."""
        if self.size == 1:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat, group=self.group)
        for tensor, whole in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(whole.view_as(tensor))

    def from_leader(self, value: T) -> T:
        """Return the leader's value."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=self.ranks[0], group=self.group)
        return box[0]

    def collect(self, item: T) -> list[T]:
        """Return every process's item, in the order of the team."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        dist.all_gather_object(items, item, group=self.group)
        return items


def share_out(sizes: Sequence[int], processes: int) -> list[range]:
    """Share keys out over processes.

    While there are as many keys left as processes, each takes one. The rest is shared: each of the last keys has several
    processes, so that none idles while others work, but never more than it has images.

    Args:
        sizes: Number of signing images of each key.
        processes: Number of processes.

    Returns:
        The ranks that craft each key.
    """
    whole = len(sizes) - len(sizes) % processes
    rest = len(sizes) - whole
    ranks = [range(key % processes, key % processes + 1) for key in range(whole)]
    for place in range(rest):
        first, stop = place * processes // rest, (place + 1) * processes // rest
        ranks.append(range(first, min(stop, first + sizes[whole + place])))
    return ranks


@contextmanager
def teams(ranks: Sequence[range], trainer: pl.Trainer) -> Iterator[dict[int, Team]]:
    """Return the teams of one round that this process belongs to, by key; ended when the round is.

    Args:
        ranks: The ranks that craft each key.
        trainer: The trainer; all its processes call this together.
    """
    own, groups = trainer.global_rank, {}
    for some in dict.fromkeys(r for r in ranks if len(r) > 1):  # every process takes part in making every group
        groups[some] = dist.new_group(list(some))
    try:
        yield {key: Team(some, own, groups.get(some)) for key, some in enumerate(ranks) if own in some}
    finally:
        for some, group in groups.items():
            if own in some:
                dist.destroy_process_group(group)


def score_together(score: Score, ids: NDArray[np.int64], trainer: pl.Trainer, block: int) -> NDArray[np.float64]:
    """Score items, each on one process, and return all scores on every process.

    Whole blocks are shared out in turn, so that a score that batches by `block` makes the same batches however many processes
    there are: in floating point an item's last bits depend on what else is in its batch.

    Args:
        score: Maps some of the items to one number each; of none on processes that no block is left for.
        ids: (N,) items, the same on every process.
        trainer: The trainer; all its processes call this together.
        block: Consecutive items that stay together.

    Returns:
        (N,) float64.
    """
    rank, size = trainer.global_rank, trainer.world_size
    ranks = np.arange(len(ids)) // block % size
    shares = gather({rank: score(ids[ranks == rank])}, trainer)
    scores = np.empty(len(ids))
    for place, share in shares.items():
        scores[ranks == place] = share
    return scores

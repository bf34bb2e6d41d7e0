"""The order of samples: a function of seed and epoch, so that a resumed run sees what an uninterrupted one would have seen."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from taggant_lightning.data.dataset import told
from taggant_lightning.streams import permutation


class SeededSampler(DistributedSampler[Any]):
    """Samples positions 0..N−1 in an order keyed by seed and epoch, split over the processes.

    It is a DistributedSampler so that Lightning leaves it in place and calls `set_epoch` on it.

    Args:
        length: N.
        seed: Seed of the order.
        shuffle: Whether to shuffle; otherwise positions come in order.
        position: Tells, when an iteration begins, the epoch and how many of this process's samples a run resumed within
            the epoch has consumed already; None relies on `set_epoch`.
        pad: Whether the last positions are filled up from the first, so that all processes do the same number of steps, as
            training needs. Without it, processes may differ by one sample and none comes twice, as evaluation needs.
    """

    def __init__(
        self, length: int, *, seed: int, shuffle: bool, pad: bool, position: Callable[[], tuple[int, int]] | None = None
    ) -> None:
        parallel = dist.is_available() and dist.is_initialized()
        replicas, rank = (dist.get_world_size(), dist.get_rank()) if parallel else (1, 0)
        super().__init__(range(length), num_replicas=replicas, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]  # only its length is used
        self._length, self._pad, self._position = length, pad, position

    def positions(self, device: torch.device | str = "cpu") -> Tensor:
        """Return what is left of this process's positions in the current epoch, (n,) int64, made on a device."""
        consumed = 0
        if self._position is not None:
            self.epoch, consumed = self._position()
        if self.shuffle:
            order = permutation(self.seed, "sampler", self._length, self.epoch, device=device)
        else:
            order = torch.arange(self._length, device=device)
        if self._pad and (missing := -self._length % self.num_replicas):
            order = torch.cat([order, order.repeat(missing // self._length + 1)[:missing]])
        return order[self.rank :: self.num_replicas][consumed:]

    def __iter__(self) -> Iterator[int]:
        """Yield this process's positions of the current epoch."""
        return iter(self.positions().tolist())

    def __len__(self) -> int:
        """Number of this process's positions."""
        total = self._length + (-self._length % self.num_replicas if self._pad else 0)
        return len(range(self.rank, total, self.num_replicas))


class LazyDataLoader(DataLoader[Any]):
    """A DataLoader that asks its sampler for nothing before its first batch is wanted.

    Lightning makes a resumed run's iterator before it restores the epoch, where a model asks for the number of steps; workers
    would fetch batches of epoch 0 at once.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # Lightning and torch ask for no more than an iterator
        """Yield batches; the order is drawn when the first one is asked for, and what a process cannot read is raised here."""
        yield from told(super().__iter__())

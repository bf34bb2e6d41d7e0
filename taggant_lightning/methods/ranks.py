"""What the processes of one run share, whatever the method, so that the number of them does not matter."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch.distributed as dist
from torch import nn

T = TypeVar("T")


@contextmanager
def buffers_of_rank_zero(module: nn.Module, trainer: pl.Trainer) -> Iterator[None]:
    """Give every process the first one's buffers for a while: batch norm's running statistics differ between them."""
    if trainer.world_size == 1:
        yield
        return
    own = {name: buffer.clone() for name, buffer in module.named_buffers()}
    shared = trainer.strategy.broadcast({name: buffer.cpu() for name, buffer in own.items()})
    try:
        for name, buffer in module.named_buffers():
            buffer.copy_(shared[name])
        yield
    finally:
        for name, buffer in module.named_buffers():
            buffer.copy_(own[name])


def gather(own: dict[int, T], trainer: pl.Trainer) -> dict[int, T]:
    """Return every process's items, keyed by different numbers, on every process.

    Raises:
        ValueError: If two processes hold the same number.
    """
    if trainer.world_size == 1:
        return own
    parts: list[Any] = [None] * trainer.world_size
    dist.all_gather_object(parts, own)
    everything = {key: value for part in parts for key, value in part.items()}
    if len(everything) < sum(map(len, parts)):
        raise ValueError("two processes hold results of the same key; nothing may be counted twice")
    return everything

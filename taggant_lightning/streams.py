"""Random numbers keyed by what they are for, never by the process or the batch that asks for them.

A stream is a counter-based generator (Philox) whose position is a function of a seed, a purpose and up to three counters,
for instance (key, step, image). So one process or many, an interrupted run or not, draw the same numbers.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

_WORD = 2**64


def stream(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """Return the generator of one purpose at one position.

    Args:
        seed: Any integer; taken modulo 2^64.
        purpose: What the numbers are for; two purposes never share numbers.
        counters: At most three integers, for instance (key, step, image).

    Raises:
        ValueError: If more than three counters are given.
    """
    if len(counters) > 3:
        raise ValueError(f"counters={counters} has {len(counters)} entries; a stream has at most three")
    word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    padded = [0, *(c % _WORD for c in counters), *([0] * (3 - len(counters)))]
    key = np.array([seed % _WORD, word], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array(padded, dtype=np.uint64)))


def uniforms(seed: int, purpose: str, ids: Iterable[int], count: int, *counters: int) -> Tensor:
    """Draw `count` uniform numbers for each id.

    Args:
        seed: Any integer.
        purpose: What the numbers are for.
        ids: One integer an item, for instance dataset positions; an item's numbers do not depend on its neighbours.
        count: Numbers an item.
        counters: At most two further counters, for instance the epoch.

    Returns:
        (N, count) float32 in [0, 1).
    """
    rows = [stream(seed, purpose, int(i), *counters).random(count, dtype=np.float32) for i in ids]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, count)


def lattice(starts: Tensor, position: int) -> Tensor:
    """Move numbers on so that they spread evenly over successive positions.

    Each row moves by the powers of the inverse of the generalised golden ratio (an additive recurrence, M. Roberts 2018).
    From starts that are uniform and independent, the numbers at each position are so too; their average over positions settles
    sooner than that of independent draws.

    Args:
        starts: (N, d) float in [0, 1), for instance of `uniforms`.
        position: Not negative, for instance the step; at 0 the starts themselves come back.

    Returns:
        (N, d) float32 in [0, 1).
    """
    count, ratio = starts.shape[1], 2.0
    for _ in range(64):  # the positive root of x^(d + 1) = x + 1, a fixed point that is reached to the last bit
        ratio = (1 + ratio) ** (1 / (count + 1))
    moves = position * np.power(ratio, -np.arange(1.0, count + 1))
    points = (starts.double() + torch.from_numpy(moves)) % 1
    return points.float().clamp(max=1 - 2**-24)  # a double just below 1 would round up to it

"""Random numbers keyed by what they are for, never by the process or the batch that asks for them.

Two counter-based generators of the Philox family (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), whose
position is a function of a seed, a purpose and counters such as (key, step, image). So one process or many, an interrupted
run or not, a CPU or a GPU draw the same numbers:

- `stream` is numpy's generator, for numbers that are drawn on the host, one purpose at a time;
- `uniforms` and `permutation` are Philox4x32 in whole-number tensor operations, on the device where the numbers are wanted,
  for all images of an epoch at once.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

_WORD, _HALF = 2**64, 2**32
_AT_ONCE = 2**18  # ids
_MASK = _HALF - 1
# Of Philox4x32: its multipliers, the increments of its key, its rounds.
_MULTIPLIERS, _INCREMENTS, _ROUNDS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 10


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


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Apply Philox4x32-10.

    Args:
        counter: Four tensors of one shape, int64 in [0, 2^32).
        key: Two numbers in [0, 2^32).

    Returns:
        Four tensors of that shape, int64 in [0, 2^32), on the counter's device.
    """
    a, b, c, d = counter
    first, second = key
    for _ in range(_ROUNDS):
        # A product of two 32-bit words may wrap around int64; its bits are those of the unsigned product all the same.
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (right >> 32 & _MASK) ^ b ^ first, right & _MASK, (left >> 32 & _MASK) ^ d ^ second, left & _MASK
        first, second = (first + _INCREMENTS[0]) & _MASK, (second + _INCREMENTS[1]) & _MASK
    return a, b, c, d


def _words(seed: int, purpose: str, ids: Tensor, blocks: int, counters: tuple[int, ...]) -> Tensor:
    """Return (N, 4·blocks) int64 words in [0, 2^32)."""
    if len(counters) > 2:
        raise ValueError(f"counters={counters} has {len(counters)} entries; beside the ids there are at most two")
    digest = hashlib.sha256((seed % _WORD).to_bytes(8, "little") + purpose.encode()).digest()
    key = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
    block = torch.arange(blocks, device=ids.device).expand(len(ids), blocks)
    rest = [torch.full_like(block, value % _HALF) for value in (*counters, 0, 0)[:2]]
    return torch.stack(philox((block, ids[:, None].expand_as(block), rest[0], rest[1]), key), dim=2).flatten(1)


def uniforms(seed: int, purpose: str, ids: Tensor, count: int, *counters: int) -> Tensor:
    """Draw `count` uniform numbers for each id, on the device of the ids, the same ones on every device.

    Args:
        seed: Any integer; taken modulo 2^64.
        purpose: What the numbers are for; two purposes never share numbers.
        ids: (N,) int64 in [0, 2^32), for instance dataset positions; an item's numbers do not depend on its neighbours.
        count: Numbers an item.
        counters: At most two further counters, for instance the epoch; taken modulo 2^32.

    Returns:
        (N, count) float32 in [0, 1), multiples of 2^−24.

    Raises:
        ValueError: If more than two counters are given.
    """
    blocks = [  # of ids, so that the work beside the result stays small for a dataset of any size
        (_words(seed, purpose, some, -(-count // 4), counters)[:, :count] >> 8).float() for some in torch.split(ids, _AT_ONCE)
    ]
    return torch.cat(blocks) * 2.0**-24


def permutation(seed: int, purpose: str, length: int, *counters: int, device: torch.device | str = "cpu") -> Tensor:
    """Draw an order of 0..length−1, the same one on every device: that of 63 random bits an item.

    Args:
        seed: Any integer; taken modulo 2^64.
        purpose: What the order is for.
        length: N.
        counters: At most two counters, for instance the epoch; taken modulo 2^32.
        device: Where to draw it.

    Returns:
        (N,) int64.

    Raises:
        ValueError: If more than two counters are given.
    """
    words = _words(seed, purpose, torch.arange(length, device=device), 1, counters)
    return torch.argsort((words[:, 0] << 31) ^ words[:, 1], stable=True)


def lattice(starts: Tensor, position: int | Tensor) -> Tensor:
    """Move numbers on so that they spread evenly over successive positions.

    Each row moves by the powers of the inverse of the generalised golden ratio (an additive recurrence, M. Roberts 2018).
    From starts that are uniform and independent, the numbers at each position are so too; their average over positions settles
    sooner than that of independent draws.

    Args:
        starts: (N, d) float in [0, 1), for instance of `uniforms`.
        position: Not negative, for instance the step; at 0 the starts themselves come back. A scalar tensor on the device of
            the starts keeps the host out of it.

    Returns:
        (N, d) float32 in [0, 1).
    """
    moves = powers(starts.shape[1]).to(starts.device, non_blocking=True) * position
    points = (starts.double() + moves) % 1
    return points.float().clamp(max=1 - 2**-24)  # a double just below 1 would round up to it


def powers(count: int) -> Tensor:
    """Return the moves of `lattice` from one position to the next, (count,) float64."""
    ratio = 2.0
    for _ in range(64):  # the positive root of x^(d + 1) = x + 1, a fixed point that is reached to the last bit
        ratio = (1 + ratio) ** (1 / (count + 1))
    return torch.from_numpy(np.power(ratio, -np.arange(1.0, count + 1)))

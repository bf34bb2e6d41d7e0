"""Keyed randomness in tensors: Philox against its published vectors and a slow twin, orders, uniformity, independence."""

import hashlib

import pytest
import torch

from taggant_lightning.streams import permutation, philox, uniforms

# Known answers of Philox4x32-10 that its authors publish with Random123: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def slow(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Philox4x32-10 in Python's whole numbers, which do not overflow."""
    a, b, c, d = counter
    for step in range(10):
        left, right = a * 0xD2511F53, c * 0xCD9E8D57
        first, second = (key[0] + step * 0x9E3779B9) % 2**32, (key[1] + step * 0xBB67AE85) % 2**32
        a, b, c, d = (right >> 32) ^ b ^ first, right % 2**32, (left >> 32) ^ d ^ second, left % 2**32
    return a, b, c, d


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    found = philox(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(int(word) for word in found) == slow(counter, key) == expected


def test_uniforms_against_the_slow_twin() -> None:
    seed, purpose, epoch, rank = -7, "a purpose", 2**31 + 5, 3
    digest = hashlib.sha256((seed % 2**64).to_bytes(8, "little") + purpose.encode()).digest()
    key = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
    ids = [0, 1, 70_000, 2**32 - 1]
    found = uniforms(seed, purpose, torch.tensor(ids), 6, epoch, rank)
    for row, number in zip(found, ids, strict=True):
        words = [word for block in (0, 1) for word in slow((block, number, epoch, rank), key)]
        assert row.tolist() == [(word >> 8) / 2**24 for word in words[:6]]


def test_permutation_is_one_and_depends_on_all_that_keys_it() -> None:
    order = permutation(1, "a", 1000, 3)
    assert sorted(order.tolist()) == list(range(1000))
    assert torch.equal(order, permutation(1, "a", 1000, 3))
    for other in (permutation(2, "a", 1000, 3), permutation(1, "b", 1000, 3), permutation(1, "a", 1000, 4)):
        assert (other == order).sum() < 10
    # First and last places of many orders are uniform: each tenth of the images holds about a tenth of them.
    ends = torch.stack([permutation(0, "a", 1000, epoch)[[0, -1]] for epoch in range(2000)])
    counts = torch.histc(ends.float(), 10, 0, 1000)
    assert (counts - 400).abs().max() < 4 * 400**0.5


def test_uniforms_are_uniform_and_uncorrelated() -> None:
    numbers = uniforms(1, "a", torch.arange(20_000), 8, 1).double()
    assert 0 <= numbers.min() <= numbers.max() < 1
    counts = torch.histc(numbers[:, 5].float(), 20, 0, 1)
    assert (counts - 1000).abs().max() < 4.5 * 1000**0.5
    correlation = torch.corrcoef(torch.cat([numbers, uniforms(1, "a", torch.arange(20_000), 8, 2).double()], 1).T)
    assert (correlation - torch.eye(16)).abs().max() < 4.5 / 20_000**0.5


def test_counters_have_a_limit() -> None:
    with pytest.raises(ValueError, match="at most two"):
        uniforms(0, "a", torch.arange(3), 2, 1, 2, 3)
    with pytest.raises(ValueError, match="at most two"):
        permutation(0, "a", 3, 1, 2, 3)

"""From a secret to key images, labels and salts, by SHAKE-256; specified in docs/commitment.md."""

import hashlib

import numpy as np
from numpy.typing import NDArray

DOMAIN = b"taggant-lightning/derivation/v1"


def absorb(*fields: bytes) -> bytes:
    """Join fields so that no two different lists give the same bytes: each field after its length (8 bytes, big-endian)."""
    return b"".join(len(f).to_bytes(8, "big") + f for f in fields)


def expand(secret: bytes, purpose: str, context: bytes, index: int, length: int) -> bytes:
    """Return `length` bytes of the SHAKE-256 stream of one purpose and index.

    Args:
        secret: At least 16 bytes.
        purpose: `grid`, `label`, `salt` or `choice`.
        context: The canonical JSON of the parameters that the stream is bound to.
        index: The key's position, from 0.
        length: Number of bytes; a longer request has the shorter one as its beginning.
    """
    message = absorb(DOMAIN, purpose.encode(), context, secret, index.to_bytes(8, "big"))
    return hashlib.shake_256(message).digest(length)


def uniform_below(bound: int, secret: bytes, purpose: str, context: bytes, index: int) -> int:
    """Return an integer uniform on 0..bound−1.

    Words of 64 bits are rejected from the largest multiple of `bound` upwards, so that no residue is favoured.
    """
    limit = 2**64 - 2**64 % bound
    words = 8
    while True:
        data = expand(secret, purpose, context, index, 8 * words)
        for start in range(0, 8 * words, 8):
            word = int.from_bytes(data[start : start + 8], "big")
            if word < limit:
                return word % bound
        words *= 2  # All words rejected: less than once in 2^8 tries even for the worst bound, so ask for more.


def grid_image(shape: tuple[int, int, int], grid: int, secret: bytes, context: bytes, index: int) -> NDArray[np.uint8]:
    """Return a noise key: uniform bytes on a grid, enlarged by nearest neighbour.

    Args:
        shape: (C, H, W) of the result.
        grid: G; the noise has C×G×G values. A grid of H = W gives every pixel its own value.
        secret: The secret.
        context: Canonical JSON of the parameters.
        index: The key's position.

    Returns:
        (C, H, W) uint8; the pixel (y, x) takes the grid value (⌊y·G/H⌋, ⌊x·G/W⌋).
    """
    channels, height, width = shape
    noise = np.frombuffer(expand(secret, "grid", context, index, channels * grid * grid), dtype=np.uint8)
    rows, columns = np.arange(height) * grid // height, np.arange(width) * grid // width
    return noise.reshape(channels, grid, grid)[:, rows[:, None], columns[None, :]].copy()

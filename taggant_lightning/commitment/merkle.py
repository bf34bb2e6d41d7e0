"""The commitment: a hash that binds a KeySet before the release is published; specified in docs/commitment.md.

One salted SHA-256 leaf a key, a Merkle root over the leaves, and a header. A single key can later be revealed with its salt
and its path, and the others stay secret.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.commitment.derivation import absorb
from taggant_lightning.files import canonical_json

LEAF = b"taggant-lightning/commitment/v1/leaf"
NODE = b"taggant-lightning/commitment/v1/node"
ROOT = b"taggant-lightning/commitment/v1/root"


def leaf(position: int, image: NDArray[np.uint8], label: int, salt: bytes) -> bytes:
    """Return the leaf of one key.

    Args:
        position: The key's place in the KeySet, from 0.
        image: (C, H, W) uint8.
        label: The key's label, from 0.
        salt: 32 bytes.

    Returns:
        32 bytes.
    """
    shape = b"".join(side.to_bytes(8, "big") for side in image.shape)
    fields = absorb(LEAF, salt, position.to_bytes(8, "big"), label.to_bytes(8, "big"), shape, image.tobytes(order="C"))
    return hashlib.sha256(fields).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root of a binary tree over the leaves, in order; a node without a sibling moves up unchanged."""
    level = list(leaves)
    while len(level) > 1:
        pairs = [_join(a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def merkle_path(leaves: Sequence[bytes], position: int) -> list[tuple[str, bytes]]:
    """Return what a leaf must be joined with, level by level, to reach the root.

    Args:
        leaves: All leaves, in order.
        position: The leaf's place, from 0.

    Returns:
        Pairs of `left` or `right` (the side of the neighbour) and the neighbour; a level without a neighbour adds none.
    """
    path: list[tuple[str, bytes]] = []
    level = list(leaves)
    while len(level) > 1:
        neighbour = position ^ 1
        if neighbour < len(level):
            path.append(("left" if neighbour < position else "right", level[neighbour]))
        pairs = [_join(a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
        position //= 2
    return path


def root_from_path(start: bytes, path: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the root that a leaf and its path lead to."""
    node = start
    for side, neighbour in path:
        node = _join(neighbour, node) if side == "left" else _join(node, neighbour)
    return node


def spelled_place(sides: Sequence[str], count: int) -> int:
    """Return the leaf's place that the sides of a path spell, in a tree over `count` leaves; −1 where none fits.

    Args:
        sides: `left` or `right` from the leaf upwards, as `merkle_path` gives them.
        count: Number of leaves, from 1.
    """
    widths = [count]
    while widths[-1] > 1:
        widths.append((widths[-1] + 1) // 2)
    left, place = list(sides), 0
    for width in reversed(widths[:-1]):  # from the root down: which of a node's children, where it has two
        if 2 * place + 1 == width:
            place = 2 * place
        elif not left or (side := left.pop()) not in ("left", "right"):
            return -1
        else:
            place = 2 * place + (side == "left")
    return -1 if left else place


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(absorb(NODE, left, right)).digest()


def commitment(header: dict[str, Any], leaves: Sequence[bytes]) -> str:
    """Return the commitment of a KeySet.

    Args:
        header: JSON object with the number of keys, classes, shape, test, batches, derivation and statement.
        leaves: One leaf a key, in order.

    Returns:
        64 hexadecimal digits.
    """
    return commitment_of_root(header, merkle_root(leaves))


def commitment_of_root(header: dict[str, Any], root: bytes) -> str:
    """Return the commitment of a header and a Merkle root, 64 hexadecimal digits."""
    return hashlib.sha256(absorb(ROOT, canonical_json(header), root)).hexdigest()

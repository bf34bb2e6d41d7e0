"""Commitment format v2: every batch's seed is fixed, with all others, in the header that every key is drawn from.

A reveal shows one batch's seed and its path to the root of all seeds. The root is part of the header, and the header of every
stream, so whoever exchanges one seed draws all keys of all batches anew: batches cannot be tried one by one. Specified in
docs/commitment.md.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from taggant_lightning.commitment.derivation import absorb, expand
from taggant_lightning.commitment.merkle import merkle_path, merkle_root, root_from_path, spelled_place

FORMAT = "taggant-lightning/keyset/v2"
LEAF = b"taggant-lightning/seed/v2"


def batch_seed(secret: bytes, batch: int) -> bytes:
    """Return the seed of one batch, 32 bytes; no other batch's follows from it."""
    return expand(secret, "seed", FORMAT.encode(), batch, 32)


def seed_leaf(seed: bytes, batch: int) -> bytes:
    """Return the leaf of a batch's seed in the tree of all seeds, 32 bytes."""
    return hashlib.sha256(absorb(LEAF, batch.to_bytes(8, "big"), seed)).digest()


def seed_leaves(secret: bytes, batches: int) -> list[bytes]:
    """Return the leaves of all seeds, in the order of the batches."""
    return [seed_leaf(batch_seed(secret, batch), batch) for batch in range(batches)]


def seeds_root(secret: bytes, batches: int) -> str:
    """Return the header's `seeds`: the root over the seeds of all batches, 64 hexadecimal digits."""
    return merkle_root(seed_leaves(secret, batches)).hex()


def seed_path(secret: bytes, batches: int, batch: int) -> list[tuple[str, bytes]]:
    """Return what a reveal needs to lead from a batch's seed to the root of all seeds."""
    return merkle_path(seed_leaves(secret, batches), batch)


def belongs(header: dict[str, Any], seed: bytes, batch: int, path: Sequence[tuple[str, bytes]]) -> bool:
    """Return whether a seed is the one that a header fixes for a batch."""
    place = spelled_place([side for side, _ in path], len(header["batches"]))
    return place == batch and root_from_path(seed_leaf(seed, batch), path).hex() == header["seeds"]

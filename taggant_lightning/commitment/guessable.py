"""Secrets that anybody can guess: those of demonstrations, and those that were typed rather than drawn."""

import hashlib
import itertools
from collections.abc import Iterator
from functools import cache

from taggant_lightning.commitment.seeds import batch_seed

DEMO, DEMO_SEED = "taggant demo {}", "taggant keys --demo-seed {}"  # whose SHA-256 are the secrets of demonstrations
_NUMBERS = 2_000  # demonstrations are told from 0 to here; their headers say so as well
_LENGTHS = (16, 20, 24, 32, 48, 64)


def demo_secret(form: str, number: int) -> bytes:
    """Return the secret of a demonstration, 32 bytes."""
    return hashlib.sha256(form.format(number).encode()).digest()


def guessable(secret: bytes) -> bool:
    """Return whether a secret is a demonstration's, repeats a few bytes, counts, or is short text."""
    if len(secret) < 16:
        return True
    repeats = any(secret == (secret[:period] * len(secret))[: len(secret)] for period in range(1, 9))
    steps = {(b - a) % 256 for a, b in itertools.pairwise(secret)}
    # 16 drawn bytes are all printable once in 10^7, and have fewer than 8 different values practically never.
    typed = len(set(secret)) < 8 or all(32 <= byte < 127 for byte in secret)
    return repeats or len(steps) == 1 or typed or secret in _demonstrations()


def guessable_seed(seed: bytes, batch: int) -> bool:
    """Return whether a batch's seed, as a reveal of format v2 shows it, follows from such a secret."""
    return any(batch_seed(secret, batch) == seed for secret in _candidates())


@cache
def _demonstrations() -> frozenset[bytes]:
    return frozenset(demo_secret(form, number) for form in (DEMO, DEMO_SEED) for number in range(_NUMBERS))


def _candidates() -> Iterator[bytes]:
    yield from _demonstrations()
    for length in _LENGTHS:
        for value in range(256):
            yield bytes([value]) * length
            yield bytes((value + place) % 256 for place in range(length))
            yield value.to_bytes(length, "big")
            yield value.to_bytes(length, "little")

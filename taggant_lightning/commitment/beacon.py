"""A promise and a public beacon: keys that follow from what was promised earlier and from a value that nobody could know then.

Models trained on the originals agree on much of what they answer to noise. Whoever may try secrets before committing can so
find keys that such models answer by themselves. A beacon takes that away: the secret, and all else that keys depend on, is
promised first, and a later public random value completes the header. Specified in docs/commitment.md.
"""

import hashlib
from typing import Any

from taggant_lightning.commitment.derivation import absorb, expand
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json

SEED = b"taggant-lightning/promise/v1/seed"
PROMISE = b"taggant-lightning/promise/v1"


def batch_seed(secret: bytes, batch: int) -> bytes:
    """Return what format v1 promises for one batch, 32 bytes; it follows from the secret alone."""
    return expand(secret, "seed", b"", batch, 32)


def seed_digest(seed: bytes, batch: int) -> str:
    """Return the digest of a batch's seed, 64 hexadecimal digits; it stands in the header of format v1."""
    return hashlib.sha256(absorb(SEED, batch.to_bytes(8, "big"), seed)).hexdigest()


def normal(value: str) -> str:
    """Return the one spelling of a public value: no spaces, lower case; empty where it has other than letters and digits."""
    joined = "".join(value.split()).lower()
    return joined if joined.isascii() and joined.isalnum() else ""


def describe_beacon(value: str, source: str) -> dict[str, Any]:
    """Return the header's `beacon`.

    Args:
        value: The public random value, letters and digits; spaces and case do not count, so nobody chooses among spellings.
        source: Which value it is and when it will be public, as it was promised.

    Raises:
        TaggantError: If the value has other characters, or value or source is empty.
    """
    if not normal(value):
        raise TaggantError(f"beacon={value!r} must be letters and digits, as the beacon has published them")
    if not source.strip():
        raise TaggantError("beacon-source is empty; write which public value it is and when it is published")
    return {"value": normal(value), "source": source}


def describe_seeds(secret: bytes, num_batches: int) -> list[str]:
    """Return the `seeds` of the beacon of a header of format v1: a digest for each batch."""
    return [seed_digest(batch_seed(secret, b), b) for b in range(num_batches)]


def promise_of(header: dict[str, Any]) -> str:
    """Return the promise that a header with a beacon keeps, 64 hexadecimal digits: all of it but the beacon's value."""
    before = {**header, "beacon": {name: value for name, value in header["beacon"].items() if name != "value"}}
    return hashlib.sha256(absorb(PROMISE, canonical_json(before))).hexdigest()


def secret_of_seed(header: dict[str, Any], seed: bytes, batch: int) -> bytes:
    """Return the secret of a batch, 32 bytes: from its seed and, by the header, the public value where there is one."""
    return expand(seed, "batch", canonical_json(header), batch, 32)

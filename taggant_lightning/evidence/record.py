"""Detection: the record of a test, as public JSON."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.record_fields import RECORD
from taggant_lightning.files import json_bytes, read_json, write_atomic

SCHEMA_VERSION = 1
MEANING = (
    "the probability, at most, of so many hits for a model built without the signed release, "
    "without anything derived from it, and without the keys"
)
SMALLEST_P = 1e-300


@dataclass(frozen=True)
class Detection:
    """The record of one test of one model.

    Attributes:
        method: Name of the method, for instance `data_taggants`.
        claim: What the number means, in one sentence.
        log10_p: Base-10 logarithm of the p-value, at most 0.
        p_value: The p-value, or None below 1e-300.
        validity: `exact`, `conservative` or `empirical`.
        commitment: Commitment of the keys, 64 hexadecimal digits.
        provenance: Versions, seeds, commit, hardware.
        details: Of the method; for data taggants hits, num_keys, top_k, num_classes, rate, demo_only.
        schema_version: Version of this record.
    """

    method: str
    claim: str
    log10_p: float
    p_value: float | None
    validity: Literal["exact", "conservative", "empirical"]
    commitment: str
    provenance: dict[str, Any]
    details: dict[str, Any]
    schema_version: int = SCHEMA_VERSION

    def to_bytes(self) -> bytes:
        """Return the record as JSON, as `save` writes it."""
        return json_bytes(asdict(self))

    def save(self, path: Path) -> None:
        """Write the record as JSON, atomically."""
        write_atomic(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> "Detection":
        """Read a record.

        Raises:
            TaggantError: If the file is missing, damaged or of another schema.
        """
        stored = read_json(path, what="detection")
        if stored.get("schema_version") != SCHEMA_VERSION:
            raise TaggantError(f"{path} has schema_version {stored.get('schema_version')}; this program reads {SCHEMA_VERSION}")
        try:
            RECORD(stored, "")
            return cls(**stored)
        except ValueError as error:
            raise TaggantError(f"{path} is damaged: {error}; restore it from a copy") from None
        except TypeError as error:
            raise TaggantError(f"{path} is no detection record ({error})") from None


def p_value(log10_p: float) -> float | None:
    """Return 10**log10_p, or None below 1e-300 where a float would soon be zero."""
    value = 10.0**log10_p
    return value if value >= SMALLEST_P else None

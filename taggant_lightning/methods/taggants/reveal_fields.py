"""What a file with a revealed batch may hold, before any of it is decoded."""

from typing import Any

from taggant_lightning.evidence.record_fields import HEX, MOST_CLASSES, MOST_KEYS
from taggant_lightning.outside.documents import HEAVY
from taggant_lightning.outside.fields import each, fields, matching, one_of, text, whole

_SECRET = matching("(?:[0-9a-fA-F]{2}){16,512}", "a secret in hexadecimal")
_LEVELS = 64  # of a tree; 17 are enough for all keys that there may be


def _step(value: Any, name: str) -> None:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{name} is not a side and a hash")
    one_of("left", "right")(value[0], f"{name}[0]")
    HEX(value[1], f"{name}[1]")


_KEY = fields(
    {
        "number": whole(0, MOST_KEYS),
        "label": whole(0, MOST_CLASSES),
        "image": text(HEAVY),
        "salt": HEX,
        "path": each(_step, _LEVELS),
    }
)
_REVEAL = {
    "format": text(100),
    "header": fields({}, more=lambda value, name: None),  # checked by itself
    "commitment": HEX,
    "batch": whole(0, MOST_KEYS),
    "keys": each(_KEY, MOST_KEYS, least=1),
}
_OPENINGS = (
    fields({**_REVEAL, "seed": HEX, "seed_path": each(_step, _LEVELS)}),
    fields({**_REVEAL, "secret": _SECRET}, {"seed": HEX}),  # format v1
)


def check_reveal(stored: dict[str, Any]) -> None:
    """Refuse what is no revealed batch.

    Raises:
        ValueError: With the entry, its value and what it must be.
    """
    _OPENINGS["secret" in stored](stored, "")

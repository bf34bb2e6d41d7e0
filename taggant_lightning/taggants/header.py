"""Whether a header is one that `KeySet.draw` writes: a claimant may hand over any JSON, and each entry decides something."""

from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.record_fields import MOST_KEYS
from taggant_lightning.outside import encodable, shown
from taggant_lightning.outside.fields import TEXT
from taggant_lightning.taggants.beacon import normal
from taggant_lightning.taggants.limits import check_limits
from taggant_lightning.taggants.primary import check_test

FORMAT = "taggant-lightning/keyset/v1"
LARGEST = 10**9  # of any number; what follows from them has limits of its own
LONGEST = 10 * TEXT  # of the statement, in characters
_ENTRIES = {"format", "num_keys", "num_classes", "shape", "test", "batches", "derivation", "statement", "demo_only"}


def check_header(header: Any) -> None:
    """Refuse what is no header of a KeySet.

    Raises:
        TaggantError: With the entry that is missing, unknown, or of a wrong type or value.
    """
    if not isinstance(header, dict) or not _ENTRIES <= set(header) <= _ENTRIES | {"beacon"}:
        raise TaggantError(f"the header is none of a KeySet: it needs {', '.join(sorted(_ENTRIES))}")
    _demand(header["format"] == FORMAT, "format", header["format"], f"this program reads {FORMAT}")
    for name, least in (("num_keys", 1), ("num_classes", 2)):
        _demand(_whole(header[name], least), name, header[name], f"a whole number from {least}")
    shape, batches = header["shape"], header["batches"]
    _demand(isinstance(shape, list) and len(shape) == 3 and all(_whole(n, 1) for n in shape), "shape", shape, "three sides")
    sizes = isinstance(batches, list) and len(batches) <= MOST_KEYS and all(_whole(n, 1) for n in batches)
    _demand(sizes and sum(batches) == header["num_keys"], "batches", batches, "positive sizes that add up to num_keys")
    short = isinstance(header["statement"], str) and len(header["statement"]) <= LONGEST
    _demand(short, "statement", header["statement"], f"text of at most {LONGEST:,} characters")
    _demand(isinstance(header["demo_only"], bool), "demo_only", header["demo_only"], "true or false")
    _check_derivation(header["derivation"], min(shape[1:]))
    try:
        check_test(header["test"], header["num_classes"])
    except (KeyError, TypeError, AttributeError):
        raise TaggantError(f"the header's test={shown(repr(header['test']))} is none that this program knows") from None
    check_limits(header["num_keys"], header["num_classes"], tuple(shape))
    if "beacon" in header:
        _check_beacon(header["beacon"], len(batches))


def check_words(statement: str, source: str | None) -> None:
    """Refuse words of an owner that could not be published: no UTF-8, or too long.

    Raises:
        TaggantError: If a text is so.
    """
    for name, text, most in (("statement", statement, LONGEST), ("beacon-source", source or "", TEXT)):
        if len(text) > most:
            raise TaggantError(f"{name} has {len(text):,} characters and may have {most:,}; write it shorter")
        if not encodable(text):
            raise TaggantError(f"{name}={text!r} is no UTF-8; write it in UTF-8")


def _check_derivation(derivation: Any, side: int) -> None:
    source = derivation.get("source") if isinstance(derivation, dict) else None
    if source == "noise":
        fits = set(derivation) == {"source", "grid"} and _whole(derivation["grid"], 1) and derivation["grid"] <= side
    elif source == "images":
        fits = {"source", "count", "sha256"} <= set(derivation) <= {"source", "count", "sha256", "blend"}
        fits = fits and _whole(derivation["count"], 1) and _whole(derivation.get("blend", 2), 2) and _hex(derivation["sha256"])
    else:
        fits = False
    _demand(fits, "derivation", derivation, "noise with its grid, or images with count and sha256")


def _check_beacon(beacon: Any, batches: int) -> None:
    fits = isinstance(beacon, dict) and set(beacon) == {"value", "source", "seeds"}
    fits = fits and isinstance(beacon["value"], str) and isinstance(beacon["source"], str) and bool(beacon["source"].strip())
    fits = fits and len(beacon["value"]) <= TEXT and len(beacon["source"]) <= TEXT
    fits = fits and normal(beacon["value"]) == beacon["value"]  # another spelling would be another try
    fits = fits and isinstance(beacon["seeds"], list) and len(beacon["seeds"]) == batches and all(map(_hex, beacon["seeds"]))
    _demand(fits, "beacon", beacon, "value (letters and digits in lower case), source and one seed a batch")


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= LARGEST


def _hex(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _demand(holds: bool, name: str, value: Any, wanted: str) -> None:
    if not holds:
        said = shown(repr(value))
        raise TaggantError(f"the header's {name}={said} is not {wanted}" if name != "format" else f"format={said}; {wanted}")

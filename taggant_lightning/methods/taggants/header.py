"""Whether a header is one that `KeySet.draw` writes: a claimant may hand over any JSON, and each entry decides something."""

from typing import Any

from taggant_lightning.commitment.beacon import normal
from taggant_lightning.commitment.seeds import FORMAT
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.record_fields import MOST_KEYS
from taggant_lightning.methods.base import NAME, USUAL
from taggant_lightning.methods.taggants.limits import check_limits
from taggant_lightning.outside import encodable, shown
from taggant_lightning.outside.fields import TEXT
from taggant_lightning.statistics.tests import read_test

FORMAT_1 = "taggant-lightning/keyset/v1"  # read, and never drawn any more
USES = ("rest", "one")  # what a use asks: all batches that are still secret, or one batch
LARGEST = 10**9  # of any number; what follows from them has limits of its own
LONGEST = 10 * TEXT  # of the statement, in characters
_ENTRIES = {"format", "num_keys", "num_classes", "shape", "test", "batches", "derivation", "statement", "demo_only"}
_OF_VERSION = {FORMAT_1: set[str](), FORMAT: {"uses", "seeds", "beacon"}}


def is_first_version(header: dict[str, Any]) -> bool:
    """Return whether a header is of format v1, in which nothing ties the secrets of several batches together."""
    return bool(header["format"] == FORMAT_1)


def check_header(header: Any) -> None:
    """Refuse what is no header of a KeySet.

    Raises:
        TaggantError: With the entry that is missing, unknown, or of a wrong type or value.
    """
    if not isinstance(header, dict) or not set(header) >= _ENTRIES:
        raise TaggantError(f"not a KeySet header: it needs {', '.join(sorted(_ENTRIES))}")
    version = header["format"]
    known = isinstance(version, str) and version in _OF_VERSION
    _demand(known, "format", version, f"this program reads {FORMAT} and {FORMAT_1}")
    entries = _ENTRIES | _OF_VERSION[version]
    if not entries <= set(header) <= entries | {"beacon"} | (set() if version == FORMAT_1 else {"method"}):
        raise TaggantError(f"not a header of {version}: it needs {', '.join(sorted(entries))}")
    for name, least in (("num_keys", 1), ("num_classes", 2)):
        _demand(_whole(header[name], least), name, header[name], f"a whole number from {least}")
    shape, batches = header["shape"], header["batches"]
    _demand(isinstance(shape, list) and len(shape) == 3 and all(_whole(n, 1) for n in shape), "shape", shape, "three sides")
    sizes = isinstance(batches, list) and len(batches) <= MOST_KEYS and all(_whole(n, 1) for n in batches)
    _demand(sizes and sum(batches) == header["num_keys"], "batches", batches, "positive sizes that add up to num_keys")
    short = isinstance(header["statement"], str) and len(header["statement"]) <= LONGEST
    _demand(short, "statement", header["statement"], f"text of at most {LONGEST:,} characters")
    _demand(isinstance(header["demo_only"], bool), "demo_only", header["demo_only"], "true or false")
    _check_derivation(header["derivation"], min(shape[1:]), header["num_keys"])
    read_test(header["test"], header["num_classes"])
    check_limits(header["num_keys"], header["num_classes"], tuple(shape))
    if is_first_version(header):
        if "beacon" in header:
            _check_beacon(header["beacon"], len(batches))
        return
    _demand(isinstance(header["uses"], str) and header["uses"] in USES, "uses", header["uses"], f"one of {', '.join(USES)}")
    _demand(_hex(header["seeds"]), "seeds", header["seeds"], "64 hexadecimal digits in lower case")
    if "method" in header:
        said = header["method"]
        named = isinstance(said, str) and NAME.fullmatch(said) is not None and said != USUAL  # which is never written
        _demand(named, "method", said, f"a name of lower-case letters, digits and _, other than {USUAL}")
    if header["beacon"] is not None:
        _check_beacon(header["beacon"], None)


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


def _check_derivation(derivation: Any, side: int, num_keys: int) -> None:
    source = derivation.get("source") if isinstance(derivation, dict) else None
    if source == "noise":
        fits = set(derivation) == {"source", "grid"} and _whole(derivation["grid"], 1) and derivation["grid"] <= side
    elif source == "images":
        fits = {"source", "count", "sha256"} <= set(derivation) <= {"source", "count", "sha256", "blend"}
        fits = fits and _whole(derivation["count"], 1) and _whole(derivation.get("blend", 2), 2) and _hex(derivation["sha256"])
        fits = fits and derivation["count"] >= num_keys * derivation.get("blend", 1)
    else:
        fits = False
    _demand(fits, "derivation", derivation, "noise with its grid, or images with count and sha256")


def _check_beacon(beacon: Any, batches: int | None) -> None:
    """Check the beacon of a header; in v1 it has the digest of each batch's seed."""
    names = {"value", "source"} if batches is None else {"value", "source", "seeds"}
    fits = isinstance(beacon, dict) and set(beacon) == names
    fits = fits and isinstance(beacon["value"], str) and isinstance(beacon["source"], str) and bool(beacon["source"].strip())
    fits = fits and len(beacon["value"]) <= TEXT and len(beacon["source"]) <= TEXT
    # Another spelling would be another try.
    fits = fits and beacon["value"] != "" and normal(beacon["value"]) == beacon["value"]
    if fits and batches is not None:
        fits = isinstance(beacon["seeds"], list) and len(beacon["seeds"]) == batches and all(map(_hex, beacon["seeds"]))
    _demand(fits, "beacon", beacon, f"an object of {', '.join(sorted(names))}, its value letters and digits in lower case")


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= LARGEST


def _hex(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _demand(holds: bool, name: str, value: Any, wanted: str) -> None:
    if not holds:
        said = shown(repr(value))
        raise TaggantError(f"the header's {name}={said} is not {wanted}" if name != "format" else f"format={said}; {wanted}")

"""What an entry of a ledger may hold; which kinds there are, the ledger knows."""

from typing import Any

from taggant_lightning.evidence.record_fields import BATCHES, LOG10_P, MOST_KEYS
from taggant_lightning.outside.fields import anything, fields, text, whole

BYTES = 32 * 2**20  # of a whole ledger
_NUMBER, _HASH = whole(0, 10**9), text(200)  # what a hash must be, the chain shows
_COMMON = fields(
    {"number": _NUMBER, "time": text(100), "kind": text(40), "previous": _HASH, "hash": _HASH},
    {"batches": BATCHES},
    more=anything(),
)
_OF_KIND = {
    "use": fields({"suspect": text(), "batches": BATCHES}, more=anything()),
    "look": fields({"suspect": text(), "batches": BATCHES}, more=anything()),
    "result": fields({"use": _NUMBER, "log10_p": LOG10_P, "detection": _HASH}, {"batches": BATCHES}, more=anything()),
    "reveal": fields({"batch": whole(0, MOST_KEYS)}, more=anything()),
}


def check_entry(entry: Any) -> None:
    """Refuse what no ledger holds.

    Raises:
        ValueError: With the entry's field, its value and what it must be.
    """
    _COMMON(entry, "")
    if entry["kind"] in _OF_KIND:
        _OF_KIND[entry["kind"]](entry, "")

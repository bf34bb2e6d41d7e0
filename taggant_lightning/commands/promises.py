"""Reading a promise that `taggant keys promise` made."""

from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.record_fields import HEX
from taggant_lightning.methods.taggants.header import check_header
from taggant_lightning.outside.fields import fields, text

_PROMISE = fields({"header": lambda value, name: None, "promise": HEX}, {"value": text()})


def promised_header(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the header of a promise.

    Args:
        stored: What promised.json holds: header and promise, and the beacon's value once it was fulfilled.

    Raises:
        TaggantError: If an entry is missing, unknown, or of a wrong type or value.
    """
    try:
        _PROMISE(stored, "")
    except ValueError as error:
        raise TaggantError(f"promise: {error}; restore promised.json from a copy") from None
    header: dict[str, Any] = stored["header"]
    check_header(header)
    if "beacon" not in header:
        raise TaggantError("promise: the header has no beacon; restore promised.json from a copy")
    return header

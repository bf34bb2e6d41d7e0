"""How large a KeySet may be: what nobody could draw, hold or test in time is refused before anything is computed."""

import math

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.record_fields import MOST_CLASSES, MOST_KEYS

MOST_SIDE = 65_536
MOST_PIXELS = 2**28  # numbers of one key image
MOST_BYTES = 2**31  # of all key images


def check_limits(num_keys: int, num_classes: int, shape: tuple[int, ...]) -> None:
    """Refuse a KeySet that is too large.

    Args:
        num_keys: K.
        num_classes: C.
        shape: (channels, height, width).

    Raises:
        TaggantError: If a number is above its limit.
    """
    for name, value, most in (("num_keys", num_keys, MOST_KEYS), ("num_classes", num_classes, MOST_CLASSES)):
        if value > most:
            raise TaggantError(f"{name}={value} is more than {most:,}, the most that this program reckons with; write fewer")
    pixels = math.prod(shape)
    if max(shape) > MOST_SIDE or pixels > MOST_PIXELS or num_keys * pixels > MOST_BYTES:
        raise TaggantError(
            f"shape={list(shape)} and num_keys={num_keys} make {num_keys * pixels:,} bytes of key images, and at most "
            f"{MOST_BYTES:,} are drawn, {MOST_PIXELS:,} in one image; write fewer or smaller keys"
        )

"""Dates of a claim: whole days, or instants, in one strict spelling."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from taggant_lightning.errors import TaggantError

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?", re.ASCII)


@dataclass(frozen=True)
class Moment:
    """A point in time, or a whole day where no more is known.

    Attributes:
        start: Its first instant.
        end: Its last.
    """

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return self.start.date().isoformat() if self.start != self.end else self.start.isoformat()


def date(text: str, name: str) -> Moment:
    """Read a day as `2026-11-24`, or a time as `2026-11-24T12:00`, in UTC unless it says otherwise (`Z`, `+01:00`).

    Other forms of ISO 8601 are refused: a week or an hour alone names no moment, whatever a library makes of it.

    Raises:
        TaggantError: If it is none.
    """
    written = text.strip()
    try:
        if not (_DAY.fullmatch(written) or _INSTANT.fullmatch(written)):
            raise ValueError(written)
        found = datetime.fromisoformat(written)
        start = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        end = start + timedelta(days=1, microseconds=-1) if _DAY.fullmatch(written) else start
    except (ValueError, OverflowError):
        raise TaggantError(f"{name}={text!r} is no date; write 2026-11-24, or with a time 2026-11-24T12:00+00:00") from None
    return Moment(start, end)

"""When the next request may start: a rate, and pauses that a service asked for."""

import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event, Lock

LONGEST_PAUSE = 300.0  # seconds; a service that asks for more is asked again all the same


class Pace:
    """Shared by the threads of one run.

    Args:
        rate: Most requests a second; None for no limit.
        ended: Set when the run ends, which ends every wait.
    """

    def __init__(self, rate: float | None, ended: Event) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._ended = ended
        self._lock = Lock()
        self._next = self._held = time.monotonic()

    def wait(self) -> bool:
        """Wait for a turn; return whether there is one, False if the run ended."""
        with self._lock:
            turn = max(time.monotonic(), self._next)
            self._next = turn + self._interval
        while (delay := max(turn, self._held) - time.monotonic()) > 0:
            if self._ended.wait(delay):
                return False
        return not self._ended.is_set()

    def hold(self, seconds: float) -> None:
        """Let no request start for so many seconds."""
        with self._lock:
            self._held = max(self._held, time.monotonic() + seconds)
            self._next = max(self._next, self._held)


def retry_after(header: str | None) -> float:
    """Return the seconds that a Retry-After header asks for, at most `LONGEST_PAUSE`; 0 if it asks for nothing readable.

    Args:
        header: A number of seconds or an HTTP date.
    """
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", text):
        return min(float(text), LONGEST_PAUSE)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, LookupError, OverflowError):  # the parser raises what a strange date brings about
        return 0.0
    seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_PAUSE)

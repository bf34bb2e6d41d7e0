"""How far crafting is: a bar in a terminal, a line now and then in a batch log."""

import sys
import time
from datetime import timedelta
from typing import Any, Self

SECONDS = 30.0  # between two lines
COSINE_SECONDS = 0.5  # between two cosines beside a bar


class Rarely:
    """Says at most once in some seconds that it is time, the first time at once.

    Args:
        seconds: Between two times.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._last = seconds, -float("inf")

    def due(self) -> bool:
        """Say whether it is time."""
        now = time.monotonic()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True


class StepLines:
    """Takes the calls of a tqdm bar, and writes whole lines: the first after some time, the last when all is done.

    Args:
        total: Steps to do.
        seconds: Between two lines.
    """

    def __init__(self, total: int, seconds: float = SECONDS) -> None:
        self.total, self.seconds, self.done, self.words = total, seconds, 0, ""
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, steps: int = 1) -> None:
        """Count steps, and write a line if it is time for one."""
        self.done += steps
        now = time.monotonic()
        if now - self._told < self.seconds and self.done < self.total:
            return
        self._told = now
        left = (now - self._began) / max(1, self.done) * (self.total - self.done)
        said = f"taggant: signing step={self.done}/{self.total}{self.words} left={timedelta(seconds=round(left))}"
        print(said, file=sys.stderr, flush=True)

    def set_postfix(self, refresh: bool = True, **values: str) -> None:
        """Take what the next line says beside the count."""
        self.words = "".join(f" {name}={value}" for name, value in values.items())


def steps_bar(total: int, visible: bool) -> Any:
    """Return a bar to enter, with `update` and `set_postfix`.

    Args:
        total: Steps to do.
        visible: Whether to show anything.
    """
    from tqdm.auto import tqdm

    if visible and not sys.stderr.isatty():
        return StepLines(total)
    return tqdm(total=total, desc="signing", unit="step", disable=not visible, mininterval=0.2)

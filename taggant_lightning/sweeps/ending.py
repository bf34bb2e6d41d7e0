"""End processes: ask first, kill later."""

import subprocess
from collections.abc import Iterable
from typing import Protocol

GRACE = 20.0  # seconds between asking a process to end and killing it


class Running(Protocol):
    """A command that runs: what `subprocess.Popen` offers, as far as it is needed here."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status; raise `subprocess.TimeoutExpired` where it takes longer."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


def end(running: Iterable[Running]) -> None:
    """Ask processes to end, and kill those that do not."""
    left = list(running)
    for process in left:
        process.terminate()
    for process in left:
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()

"""Commands in processes of their own, which end when the sweep is interrupted."""

import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from taggant_lightning.sweeps.ending import Running, end
from taggant_lightning.sweeps.running import program, threads
from taggant_lightning.sweeps.warm import Warm, possible


class Processes:
    """Starts commands and waits for them; the function that `run_graph` calls.

    Args:
        jobs: Commands at a time, for the number of threads of each.
        launcher: Words in front of each command, such as `srun`.
        modules: What to import once for all commands; without any, each imports for itself.
    """

    def __init__(self, jobs: int, launcher: tuple[str, ...] = (), modules: Sequence[str] = ()) -> None:
        self.environment, self.launcher = threads(jobs), list(launcher)
        self.stopped = False
        self._running: set[Running] = set()
        self._guard = threading.Lock()
        self._warm = Warm(modules, self.environment) if modules else None

    def __call__(self, words: list[str], log: Path, lock: int) -> int:
        """Run a command; its output is added to the log, and its process keeps the node's lock."""
        arguments = program(words)
        warm = self._warm if possible(arguments[1:]) else None
        with log.open("ab") as out:
            out.write(f"$ {' '.join(words)}\n".encode())
            out.flush()
            if warm is not None and not warm.usable():  # takes as long as importing does, so not under the guard
                warm = None
            with self._guard:
                if self.stopped:
                    return -signal.SIGTERM
                process: Running | None = None if warm is None else warm.start(arguments[1:], out, lock)
                if process is None:
                    process = self._alone(arguments, out, lock)
                self._running.add(process)
            status = process.wait()
        with self._guard:
            self._running.discard(process)
        return status

    def _alone(self, arguments: list[str], out: IO[bytes], lock: int) -> Running:
        return subprocess.Popen(  # noqa: S603  # words of an experiment that the user runs
            [*self.launcher, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            env=self.environment, pass_fds=[lock],
        )  # fmt: skip

    def stop(self) -> None:
        """Ask all commands to end, kill those that do not, and start no more."""
        with self._guard:
            self.stopped = True
            left = list(self._running)
        end(left)
        self.close()

    def close(self) -> None:
        """End what was kept for further commands."""
        if self._warm is not None:
            self._warm.close()


@contextmanager
def interruptible(processes: Processes) -> Iterator[None]:
    """Stop the commands when this process is interrupted or asked to end, and then be interrupted.

    The commands are stopped within the signal's handler, because a pool of threads waits for its threads before anything else.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        processes.stop()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Commands in processes of their own, which end when the sweep is interrupted."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from taggant_lightning.sweeps.running import program, threads

GRACE = 20.0  # seconds between asking a process to end and killing it


class Processes:
    """Starts commands and waits for them; the function that `run_graph` calls.

    Args:
        jobs: Commands at a time, for the number of threads of each.
        launcher: Words in front of each command, such as `srun`.
    """

    def __init__(self, jobs: int, launcher: tuple[str, ...] = ()) -> None:
        self.environment, self.launcher = threads(jobs), list(launcher)
        self.stopped = False
        self._running: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()

    def __call__(self, words: list[str], log: Path, lock: int) -> int:
        """Run a command; its output is added to the log, and its process keeps the node's lock."""
        with log.open("ab") as out:
            out.write(f"$ {' '.join(words)}\n".encode())
            out.flush()
            with self._guard:
                if self.stopped:
                    return -signal.SIGTERM
                process = subprocess.Popen(  # noqa: S603  # words of an experiment that the user runs
                    [*self.launcher, *program(words)], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                    env=self.environment, pass_fds=[lock],
                )  # fmt: skip
                self._running.add(process)
            status = process.wait()
        with self._guard:
            self._running.discard(process)
        return status

    def stop(self) -> None:
        """Ask all commands to end, kill those that do not, and start no more."""
        with self._guard:
            self.stopped = True
            left = list(self._running)
        for process in left:
            process.terminate()
        for process in left:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


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

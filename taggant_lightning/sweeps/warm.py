"""Warm starts: commands begin as children of one process that has imported everything, instead of importing it each."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from taggant_lightning.outside import say
from taggant_lightning.sweeps.ending import GRACE
from taggant_lightning.sweeps.zygote import READY

LOOK = 1.0  # seconds between two looks whether the zygote lives
LOST = -signal.SIGKILL  # exit status of a command whose zygote was killed: nobody else can know its own
TOLD = b"taggant sweep: the process that had started this command was killed, and the command was stopped\n"


def possible(arguments: list[str]) -> bool:
    """Say whether a command can begin warm: `taggant`, or a script; an interpreter's options need one of their own."""
    script = arguments[0].endswith(".py") and Path(arguments[0]).is_file()
    return hasattr(os, "fork") and (script or arguments[:2] == ["-m", "taggant_lightning"])


class Forked:
    """A command that began warm; waits and ends like `subprocess.Popen`.

    Args:
        number: Of its process.
        channel: Its socket: the zygote tells its exit status there, and it closes when both have ended.
        zygote: The process that forked it.
        out: Its log.
    """

    def __init__(self, number: int, channel: socket.socket, zygote: subprocess.Popen[bytes], out: IO[bytes]) -> None:
        self.number = number
        self._channel, self._zygote, self._out = channel, zygote, out
        self._ended, self._status = threading.Event(), LOST
        threading.Thread(target=self._watch, daemon=True).start()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, negative for the number of a signal."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(str(self.number), timeout or 0.0)
        return self._status

    def terminate(self) -> None:
        """Ask it to end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> bool:
        """Send a signal, and say whether there was somebody to hear it."""
        if self._ended.is_set():
            return False
        try:
            os.kill(self.number, number)
        except ProcessLookupError:
            return False
        return True

    def _watch(self) -> None:
        said = self._answer()
        if said:
            self._status = int(said)
        else:
            self._out.write(TOLD)
            self._out.flush()
        self._channel.close()
        self._ended.set()

    def _answer(self) -> bytes:
        """Return what the zygote says of the end; nothing where it was killed, and then the command has been stopped."""
        self._channel.settimeout(LOOK)
        said, asked = b"", 0.0
        while not said.endswith(b"\n"):
            try:
                part = self._channel.recv(64)
            except TimeoutError:
                if self._zygote.poll() is None:
                    continue
                # What it comes to would not be counted, and the next attempt waits for it.
                late = asked and time.monotonic() - asked > GRACE
                asked = asked or time.monotonic()
                if not self._send(signal.SIGKILL if late else signal.SIGTERM):
                    return b""
            else:
                if not part:
                    return b""
                said += part
        return said


class Warm:
    """Keeps a zygote, and begins commands in its children.

    Args:
        modules: What it imports.
        environment: Its environment, and so the commands'.
    """

    def __init__(self, modules: Sequence[str], environment: dict[str, str]) -> None:
        self._modules, self._environment = list(modules), environment
        self._guard = threading.Lock()
        self._refused = self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._ready = False
        self._control, theirs = socket.socketpair()
        with theirs:
            words = [sys.executable, "-m", "taggant_lightning.sweeps.zygote", str(theirs.fileno()), *self._modules]
            self._zygote = subprocess.Popen(  # noqa: S603  # our own words
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=self._environment, pass_fds=[theirs.fileno()],
            )  # fmt: skip

    def usable(self) -> bool:
        """Wait until the zygote has imported; begin a new one where it was killed. False where importing fails."""
        with self._guard:
            if self._closed or self._refused:
                return False
            if self._ready and self._zygote.poll() is not None:
                self._control.close()
                self._begin()
            if not self._ready:
                with self._control.makefile() as answers:
                    said = answers.read()
                self._ready = said == READY
                self._refused = not self._ready
                if self._refused and not self._closed:
                    reason = said or f"it ended with {self._zygote.wait()}"
                    say(
                        f"taggant sweep: each command imports for itself, because importing once failed ({reason})",
                        file=sys.stderr,
                    )
            return self._ready

    def start(self, arguments: list[str], out: IO[bytes], lock: int) -> Forked | None:
        """Begin a command.

        Args:
            arguments: Of the interpreter.
            out: The log, for all that it writes.
            lock: Descriptor of the node's lock.

        Returns:
            The command; None where the zygote has just been killed.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._control, [b"."], [theirs.fileno(), out.fileno(), lock])
            ours.sendall(json.dumps(arguments).encode() + b"\n")
            number = b""
            while not number.endswith(b"\n"):
                part = ours.recv(1)
                if not part:
                    break
                number += part
        except OSError:
            number = b""
        if not number:
            ours.close()
            return None
        return Forked(int(number), ours, self._zygote, out)

    def close(self) -> None:
        """End the zygote; for when no command runs any more."""
        self._closed = True
        self._zygote.kill()
        self._zygote.wait()
        self._control.close()

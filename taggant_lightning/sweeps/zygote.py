"""The process behind warm starts: it imports once, and forks a child for each command.

    python -m taggant_lightning.sweeps.zygote DESCRIPTOR MODULE …

`warm` starts it and speaks with it over a socket. It imports the modules, runs nothing of them, and answers `ready`. A
command comes as three descriptors (its own socket, its log, its lock) and one line on its socket, the interpreter's arguments
as JSON; the answers on that socket are the child's number and, when it has ended, its exit status. The end of the first
socket is the end of this process; children live on, as they would without it.

A child becomes what an interpreter that was started for the command would be. It leaves `main` as a program leaves its last
line, so that threads are waited for, exit handlers run and the exit status is made by the interpreter itself. What differs
from an interpreter of its own: it has modules that the command never asks for, with their filters of warnings and environment
variables; importing, which is over, warns nobody; all children share a seed of hashes, and the code as it was at the start.

It never touches a GPU, because CUDA cannot be used in a child of a process that did: each child makes a context of its own
(about a second; not measured yet). Processes that live on from command to command would keep theirs, with all else that a
command leaves behind. It starts no threads; OpenBLAS has some, and stops them before a fork.
"""

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import warnings
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

READY = "ready"
# Signals that reach a whole group of processes are for the sweep and its commands.
NOT_OURS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Import, serve, and in a child run its command."""
    control, names = socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]
    control.set_inheritable(False)
    before: dict[int, Any] = {number: signal.signal(number, signal.SIG_IGN) for number in NOT_OURS}
    try:
        for name in names:
            importlib.import_module(name)
    except BaseException as error:  # whatever it is, commands can still be started without this process
        control.sendall(f"{type(error).__name__}: {error}".splitlines()[0].encode())
        raise SystemExit(1) from None
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # what was imported is garbage for no child: looking through it would copy its memory
    control.sendall(READY.encode())
    control.shutdown(socket.SHUT_WR)
    arguments, log, lock = serve(control, before)
    settle(log, lock)
    run(arguments)


def serve(control: socket.socket, before: dict[int, Any]) -> tuple[list[str], int, int]:
    """Fork a child for each command; returns in the children only.

    Args:
        control: Where commands come from.
        before: Handlers of signals that the children take back.

    Returns:
        The child's command: arguments of the interpreter, descriptors of its log and lock.
    """
    waking, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    own = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), waking], [], [])
        if waking in ready:
            os.read(waking, 4096)
            reap(running)
        if control.fileno() not in ready:
            continue
        _, descriptors, _, _ = socket.recv_fds(control, 1, 3)
        if not descriptors:
            sys.exit()
        channel, (log, lock) = socket.socket(fileno=descriptors[0]), descriptors[1:]
        line = channel.makefile().readline()
        signal.pthread_sigmask(signal.SIG_BLOCK, NOT_OURS)  # one that comes now finds the child's handlers in place
        child = _fork() if line else -1
        if child == 0:
            for other in (control, *running.values()):
                other.close()
            signal.set_wakeup_fd(-1)
            os.close(waking)
            os.close(wakes)
            for number, handler in {**before, signal.SIGCHLD: own}.items():
                signal.signal(number, handler)
            os.set_inheritable(channel.detach(), False)  # open until the child has ended: so its end is seen without us as well
            signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_OURS)
            return json.loads(line), log, lock
        signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_OURS)
        os.close(log)
        os.close(lock)
        if child > 0:
            running[child] = channel
            _say(channel, child)
        else:
            channel.close()


def _fork() -> int:
    """Fork; -1 where the system refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about OpenBLAS's threads
        try:
            return os.fork()
        except OSError:
            return -1


def reap(running: dict[int, socket.socket]) -> None:
    """Tell how children have ended.

    Args:
        running: The children and their commands' sockets; those that have ended are taken out.
    """
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        if child in running:
            channel = running.pop(child)
            _say(channel, os.waitstatus_to_exitcode(status))
            channel.close()


def _say(channel: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # the sweep was killed; the end of its other socket tells
        channel.sendall(f"{number}\n".encode())


def settle(log: int, lock: int) -> None:
    """Take the descriptors that a process of its own would have been started with, and its own randomness."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.set_inheritable(lock, True)
    # As at the beginning of any process; Python's own generator does it by itself, and CUDA's begin alike everywhere.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()
    importlib.invalidate_caches()


def run(arguments: list[str]) -> None:
    """Run `-m PACKAGE …` or `SCRIPT …` as the interpreter does."""
    try:
        module, code, sys.argv = program(arguments)
        sys.orig_argv = [sys.executable, *arguments]
        if arguments[0] != "-m" and not sys.flags.safe_path:
            sys.path[0] = os.path.dirname(os.path.realpath(arguments[0]))  # noqa: PTH120  # as a plain string, like the interpreter
        sys.modules["__main__"] = module
        exec(code, module.__dict__)  # noqa: S102  # the command
    except SystemExit:
        raise
    except BaseException as error:  # told here, as the interpreter would tell of this file as well
        error = error.with_traceback(_without_us(error.__traceback__))
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):  # ends by the signal, after all else
            sys.excepthook = lambda kind, value, trace: None
            raise
        raise SystemExit(1) from None


def program(arguments: list[str]) -> tuple[ModuleType, CodeType, list[str]]:
    """Return the module `__main__` of a command, its code, and `sys.argv`."""
    if arguments[0] == "-m":
        spec = importlib.util.find_spec(f"{arguments[1]}.__main__")
        if spec is None or spec.origin is None or not isinstance(spec.loader, InspectLoader):
            raise ImportError(f"{arguments[1]} cannot be run")
        code = spec.loader.get_code(spec.name)
        if code is None:
            raise ImportError(f"{arguments[1]} has no code")
        # With its spec, by which Lightning starts further processes of the same command.
        return _module(spec, spec.origin), code, [spec.origin, *arguments[2:]]
    path = os.path.abspath(arguments[0])  # noqa: PTH100  # keeps symbolic links, as the interpreter does
    return _module(None, path), compile(Path(path).read_bytes(), path, "exec", dont_inherit=True), arguments


def _module(spec: ModuleSpec | None, path: str) -> ModuleType:
    module = ModuleType("__main__")
    module.__file__, module.__spec__ = path, spec
    module.__loader__ = SourceFileLoader("__main__", path) if spec is None else spec.loader
    module.__package__ = None if spec is None else spec.parent
    return module


def _without_us(trace: TracebackType | None) -> TracebackType | None:
    """Leave the frames of this file out of a traceback's beginning."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


if __name__ == "__main__":
    main()

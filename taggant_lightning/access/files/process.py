"""Asking a stranger's model in a process of its own: what it breaks, hangs or fills is that process, and costs one sentence.

The process starts anew, so that its memory holds the queries and no secret; it has no network, writes nothing, and has limits
on memory and time (docs/model-files.md says on which system). It is killed where it exceeds them.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.files.inputs import InputShape
from taggant_lightning.access.files.messages import pack, unpack
from taggant_lightning.access.files.opened import OpenModel
from taggant_lightning.errors import Gone, TaggantError

if TYPE_CHECKING:
    from taggant_lightning.access.files.asking import Asked

START = "import sys; from taggant_lightning.access.files.child import main; main(int(sys.argv[1]))"
STARTING = 300.0  # seconds to import torch, on a cold and busy disk too
PATIENCE = 10.0  # seconds a pass of up to 16 images, and as long to open the file
MEGABYTE = 10**6
# Bytes beside the file's own, four times over: the runtime, threads, and what lies between layers.
RUNTIME, THREAD, PIXEL = 2 * 2**30, 64 * 2**20, 64_000
PASSED_ON = (
    "OMP_",
    "MKL_",
    "KMP_",
    "GOMP_",
    "ONEDNN_",
    "DNNL_",
    "ATEN_",
    "OPENBLAS_",
    "LC_",
    "LD_LIBRARY_PATH",
    "LANG",
    "PATH",
)
LENGTH = 600  # of a sentence that comes from the process


def ask_file(
    way: str,
    path: str | Path,
    images: NDArray[np.float32],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layout: str | None = None,
    classes: int | None = None,
    patience: float | None = None,
) -> "Asked":
    """Ask a model's file for its rankings, in a process of its own.

    Args:
        way: `onnx` or `exported`.
        path: The file.
        images: (N, C, S, S) float32 in [0, 1].
        mean: Mean a channel to subtract; None for 0.
        std: Standard deviation a channel to divide by; None for 1.
        layout: `NCHW` or `NHWC`, where the file's shape leaves a doubt.
        classes: How many classes the model should have, if known.
        patience: Seconds for a pass, before those that a large file gets; None for 10.

    Returns:
        The answers, and what was checked.

    Raises:
        TaggantError: As `asking.ask_with_controls`; or if the process crashes, or exceeds its memory or its time.
    """
    from taggant_lightning.access.files.asking import ask_with_controls

    with _opened(way, path, images.shape[-1] ** 2, classes, patience) as (model, given_up):
        asked = ask_with_controls(model, images, mean=mean, std=std, layout=layout)
    asked.checks["without"] = given_up
    return asked


@contextlib.contextmanager
def _opened(
    way: str, path: str | Path, pixels: int, classes: int | None, patience: float | None
) -> Iterator[tuple[OpenModel, list[str]]]:
    """Start a process and have it open a file; yields the model, and what the process has given up."""
    what, where = f"{way}={path}", Path(path)
    if not where.is_file():
        raise TaggantError(f"{what} is no file; name the {'ONNX' if way == 'onnx' else 'exported'} file of the model")
    if patience is not None and not 0 < patience < 1e6:
        raise TaggantError(f"pass-timeout={patience:g} must be seconds above 0; 10 is usual")
    size = _size(way, where)
    threads = _threads(way)
    order = {"way": way, "what": what, "path": str(where.resolve()), "classes": classes, "threads": threads}
    order["memory"] = RUNTIME + threads * THREAD + 4 * size + PIXEL * pixels
    seconds = (PATIENCE if patience is None else patience) + size / MEGABYTE
    with _Child(what, seconds) as child:
        child.send(pack(order))
        ready, _ = child.receive(STARTING)
        child.started = True
        opened, _ = child.receive(seconds)
        shape = _shape(what, opened)

        def forward(block: NDArray[np.float32]) -> NDArray[np.floating]:
            child.send(pack({}, block))
            _, scores = child.receive(seconds)
            if scores is None:
                raise Gone(f"{what} took over the process that asked it; it is no model to be trusted")
            return scores

        yield OpenModel(what, shape, forward), [str(name) for name in ready.get("ready", [])]


class _Child:
    """The process, and the socket to it."""

    def __init__(self, what: str, seconds: float) -> None:
        self._what, self.started = what, False
        self._socket, other = socket.socketpair()
        import taggant_lightning

        root = str(Path(taggant_lightning.__file__).resolve().parents[1])
        paths = [root, *(str(Path(p).resolve()) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p)]
        environment = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        environment |= {"PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
        with other:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter and this package
                [sys.executable, "-P", "-c", START, str(other.fileno())],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                start_new_session=True,  # Ctrl-C ends the owner's process, which ends this one
            )
        self._socket.settimeout(seconds)

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def send(self, data: bytes) -> None:
        with self._troubles(self._socket.gettimeout() or 0):
            self._socket.sendall(data)

    def receive(self, seconds: float) -> tuple[dict[str, Any], NDArray[np.floating] | None]:
        """Return the next message.

        Raises:
            TaggantError: If it says what is wrong with the file, or the process crashed, or took too long.
        """
        end = time.monotonic() + seconds

        def read(count: int) -> bytes:
            parts = []
            while count:
                self._socket.settimeout(max(1e-3, end - time.monotonic()))
                part = self._socket.recv(min(count, 2**20))
                if not part:
                    raise EOFError
                parts.append(part)
                count -= len(part)
            return b"".join(parts)

        with self._troubles(seconds):
            message, array = unpack(read)
        if "error" in message:
            raise TaggantError(_clean(message["error"]))
        return message, array

    @contextlib.contextmanager
    def _troubles(self, seconds: float) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise Gone(
                f"{self._what} gave no answer within {seconds:.0f} seconds, as a loop without end does; if the model is only "
                "slow, write --pass-timeout with more seconds"
            ) from None
        except (EOFError, OSError):
            raise Gone(f"{self._what} {self._end()}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Gone(f"{self._what} took over the process that asked it; it is no model to be trusted") from None

    def _end(self) -> str:
        """Say how the process ended."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            code = 0
        if not self.started:
            return f"cannot be asked: the process for it did not start (exit {code}); see what python -c 'import torch' says"
        if code == -signal.SIGKILL:
            return "needed more memory than there is; ask it on a machine with more"
        name = f" ({signal.Signals(-code).name})" if code < 0 else ""
        return (
            f"ended the process that asked it{name}, as a file does that reaches beyond its memory or needs more than it may "
            "have; export the model again, or collect answers for --predictions"
        )


def _clean(sentence: object) -> str:
    """Return a sentence from the process as one line of printable characters."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(sentence)[:4000])
    return " ".join(text.split())[:LENGTH]


def _shape(what: str, opened: dict[str, Any]) -> InputShape:
    try:
        fields = dict(opened["opened"])
        lengths = [fields.pop(name) for name in ("batch", "channels", "height", "width")]
        if not all(n is None or (isinstance(n, int) and 0 <= n < 2**31) for n in lengths):
            raise ValueError("lengths")
        return InputShape(*lengths, declared=bool(fields["declared"]), channels_last=bool(fields["channels_last"]))
    except (KeyError, TypeError, ValueError):
        raise TaggantError(f"{what} took over the process that asked it; it is no model to be trusted") from None


def _size(way: str, path: Path) -> int:
    """Return the bytes of a file; of ONNX with those beside it, where its weights may lie."""
    files = [path, *(p for p in path.resolve().parent.iterdir() if p.is_file())] if way == "onnx" else [path]
    return sum({p.resolve(): p.stat().st_size for p in files}.values())


def _threads(way: str) -> int:
    """Return the threads of this process's torch, so that the other adds in the same order; onnxruntime has its own rule."""
    if way == "onnx":
        return os.cpu_count() or 1
    import torch

    return torch.get_num_threads()

"""The process that opens a stranger's model and asks it: `process.py` starts it. It has the queries and nothing of the owner's.

It imports what it needs, gives up what it does not need (`confine.py`), and only then opens the file.
"""

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.files.confine import confine
from taggant_lightning.access.files.messages import pack, unpack
from taggant_lightning.access.files.opened import OpenModel
from taggant_lightning.errors import TaggantError


def main(channel: int) -> None:
    """Answer what comes through a socket until it is closed.

    Args:
        channel: The socket's file descriptor.
    """

    def read(count: int) -> bytes:
        parts = []
        while count:
            part = os.read(channel, min(count, 2**20))
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(channel, rest) :]

    try:
        order, _ = unpack(read)
        opening = _prepare(order)
        write(pack({"ready": confine(order["memory"])}))
        try:
            model = opening(order["path"], order["what"], order["classes"])
            write(pack({"opened": asdict(model.shape)}))
            while True:
                _, images = unpack(read, 2**32)
                if images is not None:
                    write(_answer(model, images))
        except TaggantError as error:
            write(pack({"error": str(error)}))
        except MemoryError:
            write(pack({"error": f"{order['what']} needs more memory than it may have; export the model again"}))
    except EOFError:
        return


def _answer(model: OpenModel, images: NDArray[np.floating]) -> bytes:
    """Return the message with the scores, or with what is wrong: a file that fails on some images is asked about others."""
    try:
        return pack({}, model.forward(images.astype(np.float32, copy=False)))
    except TaggantError as error:
        return pack({"error": str(error)})


def _prepare(order: dict[str, Any]) -> Callable[[str, str, int | None], OpenModel]:
    """Import everything that opening a file needs, with as many threads as the owner's process has."""
    if order["way"] == "onnx":
        from taggant_lightning.access.files.onnx import import_runtime, open_onnx

        import_runtime(order["what"])
        return open_onnx
    import torch

    from taggant_lightning.access.files import program, torchscript  # noqa: F401 - for what they import
    from taggant_lightning.access.files.exported import open_exported

    torch.set_num_threads(order["threads"])
    return open_exported

"""What the owner's process and the process that asks a model say to each other: a little JSON and an array, never a pickle."""

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct(">II")
MOST_JSON, MOST_SCORES = 2**20, 2**28  # bytes that no honest message comes near
DTYPES = {"float16": np.float16, "float32": np.float32, "float64": np.float64}


def pack(message: dict[str, Any], array: NDArray[np.floating] | None = None) -> bytes:
    """Return the bytes of a message; `array` is a float array of any shape."""
    if array is not None:
        message = {**message, "shape": list(array.shape), "dtype": array.dtype.name}
    text, content = json.dumps(message).encode(), b"" if array is None else np.ascontiguousarray(array).tobytes()
    return HEAD.pack(len(text), len(content)) + text + content


def unpack(read: Callable[[int], bytes], most: int = MOST_SCORES) -> tuple[dict[str, Any], NDArray[np.floating] | None]:
    """Read a message, which may come from a process that a stranger's file has taken over.

    Args:
        read: Returns exactly so many bytes, or raises EOFError.
        most: Bytes that its array may have.

    Returns:
        The message, and its array or None.

    Raises:
        EOFError: If it ends within.
        ValueError: If it is none.
    """
    text, content = HEAD.unpack(read(HEAD.size))
    if text > MOST_JSON or content > most:
        raise ValueError(f"a message of {text + content} bytes")
    message = json.loads(read(text))
    if not isinstance(message, dict):
        raise ValueError("a message without fields")
    if "dtype" not in message:
        return message, None
    array = np.frombuffer(read(content), dtype=DTYPES[message["dtype"]])
    return message, array.reshape([int(length) for length in message["shape"]])

"""A classification service on loopback, with faults on demand: what tests and benchmarks ask.

with serve(lambda image: {"labels": [3, 1, 2]}, Faults(error=0.1)) as service:
    ...  # service.url, service.requests
"""

import base64
import hashlib
import io
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Respond = Callable[[NDArray[np.uint8]], Any]


@dataclass(frozen=True)
class Faults:
    """How often a request goes wrong, each a share of all requests; they exclude each other.

    Attributes:
        error: HTTP 500.
        slow: An answer after `delay` seconds.
        drop: A connection closed without an answer.
        malformed: Half of the JSON.
        too_many: HTTP 429 with Retry-After.
        delay: Seconds of a slow answer.
        retry_after: What a 429 says.
        seed: Of the draws.
    """

    error: float = 0.0
    slow: float = 0.0
    drop: float = 0.0
    malformed: float = 0.0
    too_many: float = 0.0
    delay: float = 1.0
    retry_after: str = "0"
    seed: int = 0


@dataclass
class Running:
    """A service that runs.

    Attributes:
        url: Its address.
        requests: Number of requests by the SHA-256 of the image's pixels.
        answered: Number of whole answers, likewise.
        faults: Number of faults by kind.
    """

    url: str = ""
    requests: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


def decode(body: dict[str, Any]) -> NDArray[np.uint8]:
    """Return the (C, H, W) uint8 image of a request."""
    with Image.open(io.BytesIO(base64.b64decode(body["image"]))) as image:
        pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def digest(image: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an image's pixels."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


@contextmanager
def serve(respond: Respond, faults: Faults | None = None) -> Iterator[Running]:
    """Serve until the block ends.

    Args:
        respond: Called with each image; what it returns is sent as JSON.
        faults: What goes wrong, and how often.
    """
    faults, running = faults or Faults(), Running()
    rng, lock = random.Random(faults.seed), threading.Lock()  # noqa: S311  # faults need no secrecy
    kinds = ("error", "slow", "drop", "malformed", "too_many")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            image = decode(json.loads(content))
            with lock:
                running.requests[digest(image)] += 1
                draw = rng.random()
            kind = None
            for name in kinds:
                draw -= getattr(faults, name)
                if draw < 0:
                    kind = name
                    break
            if kind:
                running.faults[kind] += 1
            if kind == "drop":
                self.close_connection = True
                return
            if kind == "slow":
                time.sleep(faults.delay)
            body = json.dumps(respond(image)).encode()
            if kind == "error":
                self._send(500, b'{"message": "out of memory"}')
            elif kind == "too_many":
                self._send(429, b"{}", {"Retry-After": faults.retry_after})
            elif kind == "malformed":
                self._send(200, body[: len(body) // 2])
            else:
                with lock:
                    running.answered[digest(image)] += 1
                self._send(200, body)

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            try:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:  # who asked has hung up
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    running.url = f"http://127.0.0.1:{server.server_address[1]}/classify"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()

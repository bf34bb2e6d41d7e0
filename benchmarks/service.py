"""A classification service on loopback, with faults on request: for tests, and for measuring what asking costs."""

import base64
import hashlib
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Image8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Faults:
    """The chance of each fault, one at most a request; drawn from the image and how often it was asked, not from the clock.

    Attributes:
        error: HTTP 500, 502 or 504.
        slow: `delay` seconds pass before the answer.
        drop: The connection ends without an answer, or within one.
        malformed: HTTP 200 with a body that is no JSON, or lacks the fields.
        html: HTTP 200 with a web page.
        too_many: HTTP 429 with `Retry-After: pause`.
        seed: Another seed, other faults.
        delay: Seconds.
        pause: What Retry-After says.
    """

    error: float = 0.0
    slow: float = 0.0
    drop: float = 0.0
    malformed: float = 0.0
    html: float = 0.0
    too_many: float = 0.0
    seed: int = 0
    delay: float = 1.0
    pause: str = "0"


@dataclass(frozen=True)
class Reply:
    """A response that is not simply JSON with status 200."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass
class Served:
    """A running service.

    Attributes:
        url: Its address.
        requests: How often each image was asked, by `digest`.
        times: When each request came, `time.monotonic()`.
        bodies: What was asked, as JSON.
        headers: The headers of each request, names in lower case.
        most: The most requests that were under way at a time.
    """

    url: str
    requests: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most: int = 0


def digest(image: Image8) -> str:
    """Return the name under which requests for an image are counted."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


@contextmanager
def serve(
    answer: Callable[[Image8], dict[str, Any] | list[Any] | Reply],
    faults: Faults | None = None,
    image_of: Callable[[Any], str] = lambda body: body["image"],
) -> Iterator[Served]:
    """Serve on a free port of 127.0.0.1.

    Args:
        answer: From a (C, H, W) uint8 image to JSON, or to a whole reply.
        faults: None for none.
        image_of: Where a request has the image.
    """
    server = _Server(answer, faults or Faults(), image_of)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.served
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client may keep its connection open
    request_queue_size = 128

    def __init__(self, answer: Callable[[Image8], Any], faults: Faults, image_of: Callable[[Any], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.faults, self.image_of = answer, faults, image_of
        self.served = Served(f"http://127.0.0.1:{self.server_port}/classify")
        self.lock = threading.Lock()
        self.under_way = 0
        self.closing = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        server, served = self.server, self.server.served
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        encoded = server.image_of(body).rpartition("base64,")[2]
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as opened:
            pixels = np.asarray(opened)
        image = pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
        name = digest(image)
        with server.lock:
            served.requests[name] += 1
            served.times.append(time.monotonic())
            served.bodies.append(body)
            served.headers.append({key.lower(): value for key, value in self.headers.items()})
            server.under_way += 1
            served.most = max(served.most, server.under_way)
            fault, variant = self._fault(name, served.requests[name])
        try:
            self._respond(fault, variant, image)
        finally:
            with server.lock:
                server.under_way -= 1

    def _fault(self, name: str, asked: int) -> tuple[str, int]:
        faults = self.server.faults
        generator = np.random.default_rng([faults.seed, int(name[:12], 16), asked])
        drawn, variant = generator.random(), int(generator.integers(6))
        for kind in ("error", "slow", "drop", "malformed", "html", "too_many"):
            drawn -= getattr(faults, kind)
            if drawn < 0:
                return kind, variant
        return "", variant

    def _respond(self, fault: str, variant: int, image: Image8) -> None:
        if fault == "slow":
            self.server.closing.wait(self.server.faults.delay)
        if fault == "drop":
            if variant % 2:  # in the middle of the answer
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"labels": [1, ')
            self.close_connection = True
            return
        replies = {
            "error": Reply((500, 502, 504)[variant % 3], b"<html>broken</html>", {"Content-Type": "text/html"}),
            "malformed": Reply(body=(b'{"labels": [0, 1', b'{"status": "ok"}', b"")[variant % 3]),
            "html": Reply(body=b"<!doctype html><title>Log in</title>", headers={"Content-Type": "text/html"}),
            "too_many": Reply(429, b"{}", {"Retry-After": self.server.faults.pause}),
        }
        reply = replies.get(fault) or self.server.answer(image)
        if not isinstance(reply, Reply):
            reply = Reply(body=json.dumps(reply).encode())
        self.send_response(reply.status)
        for header, value in reply.headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

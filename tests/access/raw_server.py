"""A server on loopback that sends bytes as they are, at any pace: for what no honest HTTP server would send."""

import contextlib
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

Piece = bytes | float  # what to send, or seconds to wait


@contextmanager
def raw_server(reply: Callable[[], Iterable[Piece]]) -> Iterator[str]:
    """Serve on a free port of 127.0.0.1; every request gets the pieces, and the connection ends.

    Args:
        reply: Called for each request.

    Yields:
        The address.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client has gone
                length = 0
                while line := self.rfile.readline().strip():
                    if line.lower().startswith(b"content-length"):
                        length = int(line.split(b":")[1])
                self.rfile.read(length)
                for piece in reply():
                    if isinstance(piece, bytes):
                        self.wfile.write(piece)
                    else:
                        time.sleep(piece)

        def finish(self) -> None:
            with contextlib.suppress(OSError):
                super().finish()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()

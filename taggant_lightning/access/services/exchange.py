"""One request to a service, and its response: one clock for all of it, bounded in size, and never redirected."""

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from taggant_lightning.access.services.failures import FailedAttempt, Failure

LARGEST = 16 * 2**20  # bytes of an answer, unpacked; a hundred thousand labels with scores need less
PIECE = 2**16
THREAD = "taggant exchange"
TIME_OUT = Failure("a time-out")
CERTIFICATE = Failure(
    "an untrusted certificate",
    advice="certificates are always checked; name the file of its authority in REQUESTS_CA_BUNDLE",
    final=True,
)


@dataclass(frozen=True)
class Response:
    """What came back.

    Attributes:
        status: The HTTP status.
        headers: By name, in any case.
        body: At most `LARGEST` bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Line:
    """The connection to a service of one thread, kept open from one exchange to the next.

    An exchange runs in a thread of its own, and its clock covers all of it: names, every address, encryption, request, headers,
    body. A socket's own time-out begins anew with each byte. When the time is over the socket is shut, and that thread ends.

    Args:
        headers: Sent with every request; no other credentials are.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._open()

    def post(self, url: str, body: bytes, timeout: float) -> Response:
        """Post a body and return the response, whatever its status.

        Args:
            url: The address. A redirect is not followed: it would take the headers to another host.
            body: JSON.
            timeout: Seconds for the whole exchange.

        Raises:
            FailedAttempt: If there was no whole response in time.
        """
        outcome: SimpleQueue[Response | BaseException] = SimpleQueue()
        session = self._session

        def run() -> None:
            try:
                outcome.put(_exchange(session, url, body, timeout))
            except BaseException as error:  # handed over to the thread that waits
                outcome.put(error)

        Thread(target=run, daemon=True, name=THREAD).start()
        try:
            found = outcome.get(timeout=timeout)
        except Empty:
            self.close()
            self._open()
            raise FailedAttempt(TIME_OUT) from None
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """Shut every socket, whatever it is doing."""
        self._over.set()
        for connection in self._connections:
            _shut(connection.sock)
        for opened in self._sockets:  # a connection forgets its socket while the answer is still read from it
            _shut(opened)
        self._session.close()

    def _open(self) -> None:
        self._over, self._connections, self._sockets = Event(), list[HTTPConnection](), list[socket.socket]()
        self._session = _Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(self._connect))
        json_only = {"Content-Type": "application/json", "Accept": "application/json"}
        self._session.headers.update({**json_only, **self._headers})
        self._session.auth = _as_it_is  # or .netrc would replace the Authorization header

    def _connect(self, connection: HTTPConnection, connect: Callable[[], None]) -> None:
        """Connect, and take the socket down, so that another thread can shut it."""
        over, sockets = self._over, self._sockets
        self._connections.append(connection)
        connect()
        sockets.append(connection.sock)
        if over.is_set():  # nobody waits any more, and the service should not see the query
            connection.close()
            raise OSError("the time of this exchange is over")


def _shut(opened: object) -> None:
    if isinstance(opened, socket.socket):
        with suppress(OSError):
            # Of the socket below an encrypted one: a reader in another thread then sees the end of the file.
            socket.socket.shutdown(opened, socket.SHUT_RDWR)


def _exchange(session: requests.Session, url: str, body: bytes, timeout: float) -> Response:
    try:
        with session.post(url, data=body, timeout=(timeout, timeout), stream=True, allow_redirects=False) as response:
            return Response(response.status_code, response.headers, _read(response.raw))
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise FailedAttempt(TIME_OUT) from None
    except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise FailedAttempt(CERTIFICATE) from None
        raise FailedAttempt(Failure("a failure of the encrypted connection")) from None
    except FailedAttempt:
        raise
    # Whatever a server sends, requests and urllib3 mean to raise their own; a few forms of damage pass through as others.
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError, LookupError):
        raise FailedAttempt(Failure("a refused or dropped connection")) from None


def _read(raw: urllib3.HTTPResponse) -> bytes:
    pieces, size = [], 0
    while piece := raw.read1(PIECE, decode_content=True):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise FailedAttempt(Failure(f"an answer of more than {LARGEST // 2**20} MiB"))
    return b"".join(pieces)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Say that there is none: requests would read the whole body first, and fail on a Location that is no address."""


Connect = Callable[[HTTPConnection, Callable[[], None]], None]


class _Adapter(HTTPAdapter):
    """Opens each connection by a function of ours.

    Args:
        connect: Gets the connection, and what connects it.
    """

    def __init__(self, connect: Connect) -> None:
        self._pools = {"http": _http_pool(connect), "https": _https_pool(connect)}
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*arguments, **named)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        """Make the pools of connections through a proxy; one of SOCKS has connections of its own."""
        manager = super().proxy_manager_for(proxy, **named)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager


def _http_pool(connect: Connect) -> type[urllib3.HTTPConnectionPool]:
    class Connection(HTTPConnection):
        def connect(self) -> None:
            connect(self, super().connect)

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Connection

    return Pool


def _https_pool(connect: Connect) -> type[urllib3.HTTPSConnectionPool]:
    class Connection(HTTPSConnection):
        def connect(self) -> None:
            connect(self, super().connect)

    class Pool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Connection

    return Pool


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request

"""One exchange with a hostile server: bounded in time whatever it drips, and in memory whatever it packs."""

import gzip
import itertools
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress

import pytest

from taggant_lightning.access.services.exchange import LARGEST, THREAD, Line
from taggant_lightning.access.services.failures import FailedAttempt
from tests.access.raw_server import Piece, raw_server

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
TIMEOUT = 0.4


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def dripped(before: bytes, drop: bytes) -> Callable[[], Iterable[Piece]]:
    """Send a part, and then a few bytes so often that no time-out of a socket ever comes."""
    return lambda: itertools.chain([before], itertools.chain.from_iterable(itertools.repeat((drop, 0.03))))


@pytest.mark.parametrize(
    "reply",
    [
        lambda: [600.0],
        dripped(b"", b"H"),
        dripped(b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        dripped(b"HTTP/1.1 200 OK\r\n", b"X: a\r\n"),
        dripped(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        dripped(HEAD + b"\r\n", b" "),
        dripped(HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
        dripped(HEAD + b"Content-Length: 1000000\r\nConnection: close\r\n\r\n", b" "),
        dripped(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        dripped(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
        dripped(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: a\r\n"),
        dripped(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10], b"\x00"),
    ],
)
def test_one_clock_for_the_whole_exchange(reply: Callable[[], Iterable[Piece]]) -> None:
    with raw_server(reply) as url:
        line = Line({})
        started = time.monotonic()
        with pytest.raises(FailedAttempt):
            line.post(url, b"{}", TIMEOUT)
        assert time.monotonic() - started < TIMEOUT + 1
        line.close()
        deadline = time.monotonic() + 5  # and the thread does not stay behind
        while (left := [t for t in threading.enumerate() if t.name == THREAD]) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not left


def test_a_line_goes_on_after_a_time_out() -> None:
    slow = iter([True])
    body = b'{"labels": [1]}'
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with raw_server(lambda: [5.0] if next(slow, False) else [whole]) as url:
        line = Line({"X-Mine": "1"})
        with pytest.raises(FailedAttempt, match="a time-out"):
            line.post(url, b"{}", TIMEOUT)
        assert line.post(url, b"{}", 5).body == body
        line.close()


BOMB = 2**26  # bytes that it unpacks to


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", lambda: gzip.compress(bytes(BOMB), 1)),
        ("deflate", lambda: zlib.compress(bytes(BOMB), 1)),
        ("gzip, gzip", lambda: gzip.compress(gzip.compress(bytes(BOMB), 1), 6)),
        (", ".join(["gzip"] * 100), lambda: gzip.compress(b"{}")),
    ],
)
def test_what_unpacks_to_much_is_not_unpacked(encoding: str, packed: Callable[[], bytes]) -> None:
    body = packed()
    with raw_server(
        lambda: [HEAD + f"Content-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body]
    ) as url:
        line = Line({})
        tracemalloc.start()
        try:
            with pytest.raises(FailedAttempt):
                line.post(url, b"{}", 20)
            assert tracemalloc.get_traced_memory()[1] < 4 * LARGEST
        finally:
            tracemalloc.stop()
        line.close()


@pytest.mark.parametrize(
    "reply",
    [
        [],
        [b"\x00" * 70_000],
        [b"HTTP/1.1 200 OK\r\n" + b"".join(b"H%d: %s\r\n" % (i, b"x" * 60_000) for i in range(200)) + b"\r\n"],
        [b"HTTP/1.1 200 " + b"x" * 10**6],
        [HEAD + b"Content-Length: 99999999999999999999\r\n\r\n{}"],
        [HEAD + b"Content-Length: -1\r\n\r\n{}"],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 100_000],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n{}"],
        [HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"],
        [b"HTTP/9.9 -1 \xff\r\n\r\n"],
        [b"HTTP/1.1 999999999999 OK\r\n\r\n"],
    ],
)
def test_damage_is_a_failed_attempt_or_a_response(reply: list[Piece]) -> None:
    with raw_server(lambda: reply) as url:
        line = Line({})
        with suppress(FailedAttempt):
            assert len(line.post(url, b"{}", 5).body) <= LARGEST
        line.close()

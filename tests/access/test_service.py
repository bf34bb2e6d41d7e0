"""A service that fails in every way: retries, waits, refusals, resume, and the sentences for what no retry mends."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.service import Faults, digest, serve
from taggant_lightning.access.answer import Answer, Query
from taggant_lightning.access.journal import Journal, Reply
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.access.service import Service, recorded_answers
from taggant_lightning.access.wire import FieldMapping
from taggant_lightning.errors import TaggantError, Unavailable

QUERIES = [Query(f"q{n:02d}", np.full((3, 2, 2), n, dtype=np.uint8)) for n in range(12)]


def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "secret" / "answers.jsonl", {"url": "x"})


def respond(image: np.ndarray) -> dict[str, Any]:
    return {"labels": [(int(image[0, 0, 0]) + i) % 10 for i in range(10)]}


def quick(url: str, **more: Any) -> Service:
    return Service(url, **{"backoff": 0.001, "timeout": 2, **more})


@contextmanager
def answering(status: int, body: bytes, headers: dict[str, str]) -> Iterator[str]:
    """Serve one fixed answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("concurrency", [1, 4])
def test_faults_change_nothing(tmp_path: Path, concurrency: int) -> None:
    faults = Faults(error=0.15, slow=0.05, drop=0.15, malformed=0.15, too_many=0.15, delay=0.4, seed=concurrency)
    with serve(respond, faults) as service:
        written = journal(tmp_path)
        seen: list[tuple[int, int]] = []
        quick(service.url, concurrency=concurrency, timeout=0.2, attempts=12).ask(
            QUERIES, written, progress=lambda done, total: seen.append((done, total))
        )
    assert sum(service.faults.values()) > 0
    assert {q.name for q in QUERIES} == set(written.replies)
    assert all(written.replies[q.name] == Reply(respond(q.image)["labels"]) for q in QUERIES)
    assert seen[-1] == (12, 12)
    answers = recorded_answers(written, QUERIES, LabelTable.same(10))
    assert answers == [Answer(i, tuple(respond(q.image)["labels"])) for i, q in enumerate(QUERIES)]


def test_only_what_lacks_is_asked_and_in_order(tmp_path: Path) -> None:
    order: list[int] = []

    def noting(image: np.ndarray) -> dict[str, Any]:
        order.append(int(image[0, 0, 0]))
        return respond(image)

    with serve(noting) as service:
        written = journal(tmp_path)
        quick(service.url, concurrency=1).ask(QUERIES[:5], written)
        quick(service.url, concurrency=1).ask(QUERIES, journal(tmp_path))
        assert order == list(range(12))
        quick(service.url).ask(QUERIES, journal(tmp_path))
        assert sum(service.requests.values()) == 12
        assert all(service.requests[digest(q.image)] == 1 for q in QUERIES)


def test_stopping_early(tmp_path: Path) -> None:
    with serve(respond) as service:
        written = journal(tmp_path)
        quick(service.url, concurrency=1).ask(QUERIES, written, stop=lambda: len(written.replies) >= 4)
        assert list(written.replies) == [f"q{n:02d}" for n in range(4)]
        quick(service.url, concurrency=1).ask(QUERIES, written, stop=lambda: len(written.replies) >= 4)
        assert sum(service.requests.values()) == 4


def test_refusals_count(tmp_path: Path) -> None:
    with serve(lambda image: {"refused": True} if image[0, 0, 0] % 2 else respond(image)) as service:
        written = journal(tmp_path)
        quick(service.url).ask(QUERIES, written)
    answers = recorded_answers(written, QUERIES, LabelTable.same(10))
    assert [a.labels is None for a in answers] == [False, True] * 6
    for status in (400, 413, 415, 422, 451):
        with answering(status, b"no", {}) as url:
            written = journal(tmp_path / str(status))
            quick(url).ask(QUERIES[:1], written)
            assert written.replies == {"q00": Reply(None, refused=True)}


@pytest.mark.parametrize("said", ["0.3", "date"])
def test_waits_as_long_as_the_service_asks(tmp_path: Path, said: str) -> None:
    from datetime import UTC, datetime, timedelta
    from email.utils import format_datetime

    when = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True) if said == "date" else said
    with serve(respond, Faults(too_many=0.5, retry_after=when, seed=3)) as service:
        begun = time.monotonic()
        quick(service.url, concurrency=1).ask(QUERIES[:2], journal(tmp_path))
        taken = time.monotonic() - begun
    assert service.faults["too_many"] > 0
    assert taken > (0.9 if said == "date" else 0.3)


def test_a_rate(tmp_path: Path) -> None:
    with serve(respond) as service:
        begun = time.monotonic()
        quick(service.url, rate=20.0).ask(QUERIES[:6], journal(tmp_path))
        assert time.monotonic() - begun > 5 / 20


def test_a_service_that_stays_away(tmp_path: Path) -> None:
    with serve(respond, Faults(error=1.0)) as service:
        with pytest.raises(Unavailable, match=r"left 3 of 3 queries without answer \(for instance: HTTP 500\); run the same"):
            quick(service.url, attempts=2).ask(QUERIES[:3], journal(tmp_path))
        assert sum(service.requests.values()) == 3 * 2 * 2  # two passes of two attempts
    with pytest.raises(Unavailable, match="ConnectionError"):
        quick(service.url, attempts=1).ask(QUERIES[:1], journal(tmp_path))
    assert not journal(tmp_path).path.exists()


@pytest.mark.parametrize(
    ("status", "body", "headers", "message"),
    [
        (200, b"<html>Welcome</html>", {"Content-Type": "text/html"}, "answers HTML and not JSON"),
        (200, b"  <!doctype html>", {"Content-Type": "application/json"}, "answers HTML and not JSON"),
        (401, b"", {}, "answers 401: it wants to know who asks"),
        (403, b"", {}, "answers 403"),
        (404, b"", {}, "answers 404: it does not know it"),
        (405, b"", {}, "answers 405"),
        (302, b"", {"Location": "https://login.example/x"}, "sends on to login.example"),
        (418, b"", {}, "answers HTTP 418"),
    ],
)
def test_what_no_retry_mends(tmp_path: Path, status: int, body: bytes, headers: dict[str, str], message: str) -> None:
    with answering(status, body, headers) as url, pytest.raises(TaggantError, match=message) as caught:
        quick(url, attempts=2).ask(QUERIES, journal(tmp_path))
    assert not isinstance(caught.value, Unavailable)
    assert not (tmp_path / "secret").exists()


def test_an_answer_without_end(tmp_path: Path) -> None:
    with answering(200, b" " * (17 * 2**20), {}) as url, pytest.raises(Unavailable, match="more than 16 MiB"):
        quick(url, attempts=1).ask(QUERIES[:1], journal(tmp_path))


def test_headers_never_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "t0p-s3cret")
    mapping = FieldMapping(headers={"Authorization": "Bearer ${SERVICE_TOKEN}"})
    with answering(403, b"t0p-s3cret", {}) as url, pytest.raises(TaggantError) as caught:
        quick(url, mapping=mapping).ask(QUERIES[:1], journal(tmp_path))
    assert "t0p" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "ftp://x/"}, "url='ftp://x/' is no address"),
        ({"url": "model.onnx"}, "is no address"),
        ({"attempts": 0}, "attempts=0 must be at least 1"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout": 0}, "timeout=0 must be above 0"),
        ({"rate": -1}, "rate=-1 must be above 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        Service(**{"url": "http://x/", **arguments})


def test_labels_of_answers(tmp_path: Path) -> None:
    written = journal(tmp_path)
    written.append("q00", Reply(["cat", "dog"]))
    written.append("q01", Reply([1, 0], [0.5, 0.5]))
    table = LabelTable({"cat": 1, "dog": None, "0": 0, "1": 2}, 3, "t.csv")
    assert recorded_answers(written, QUERIES[:3], table) == [
        Answer(0, (1, None)),
        Answer(1, (2, 0), (0.5, 0.5)),
        Answer(2, None),
    ]
    with pytest.raises(TaggantError, match="query q00: the answer 'cat' lies outside 0..2"):
        recorded_answers(written, QUERIES[:1], LabelTable.same(3))
    with pytest.raises(TaggantError, match="the model answers 2 classes and the keys were drawn for 3"):
        recorded_answers(written, QUERIES[1:2], LabelTable.same(3))

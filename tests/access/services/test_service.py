"""Asking a service on loopback: every answer and every failure, with short time-outs."""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from benchmarks.service import Faults, Image8, Reply, digest, serve
from taggant_lightning.access.answer import Query
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.access.services import asking, exchange, pace
from taggant_lightning.access.services.journal import Journal, Recorded
from taggant_lightning.access.services.pace import Pace, retry_after
from taggant_lightning.access.services.recorded import lack_of
from taggant_lightning.access.services.service import Service
from taggant_lightning.errors import TaggantError, Unavailable
from taggant_lightning.files import sha256_hex


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "secret" / "answers.jsonl", {})


def queries(count: int, channels: int = 3) -> list[Query]:
    rng = np.random.default_rng(7)
    return [Query(f"q{i:03}", rng.integers(0, 256, (channels, 4, 5), dtype=np.uint8)) for i in range(count)]


def first_pixel(image: Image8) -> dict[str, Any]:
    return {"labels": [int(image.flat[0]), "other"]}


def service(url: str, **arguments: Any) -> Service:
    return Service(url, **{"timeout": 5, "attempts": 3, "backoff": 0.001, **arguments})


def failing_first(times: int, reply: Reply) -> Callable[[Image8], Any]:
    """Answer each image only after it was asked so many times."""
    seen: dict[str, int] = {}

    def answer(image: Image8) -> Any:
        seen[digest(image)] = seen.get(digest(image), 0) + 1
        return reply if seen[digest(image)] <= times else first_pixel(image)

    return answer


@pytest.mark.parametrize("channels", [1, 3])
def test_asks_all_and_writes_each(journal: Journal, channels: int) -> None:
    asked, said = queries(12, channels), []
    with serve(first_pixel) as served:
        service(served.url).ask(asked, journal, progress=lambda *numbers: said.append(numbers))
    assert journal.answers == {q.name: Recorded((int(q.image.flat[0]), "other")) for q in asked}
    assert said == [(i + 1, 12) for i in range(12)]
    assert set(served.requests.values()) == {1}


def test_asks_only_what_the_journal_lacks(journal: Journal) -> None:
    asked = queries(8)
    with serve(first_pixel) as served:
        service(served.url).ask(asked[2:5], journal)
        service(served.url).ask(asked, Journal(journal.path, {}))
        service(served.url).ask(asked, Journal(journal.path, {}), progress=lambda *_: pytest.fail("nothing is left"))
    assert set(served.requests.values()) == {1}
    assert len(journal.path.read_text().splitlines()) == 9


def test_order_and_concurrency(journal: Journal) -> None:
    asked = queries(12)
    order = []

    def slowly(image: Image8) -> dict:
        order.append(digest(image))
        time.sleep(0.03)
        return first_pixel(image)

    with serve(slowly) as served:
        service(served.url, concurrency=1).ask(asked[:4], journal)
        assert served.most == 1
        assert order == [digest(q.image) for q in asked[:4]]
        service(served.url, concurrency=3).ask(asked, journal)
        assert 1 < served.most <= 3


def test_stop_ends_early_and_keeps_what_is_under_way(journal: Journal) -> None:
    asked = queries(20)
    with serve(first_pixel) as served:
        service(served.url, concurrency=2).ask(asked, journal, stop=lambda: len(journal.answers) >= 5)
        assert 5 <= len(journal.answers) <= 6
        assert sum(served.requests.values()) == len(journal.answers)
        assert {q.name for q in asked[:5]} <= set(journal.answers)
        before = len(journal.answers)
        service(served.url).ask(asked, journal, stop=lambda: True)
    assert len(journal.answers) == before


def test_rate(journal: Journal) -> None:
    with serve(first_pixel) as served:
        service(served.url, rate=20).ask(queries(6), journal)
    assert np.diff(served.times).sum() >= 5 / 20 - 0.02


@pytest.mark.parametrize(
    "reply",
    [
        *(Reply(status) for status in (408, 409, 425, 429, 500, 502, 503, 504)),
        Reply(body=b'{"labels": [1'),
        Reply(body=b'{"ok": true}'),
        Reply(204, b""),
        Reply(body=b"<p>maintenance", headers={}),
        Reply(503, b"<html>busy", {"Content-Type": "text/html"}),
    ],
)
def test_failures_that_pass(journal: Journal, reply: Reply) -> None:
    with serve(failing_first(2, reply)) as served:
        service(served.url).ask(queries(3), journal)
    assert all(recorded.labels for recorded in journal.answers.values())
    assert set(served.requests.values()) == {3}


@pytest.mark.parametrize("kind", ["drop", "slow"])
def test_connections_that_drop_or_hang(journal: Journal, kind: str) -> None:
    with serve(first_pixel, Faults(**{kind: 0.5}, delay=0.4)) as served:
        service(served.url, timeout=0.15, attempts=8).ask(queries(6), journal)
    assert len(journal.answers) == 6
    assert max(served.requests.values()) > 1


def test_an_answer_that_drips_is_a_time_out(journal: Journal) -> None:
    class Drips(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            for _ in range(20):
                self.wfile.write(b" ")
                time.sleep(0.04)

        def log_message(self, *_: object) -> None: ...

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client has gone
                super().handle()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Drips)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    started = time.monotonic()
    try:
        with pytest.raises(Unavailable, match="the last failure was a time-out"):
            service(f"http://127.0.0.1:{server.server_port}/", timeout=0.1, attempts=1).ask(queries(1), journal)
    finally:
        server.shutdown()
        server.server_close()
    assert time.monotonic() - started < 0.7


def test_an_answer_too_large_is_malformed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "LARGEST", 2**20)
    with serve(failing_first(1, Reply(body=b" " * (2**20 + 1) + b'{"labels": [1]}'))) as served:
        service(served.url).ask(queries(1), journal)
    assert journal.answers["q000"] == Recorded((int(queries(1)[0].image.flat[0]), "other"))
    location = {"Location": "http://elsewhere/"}
    for large in (Reply(body=b" " * 2**21), Reply(302, b" " * 2**21, location)):
        with serve(lambda _, large=large: large) as served, pytest.raises(Unavailable, match="an answer of more than 1 MiB"):
            service(served.url).ask(queries(2), Journal(journal.path.with_name("other"), {}))


def test_retry_after_is_respected_by_every_thread(journal: Journal) -> None:
    replies = iter([Reply(429, b"", {"Retry-After": "1"})])
    with serve(lambda image: next(replies, None) or first_pixel(image)) as served:
        service(served.url, concurrency=1).ask(queries(2), journal)
    assert served.times[1] - served.times[0] >= 1
    assert len(served.times) == 3


def test_retry_after() -> None:
    later = datetime.now(UTC) + timedelta(seconds=20)
    assert 18 <= retry_after(format_datetime(later, usegmt=True)) <= 20
    assert retry_after(format_datetime(later.replace(tzinfo=None))) > 18
    assert retry_after(format_datetime(later + timedelta(days=9), usegmt=True)) == pace.LONGEST_PAUSE
    assert retry_after(format_datetime(later - timedelta(days=9), usegmt=True)) == 0
    assert [retry_after(text) for text in ("7", " 1.5 ", "99999", "-3", "soon", "", None)] == [7, 1.5, 300, 0, 0, 0, 0]


def test_the_end_of_a_run_ends_every_wait() -> None:
    ended = threading.Event()
    waiting = Pace(None, ended)
    waiting.hold(100)
    threading.Timer(0.05, ended.set).start()
    started = time.monotonic()
    assert not waiting.wait()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("status", [400, 413, 415, 422, 451])
def test_refusals_by_status(journal: Journal, status: int) -> None:
    asked, refusal = queries(4), Reply(status, b"<html>no", {"Content-Type": "text/html"})
    good = {digest(asked[2].image)}
    with serve(lambda image: first_pixel(image) if digest(image) in good else refusal) as served:
        assert service(served.url).ask(asked, journal) == {}
        assert list(journal.answers.values()).count(Recorded(None, refused=True, status=status)) == 3
        assert set(served.requests.values()) == {1}
        good.clear()
        other = journal.path.with_name("other")
        with pytest.raises(TaggantError, match=f"no usable answer to 4 queries: .*{status}?") as caught:
            service(served.url).ask(asked, Journal(other, {}), lack=lack_of(LabelTable.same(3)))
    assert "write a --mapping that names the fields" in str(caught.value)
    assert not other.exists()


def test_refusals_by_field_and_scores_that_are_none(journal: Journal) -> None:
    replies = iter([{"refused": True}, {"scores": [0.5, float("nan")]}, {"scores": [0.1, 0.9]}])
    with serve(lambda _: next(replies)) as served:
        service(served.url, concurrency=1).ask(queries(3), journal)
    assert journal.answers == {  # written with the first proper answer, not before
        "q002": Recorded((1, 0), (0.9, 0.1), classes=2), "q000": Recorded(None, refused=True), "q001": Recorded(None),
    }  # fmt: skip


HTML = Reply(body=b"<!doctype html>", headers={"Content-Type": "text/html; charset=utf-8"})


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (HTML, "a web page instead of JSON; write the address that takes POST requests with images, or put valid"),
        (Reply(body=b"  <xml/>", headers={}), "a web page instead of JSON"),
        (Reply(401), "HTTP 401; put valid credentials into the headers of the mapping"),
        (Reply(403), "HTTP 403; put valid"),
        (Reply(404), "HTTP 404; write the address"),
        (Reply(405), "HTTP 405; write the address"),
        (
            Reply(302, b"", {"Location": "https://u:s3cret@login.example/in?s3cret"}),
            "a redirect.*; it redirects to login.example, perhaps for a login",
        ),
        (Reply(301, b"", {"Location": "/login"}), "it redirects to a page of its own"),
        (Reply(307, b"", {"Location": "http://[bad"}), "it redirects to a page of its own"),
        (
            Reply(body=b'{"result": {"names": ["a"]}}'),
            'begins {"result": {"names": .* perhaps with the line answer: {labels: res',
        ),
        (
            Reply(body=b'{"why": "\x1b[2J verified"}'),
            'malformed JSON; it begins {"why": "\\\\x1b.2J verified"}; write a --mapping',
        ),
    ],
)
def test_a_wrong_address_or_login(journal: Journal, reply: Reply, message: str) -> None:
    with serve(lambda _: reply) as served, pytest.raises(TaggantError, match=message) as caught:
        service(served.url + "?key=s3cret").ask(queries(30), journal)
    assert not isinstance(caught.value, Unavailable)
    assert str(caught.value).startswith(f"url={served.url} gave no usable answer to ")
    assert "--count-missing asks the other 1" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert not journal.path.exists()
    assert len(served.requests) <= asking.MAX_CONSECUTIVE_FAILURES + 4


def test_queries_whose_turn_never_came_are_not_counted_among_the_failures(journal: Journal) -> None:
    with serve(lambda _: Reply(404)) as served, pytest.raises(TaggantError, match=r"to 1\d queries: HTTP 404; write"):
        service(served.url, rate=50, concurrency=8).ask(queries(30), journal)


ODD = [
    *(Reply(status) for status in (401, 403, 404, 405, 410, 500, 429, 600)),
    Reply(302, b"", {"Location": "http://127.0.0.1:1/login"}),
    HTML,
    Reply(body=b"[" * 4_000_000),
    Reply(body=b'{"labels":[' + b"9" * 4_000_000 + b"]}"),
    Reply(body=b'{"labels": [1, 2], "scores": [1]}'),
    Reply(body=b'{"labels": {"a": 1}}'),
    Reply(headers={"Content-Encoding": "gzip", "Content-Type": "application/json"}, body=b"no gzip"),
    Reply(headers={"Content-Type": "application/json", "Set-Cookie": "a=\x80;;=", "Retry-After": "\x80"}, body=b"\x00"),
]


@pytest.mark.parametrize("reply", ODD)
def test_one_odd_answer_among_good_ones_is_a_miss(journal: Journal, reply: Reply) -> None:
    asked = queries(6)
    with serve(lambda image: reply if digest(image) == digest(asked[3].image) else first_pixel(image)) as served:
        failures = service(served.url).ask(asked, journal)
        assert list(failures) == ["q003"]
        assert set(journal.answers) == {q.name for q in asked} - {"q003"}
        assert failures["q003"].kind.isprintable()
        # A later run with the same journal asks that one only, and may be luckier; it never asks twice what was answered.
        before = served.requests.copy()
        assert list(service(served.url).ask(asked, Journal(journal.path, {}))) == ["q003"]
        assert sum((served.requests - before).values()) <= 2 * 3 + 1


def test_a_suspect_that_shuns_the_first_queries_stops_no_verdict(journal: Journal) -> None:
    """More than `MAX_CONSECUTIVE_FAILURES` of them in a row, each time, before any that it answers."""
    asked = queries(asking.MAX_CONSECUTIVE_FAILURES + 9)
    shunned = {digest(q.image) for q in asked[: asking.MAX_CONSECUTIVE_FAILURES + 5]}
    for reply in (Reply(503), Reply(403)):
        fresh = Journal(journal.path.with_name(str(reply.status)), {})
        with serve(lambda image, reply=reply: reply if digest(image) in shunned else first_pixel(image)) as served:
            with pytest.raises(TaggantError):
                service(served.url, attempts=1, concurrency=1).ask(asked, fresh)
            failures = service(served.url, attempts=1).ask(asked, fresh, count_missing=True)
        assert len(failures) == len(shunned)
        assert len(fresh.answers) == 4


def test_a_suspect_that_shuns_many_queries_in_a_row_is_still_there(journal: Journal) -> None:
    asked = queries(2 * asking.MAX_CONSECUTIVE_FAILURES + 4)
    good = {digest(q.image) for q in (asked[0], asked[-1])}
    with serve(lambda image: first_pixel(image) if digest(image) in good else Reply(500)) as served:
        failures = service(served.url, attempts=1, concurrency=1).ask(asked, journal)
    assert len(failures) == len(asked) - 2
    assert served.requests[digest(asked[-1].image)] >= 1
    assert served.requests[digest(asked[0].image)] > 1  # asked again, to know whether anybody is there
    assert journal.answers["q000"] == Recorded((int(asked[0].image.flat[0]), "other"))


def test_with_one_attempt_each_a_service_that_is_away_is_asked_to_the_end(journal: Journal) -> None:
    asked, state = queries(40), {"left": 3}

    def answer(image: Image8) -> Any:
        state["left"] -= 1
        return first_pixel(image) if state["left"] >= 0 else Reply(500)

    with serve(answer) as served:
        with pytest.raises(Unavailable, match="answered 3 of 40"):
            service(served.url, concurrency=1).ask(asked, journal)
        assert len(served.requests) < 25
        failures = service(served.url, concurrency=1).ask(asked, journal, count_missing=True)
    assert len(failures) == 37
    assert len(served.requests) == 40


def test_one_query_that_fails_is_tried_again_at_the_end(journal: Journal) -> None:
    asked = queries(8)
    bad = digest(asked[1].image)
    seen = []

    def answer(image: Image8) -> Any:
        seen.append(digest(image))
        return Reply(500) if digest(image) == bad and seen.count(bad) <= 4 else first_pixel(image)

    with serve(answer) as served:
        service(served.url).ask(asked, journal)
    assert len(journal.answers) == 8
    assert served.requests[bad] == 5
    assert list(journal.answers)[-1] == "q001"


def test_unavailable_says_how_far_it_came_and_goes_on(journal: Journal) -> None:
    asked = queries(6)
    state = {"left": 4}

    def answer(image: Image8) -> Any:
        state["left"] -= 1
        return first_pixel(image) if state["left"] >= 0 else Reply(500)

    with serve(answer) as served:
        with pytest.raises(
            Unavailable, match=r"answered 4 of 6 queries, and the last failure was HTTP 500; run the same command"
        ):
            service(served.url).ask(asked, journal)
        assert len(journal.answers) == 4
        state["left"] = 100
        assert service(served.url).ask(asked, Journal(journal.path, {})) == {}
    assert set(Journal(journal.path, {}).answers) == {q.name for q in asked}


def test_nobody_there(journal: Journal) -> None:
    with serve(first_pixel) as served:
        url = served.url
    with pytest.raises(Unavailable, match="answered 0 of 3 queries, and the last failure was a refused or dropped connection"):
        service(url).ask(queries(3), journal)
    assert not journal.path.exists()


def test_gives_up_when_nothing_answers_for_long(journal: Journal) -> None:
    with serve(lambda _: Reply(500)) as served, pytest.raises(Unavailable, match="answered 0 of 200 queries"):
        service(served.url, attempts=1).ask(queries(200), journal)
    assert len(served.requests) <= asking.MAX_CONSECUTIVE_FAILURES + 5


def test_mapping_with_a_token(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))  # must not replace the header
    content = {
        "request": {"image": "inputs.image", "extra": {"inputs": {"k": 5}}},
        "answer": {"labels": "*.label", "scores": "*.score"},
        "headers": {"Authorization": "Bearer ${MY_TOKEN}"},
        "image_format": "data-url",
    }
    (tmp_path / "m.json").write_text(json.dumps(content))
    said = [{"label": "a", "score": 0.25}, {"label": "b", "score": 0.75}]
    with serve(lambda _: said, image_of=lambda body: body["inputs"]["image"]) as served:
        asker = service(served.url, mapping=str(tmp_path / "m.json"))
        asker.ask(queries(1), journal)
    assert journal.answers["q000"] == Recorded(("b", "a"), (0.75, 0.25))
    assert served.headers[0]["authorization"] == "Bearer s3cret"
    assert served.headers[0]["content-type"] == "application/json"
    assert served.bodies[0]["inputs"]["k"] == 5
    assert served.bodies[0]["inputs"]["image"].startswith("data:image/png;base64,")
    assert "s3cret" not in journal.path.read_text() + repr(asker.binding) + repr(vars(asker)["_wire"])
    monkeypatch.setenv("MY_TOKEN", "another")
    assert service(served.url, mapping=str(tmp_path / "m.json")).binding == asker.binding
    assert service(served.url).binding != asker.binding


def test_binding_tells_addresses_apart_without_their_secrets() -> None:
    one, two = (Service(f"https://h.example:8443/p?key={key}").binding for key in ("s3cret", "x"))
    assert one["url"] == two["url"] == "https://h.example:8443/p"
    assert one["service"] != two["service"]
    assert "s3cret" not in repr(one)
    assert len(one["service"]) == len(sha256_hex(b""))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://h/", "url: 'ftp' is neither http nor https; write http://HOST/PATH"),
        ("file:///etc/passwd", "url: 'file' is neither http nor https"),
        ("localhost:8000/classify", "is neither http nor https"),
        ("/classify?s3cret", "url='/classify' is no address"),
        ("http://", "url='http://' is no address"),
        ("http://[::1/", "is no address"),
        ("http://h:99999999/", "is no address"),
        ("https://u:s3cret@h/", "url holds a user name or a password"),
        ("ftp://u:s3cret@h/", "neither http nor https"),
    ],
)
def test_wrong_addresses(url: str, message: str) -> None:
    with pytest.raises(TaggantError, match=message) as caught:
        Service(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout": 0}, "timeout=0 is not above 0; write seconds"),
        ({"timeout": float("nan")}, "timeout=nan is not above 0"),
        ({"attempts": 0}, "attempts=0 asks nothing; write 1 or more"),
        ({"concurrency": -1}, "concurrency=-1 asks nothing"),
        ({"rate": 0}, "rate=0 is not above 0; write requests a second"),
        ({"backoff": -1}, "backoff=-1 is negative"),
        ({"mapping": "none.json"}, "mapping=none.json cannot be read"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        Service("http://h/", **arguments)


def test_wrong_queries(journal: Journal) -> None:
    with serve(first_pixel) as served:
        with pytest.raises(TaggantError, match="two have the same name"):
            service(served.url).ask([*queries(1), *queries(1)], journal)
        with pytest.raises(TaggantError, match="cannot travel as PNG"):
            service(served.url).ask(queries(1, channels=4), journal)
    assert not served.requests


def test_an_untrusted_certificate(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def post(*_: object, **__: object) -> None:
        raise requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] at /?s3cret")

    monkeypatch.setattr(requests.Session, "post", post)
    with pytest.raises(TaggantError, match="an untrusted certificate; .*REQUESTS_CA_BUNDLE") as caught:
        service("https://h/").ask(queries(1), journal)
    assert "s3cret" not in str(caught.value)


def test_an_interrupted_run_ends_soon(journal: Journal) -> None:
    def interrupted(*_: int) -> None:
        raise KeyboardInterrupt

    replies = iter([{"labels": [1]}])
    with serve(lambda _: next(replies, None) or Reply(503, b"", {"Retry-After": "200"})) as served:
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            service(served.url).ask(queries(9), journal, progress=interrupted)
        assert time.monotonic() - started < 2


def test_commands_exit_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from taggant_lightning import cli
    from taggant_lightning.commands import keys

    def run(_: object) -> None:
        raise Unavailable("the service is down")

    monkeypatch.setattr(keys, "run", run)
    assert cli.main(["keys"]) == 1
    assert capsys.readouterr().err == "taggant keys: the service is down\n"
    assert "stays down, with 1" in cli.usage().replace("\n", " ")

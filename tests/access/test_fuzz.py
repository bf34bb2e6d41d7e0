"""Every reader of what a stranger sends, over generated inputs: one sentence or an answer, soon, and in bounded memory."""

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from taggant_lightning.access.answer import Query
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.access.predictions import answers_of, misses, read_predictions
from taggant_lightning.access.services.exchange import LARGEST
from taggant_lightning.access.services.forms import common_form, suggestion
from taggant_lightning.access.services.journal import Journal
from taggant_lightning.access.services.mapping import load_mapping
from taggant_lightning.access.services.pace import LONGEST_PAUSE, retry_after
from taggant_lightning.access.services.recorded import lack_of, recorded_answers
from taggant_lightning.access.services.service import Service
from taggant_lightning.access.services.wire import MalformedError, Wire
from taggant_lightning.errors import TaggantError
from tests.access.raw_server import raw_server

SOON = 5.0  # seconds
QUICK = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
WORDS = st.sampled_from(
    [
        "labels",
        "scores",
        "refused",
        "predictions",
        "outputs",
        "label",
        "score",
        "cat",
        "0",
        "3",
        "",
        "*",
        "a.b",
        "\x1b[2J",
        "\ud800",
        "\u202e",
    ]
)
TEXTS = WORDS | st.text(max_size=8)
NUMBERS = st.integers(-3, 12) | st.integers() | st.floats() | st.sampled_from([10**30, 10**400, 1e308, -0.0])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=6),
    max_leaves=20,
)
ANSWERS = VALUES | st.fixed_dictionaries(
    {},
    optional={name: st.lists(NUMBERS | TEXTS, max_size=12) | VALUES for name in ("labels", "scores", "refused", "predictions")},
)


def damaged(text: bytes, cut: int, piece: bytes) -> bytes:
    """Put a piece into a text, in place of what was there."""
    place = cut % (len(text) + 1)
    return text[:place] + piece + text[place + len(piece) :]


PIECES = st.sampled_from([b"", b'"', b"[", b"}", b"\\", b"\x00", b"\xff", b",", b"\n", b"9" * 200, b"\xef\xbb\xbf", b"\x1b[2J"])
BODIES = st.builds(
    lambda value, cut, piece: damaged(json.dumps(value).encode(), cut, piece), ANSWERS, st.integers(0, 999), PIECES
)


@contextmanager
def sentence(soon: float = SOON) -> Iterator[None]:
    """Let nothing pass but what is done with soon, and the one sentence of an error."""
    started, said = time.monotonic(), ""
    try:
        yield
    except (TaggantError, MalformedError) as error:
        said = str(error)
    assert said.isprintable(), repr(said)
    assert len(said) < 1_000
    assert time.monotonic() - started < soon


@given(body=BODIES | st.binary(max_size=60))
@QUICK
def test_answers(body: bytes) -> None:
    with sentence():
        recorded = Wire().read(body)
        table = LabelTable({"cat": 1, "0": 0, "x": None}, 3, "t.csv")
        for known in (table, LabelTable.same(3)):
            lack = lack_of(known)(recorded)
            assert lack is None or f"{lack.kind}{lack.detail}".isprintable()
        if recorded.labels is not None:
            translated = table.translate(recorded.labels)
            assert len(translated) == len(recorded.labels)
            named = [label for label in translated if label is not None]
            assert len(set(named)) == len(named)


@given(value=ANSWERS)
@QUICK
def test_forms_and_suggestions(value: Any) -> None:
    with sentence():
        common_form(value)
        assert (suggestion(value) or "").isprintable()


@given(value=VALUES, cut=st.integers(0, 999), piece=PIECES, suffix=st.sampled_from([".json", ".yaml"]))
@example(value={"request": {"extra": {"a": "\ud800"}}}, cut=0, piece=b"", suffix=".json")
@example(value={"headers": {"A": "${\x1b[2J}"}}, cut=0, piece=b"", suffix=".json")
@QUICK
def test_mappings(value: Any, cut: int, piece: bytes, suffix: str, tmp_path: Path) -> None:
    if isinstance(value, dict):
        value = {**value, "answer": value, "request": value} if cut % 2 else value
    path = tmp_path / f"m{suffix}"
    path.write_bytes(damaged(json.dumps(value).encode(), cut, piece))
    with sentence():
        load_mapping(path, {}).request(b"x")


@given(text=st.text(alphabet="abc:{}[]&*!#|>-? ,\n\t\"'0123456789.<~%@`", max_size=80))
@QUICK
def test_mappings_of_any_yaml(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with sentence():
        load_mapping(tmp_path / "m.yaml", {})


@given(value=VALUES | st.dictionaries(TEXTS, st.none() | st.integers(-1, 4)), cut=st.integers(0, 999), piece=PIECES)
@QUICK
def test_label_tables(value: Any, cut: int, piece: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(damaged(json.dumps(value).encode(), cut, piece))
    with sentence():
        LabelTable.load(path, 3)
    rows = "".join(f"{k},{v}\n" for k, v in value.items()) if isinstance(value, dict) else str(value)
    path = tmp_path / "t.csv"
    path.write_bytes(damaged(f"theirs,ours\n{rows}".encode(errors="replace"), cut, piece))
    with sentence():
        LabelTable.load(path, 3)


@given(
    rows=st.lists(st.tuples(st.sampled_from("0123"), ANSWERS | st.lists(NUMBERS | TEXTS), VALUES), max_size=4),
    cut=st.integers(0, 999),
    piece=PIECES,
    suffix=st.sampled_from([".jsonl", ".csv", ".parquet"]),
)
@QUICK
def test_predictions(rows: list[tuple[str, Any, Any]], cut: int, piece: bytes, suffix: str, tmp_path: Path) -> None:
    records = [{"query": q, "labels": labels, "scores": scores} for q, labels, scores in rows]
    text = "".join(json.dumps(record) + "\n" for record in records)
    if suffix == ".csv":
        cells = [",".join(f'"{json.dumps(v)}"' for v in record.values()) for record in records]
        text = "query,labels,scores\n" + "\n".join(cells)
    path = tmp_path / f"p{suffix}"
    path.write_bytes(damaged(text.encode(), cut, piece))
    with sentence():
        read = read_predictions(path)
        answers_of(read, list(read), LabelTable.same(3))
        assert sum(misses(read, list(read)).values()) == sum(row.labels is None for row in read.values())


@given(cut=st.integers(0, 10**6), piece=st.binary(min_size=1, max_size=6))
@settings(parent=QUICK, max_examples=4)
def test_damaged_parquet(cut: int, piece: bytes, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
    from pyarrow import parquet

    path = tmp_path / "p.parquet"
    parquet.write_table(pa.table({"query": ["0", "1"], "labels": [["1", "2"], None], "scores": [[0.5, 0.25], None]}), path)
    path.write_bytes(damaged(path.read_bytes(), cut, piece))
    with sentence(60):  # a process of its own starts for each
        answers_of(read_predictions(path), ["0", "1"], LabelTable.same(3))


HEADS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\x1b[2J\r\n",
        b"HTTP/1.1 429 No\r\nRetry-After: 0.01\r\n",
        b"HTTP/1.0 422 \r\n",
        b"HTTP/1.1 101 Switching\r\n",
        b"HTTP/1.1 204 No Content\r\n",
    ]
)


@given(
    replies=st.lists(st.tuples(HEADS, BODIES, st.integers(0, 10**6), PIECES), min_size=1, max_size=6),
    good=st.integers(0, 3),
)
@settings(parent=QUICK, max_examples=30)
def test_services(replies: list[tuple[bytes, bytes, int, bytes]], good: int, tmp_path_factory: Any, monkeypatch: Any) -> None:
    """Damaged responses among good ones: a verdict wherever one query was answered properly and still is."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    path = tmp_path_factory.mktemp("s") / "secret" / "answers.jsonl"
    queries = [Query(f"q{i}", np.full((3, 2, 2), i, dtype=np.uint8)) for i in range(3)]
    whole = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"labels": [1]}'
    made = [damaged(head + b"Content-Length: %d\r\n\r\n" % len(body) + body, cut, piece) for head, body, cut, piece in replies]
    made[good % len(made)] = whole
    waiting = iter(made * 20)
    table = LabelTable.same(3)
    with raw_server(lambda: [next(waiting, whole)]) as url, sentence():
        journal = Journal(path, {})
        service = Service(url, timeout=1, attempts=2, backoff=0, concurrency=1)
        failures = service.ask(queries, journal, lack=lack_of(table), count_missing=True)
        assert set(failures) | set(journal.answers) == {q.name for q in queries}
        answers = recorded_answers(Journal(path, {}), queries, table, unanswered=True)
        assert sum(a.labels is not None for a in answers) > 0


@given(header=st.text(alphabet="0123456789 MonJan,:+-GTZ", max_size=40) | st.text(max_size=20))
@example(header="Mon, 99999999999999999999 Jan 2026 00:00:00 GMT")
@example(header="Mon, 01 Jan 2026 00:00:00 +99999999")
@QUICK
def test_pauses_that_a_service_asks_for(header: str) -> None:
    assert 0 <= retry_after(header) <= LONGEST_PAUSE


HALF = LARGEST // 2


@pytest.mark.parametrize(
    "body",
    [
        b"[" * LARGEST,
        b"[]," * (LARGEST // 3),
        b'{"a":' * (LARGEST // 5),
        b"[" + b"{}," * (LARGEST // 3) + b"{}]",
        b'{"labels": [' + b'"",' * (LARGEST // 3) + b'""]}',
        b'{"labels": [' + b"0," * HALF + b"0]}",
        b'"' + b'\\"' * HALF,
        b'"a' * HALF,
        b"9" * LARGEST,
        b'{"labels": ["' + b"A" * LARGEST + b'"]}',
    ],
)
def test_memory_and_time_are_bounded_for_the_largest_answers(body: bytes) -> None:
    """The worst that fits into the bytes that are read; without bounds it becomes a gigabyte of objects."""
    body = body[: LARGEST + 20]
    tracemalloc.start()
    try:
        with sentence():
            Wire().read(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * LARGEST


@pytest.mark.parametrize("load", [lambda p: LabelTable.load(p, 3), load_mapping, read_predictions])
@pytest.mark.parametrize("name", [".", "/dev/zero", "/dev/full", "none"])
def test_what_is_no_file(load: Callable[[Path], Any], name: str, tmp_path: Path) -> None:
    with sentence(), pytest.raises(TaggantError):
        load(tmp_path / name)

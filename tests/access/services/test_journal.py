"""The journal: secret, append-only, each query once, whatever kills it."""

import errno
import json
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from taggant_lightning.access.answer import Answer, Query
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.access.services.failures import Failure
from taggant_lightning.access.services.journal import Journal, Recorded
from taggant_lightning.access.services.recorded import lack_of, misses, recorded_answers
from taggant_lightning.errors import TaggantError, Unavailable

BINDING = {"commitment": "ab", "url": "http://h/"}
CAT = Recorded(("cat", 3), (0.5, 0.25))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secret" / "answers.jsonl"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_secret_and_created_with_the_first_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    original = os.fdopen
    monkeypatch.setattr(
        os, "fdopen", lambda h, *a, **k: (modes.append(stat.S_IMODE(os.fstat(h).st_mode)), original(h, *a, **k))[1]
    )
    journal = Journal(path, BINDING)
    assert not path.parent.exists()
    before = os.umask(0)
    try:
        assert journal.append("a", CAT)
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert lines(path)[0] == {"journal": 1, "binding": BINDING}
    assert lines(path)[1] == {
        "query": "a", "labels": ["cat", 3], "scores": [0.5, 0.25], "refused": False, "classes": None, "status": None,
    }  # fmt: skip


def test_reading_again(path: Path) -> None:
    journal = Journal(path, BINDING)
    refusal = Recorded(None, refused=True, status=451)
    for name, recorded in (("a", CAT), ("b", refusal), ("c", Recorded((1, 0), (0.9, 0.1), classes=2))):
        journal.append(name, recorded)
    again = Journal(path, dict(reversed(BINDING.items())))
    assert again.answers == journal.answers
    assert again.answers["b"] == refusal


def test_the_first_answer_counts(path: Path) -> None:
    first, second = Journal(path, BINDING), Journal(path, BINDING)
    assert first.append("a", CAT)
    assert not first.append("a", Recorded(("dog",)))
    assert not second.append("a", Recorded(("dog",)))  # as another process that began at the same time
    assert second.answers == {"a": CAT}
    assert len(lines(path)) == 2


@pytest.mark.parametrize("tail", [b'{"query": "b", "lab', b"\x00\x00\n", b'{"query": "b"}\n', b"7\n"])
def test_a_line_cut_off_is_dropped(path: Path, tail: bytes) -> None:
    Journal(path, BINDING).append("a", CAT)
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    journal = Journal(path, BINDING)
    assert list(journal.answers) == ["a"]
    journal.append("b", CAT)
    assert [line.get("query") for line in lines(path)] == [None, "a", "b"]


def test_a_header_cut_off(path: Path) -> None:
    Journal(path, BINDING).append("a", CAT)
    path.write_bytes(path.read_bytes()[:20])
    journal = Journal(path, BINDING)
    assert journal.answers == {}
    journal.append("a", CAT)
    assert Journal(path, BINDING).answers == {"a": CAT}


@pytest.mark.parametrize(
    "damaged", [b"my notes\n", b"[1]\n", b'{"journal": 1, "binding": 7}\n', b'{"journal": 1, "binding": {}}\nx\ny\n']
)
def test_damage_elsewhere_is_told(path: Path, damaged: bytes) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(damaged)
    with pytest.raises(TaggantError, match=r"is damaged after \d+ bytes; restore it from a copy, or name a new --out folder"):
        Journal(path, {})
    assert path.read_bytes() == damaged


def test_another_binding(path: Path) -> None:
    Journal(path, BINDING).append("a", CAT)
    with pytest.raises(
        TaggantError, match="begun with another commitment and another plan; .*name a new --out folder"
    ) as caught:
        Journal(path, {**BINDING, "commitment": "cd", "plan": 1})
    assert "cd" not in str(caught.value)
    path.write_text('{"journal": 2, "binding": {}}\n')
    with pytest.raises(TaggantError, match="another version"):
        Journal(path, {})


def test_messages_of_the_folder_and_of_a_file_that_shrank(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    journal = Journal(path, BINDING)
    with pytest.raises(TaggantError, match="can be read by others"):
        journal.append("a", CAT)
    path.parent.chmod(0o700)
    journal.append("a", CAT)
    path.unlink()
    with pytest.raises(TaggantError, match="became shorter while it was in use"):
        journal.append("b", CAT)


def test_a_full_disk_leaves_whole_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path, BINDING)
    journal.append("a", CAT)
    whole = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full") as caught:
            journal.append("b", CAT)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == whole
    assert journal.append("b", CAT)
    assert list(Journal(path, BINDING).answers) == ["a", "b"]


def test_many_threads_and_two_journals(path: Path) -> None:
    journals = [Journal(path, BINDING), Journal(path, BINDING)]

    def write(journal: Journal) -> None:
        for i in range(20):
            journal.append(f"q{i}", CAT)

    threads = [threading.Thread(target=write, args=(journals[i % 2],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["query"] for line in lines(path)[1:]) == sorted(f"q{i}" for i in range(20))


def queries(count: int) -> list[Query]:
    return [Query(f"q{i}", np.full((3, 2, 2), i, np.uint8)) for i in range(count)]


def test_recorded_answers(path: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("theirs,ours\ncat,1\ndog,0\nowl,\n")
    table = LabelTable.load(tmp_path / "t.csv", 2)
    journal = Journal(path, {})
    journal.append("q1", Recorded(("owl", "cat"), (2.0, 1.0)))
    journal.append("q0", Recorded(None, refused=True))
    with pytest.raises(Unavailable, match="lacks 1 of 3 answers; run the same command again"):
        recorded_answers(journal, queries(3), table)
    answers = recorded_answers(journal, queries(3), table, unanswered=True)
    assert answers == [Answer(0, None), Answer(1, (None, 1), (2.0, 1.0)), Answer(2, None)]
    journal.append("q2", Recorded(("bat", None, "cat", "cat")))  # a journal of an older run may hold any of these
    again = Journal(path, {})
    assert recorded_answers(again, queries(3), table)[2] == Answer(2, (None, None, 1, None))
    assert misses(again, queries(5), table, {"q3": Failure("a time-out")}) == {
        "a refusal": 1, "a time-out": 1, "not asked": 1,
    }  # fmt: skip


def test_recorded_answers_of_numbered_classes(path: Path) -> None:
    journal = Journal(path, {})
    journal.append("q0", Recorded((2, 0, 1), (0.5, 0.3, 0.2), classes=3))
    assert recorded_answers(journal, queries(1), LabelTable.same(3)) == [Answer(0, (2, 0, 1), (0.5, 0.3, 0.2))]
    assert recorded_answers(journal, queries(1), LabelTable.same(10)) == [Answer(0, None)]
    journal.append("q1", Recorded((7, 1)))
    assert recorded_answers(journal, queries(2), LabelTable.same(3))[1] == Answer(1, (None, 1))
    assert misses(journal, queries(2), LabelTable.same(10), {}) == {"another number of scores than classes": 1}


@pytest.mark.parametrize(
    ("recorded", "kind"),
    [
        (Recorded(("cat", "none-1f")), None),
        (Recorded(("owl",)), None),  # listed as nothing
        (Recorded((1, 0), classes=2), "labels that nobody knows"),
        (Recorded(("none-1f", None)), "labels that nobody knows"),
        (Recorded(()), "an answer that names no label"),
        (Recorded(None), "a score that is no number"),
        (Recorded(None, refused=True), "a refusal"),
        (Recorded(None, refused=True, status=422), "HTTP 422"),
    ],
)
def test_what_is_a_proper_answer(recorded: Recorded, kind: str | None) -> None:
    lack = lack_of(LabelTable({"cat": 1, "dog": 0, "owl": None}, 2, "t.csv"))(recorded)
    assert (lack and lack.kind) == kind

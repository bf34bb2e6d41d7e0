"""The journal: one answer a query, a cut-off line, what it belongs to, several threads."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taggant_lightning.access.journal import Journal, Reply
from taggant_lightning.errors import TaggantError

BINDING = {"commitment": "ab", "url": "http://x/"}


def journal(tmp_path: Path, **more: str) -> Journal:
    return Journal(tmp_path / "secret" / "answers.jsonl", {**BINDING, **more})


def test_answers_are_kept_and_counted_once(tmp_path: Path) -> None:
    one = journal(tmp_path)
    assert not one.path.exists()
    one.append("a", Reply([2, "cat"], [0.5, 0.25]))
    one.append("a", Reply([1]))
    one.append("b", Reply(None, refused=True))
    assert stat.S_IMODE(one.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(one.path.parent.stat().st_mode) == 0o700
    assert journal(tmp_path).replies == one.replies == {"a": Reply([2, "cat"], [0.5, 0.25]), "b": Reply(None, refused=True)}


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    one = journal(tmp_path)
    one.append("a", Reply([1]))
    whole = one.path.read_bytes()
    one.path.write_bytes(whole + b'{"labels":[1],"qu')
    again = journal(tmp_path)
    assert list(again.replies) == ["a"]
    assert again.path.read_bytes() == whole
    again.append("b", Reply([0]))
    assert list(journal(tmp_path).replies) == ["a", "b"]


def test_threads(tmp_path: Path) -> None:
    one = journal(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: one.append(f"q{n % 40}", Reply([n])), range(200)))
    assert len(one.path.read_bytes().splitlines()) == 41
    assert journal(tmp_path).replies == one.replies


def test_messages(tmp_path: Path) -> None:
    one = journal(tmp_path)
    one.append("a", Reply([1]))
    with pytest.raises(TaggantError, match="was begun with url='http://x/', and this run has 'http://y/'; name a new folder"):
        journal(tmp_path, url="http://y/")
    for damage in (b"[]\n[]\n", b"{\n", b'{"commitment":"ab","url":"http://x/"}\n{"query":"a","shape":1}\n'):
        one.path.write_bytes(damage)
        with pytest.raises(TaggantError, match="is damaged"):
            journal(tmp_path)

"""JSON and YAML within bounds."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from taggant_lightning.outside.documents import parse_json, read_bounded
from taggant_lightning.outside.fields import anything, each, fields, number, or_null, ordinals, text, whole
from taggant_lightning.outside.yaml_documents import parse_yaml


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("NaN", "no JSON"), ("1e999", "beyond"), ("9" * 50, "digits"), ("[" * 100_000, "too deeply"),
        ("[" * 40 + "]" * 40, "deep"), ('{"a":1,"a":2}', "twice"), ("[" + "[]," * 10**6 + "1]", "too many values"),
        (b"\xff", "decode"),
    ],
)  # fmt: skip
def test_json_that_is_refused(content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(content)


def test_json_that_is_read() -> None:
    value = {"a": [1, -2.5, None, "é\ud800"], "b": {"c": True}}
    assert parse_json(json.dumps(value)) == value
    assert parse_json("[" * 32 + "]" * 32)
    assert parse_json("[NaN, 1e999]", endless=True)[1] == float("inf")


def test_only_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)
    assert read_bounded(tmp_path / "a", 10) == b"x" * 10
    with pytest.raises(ValueError, match="larger"):
        read_bounded(tmp_path / "a", 9)
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="no file"):
            read_bounded(path)
    with pytest.raises(OSError, match="directory"):
        read_bounded(tmp_path)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    "content",
    [BOMB, "a: 1\na: 2", "a: 2026-99-99", "a: " + "9" * 5000, "&a [*a]", "[" * 40_000, "- " * 5000, "a: !!timestamp q", "\x00",
     "a: !!python/object/apply:os.system [true]", "- a\n" * 100_000],
)  # fmt: skip
def test_yaml_that_is_refused_soon(content: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=r".+"):
        parse_yaml(content)
    assert time.process_time() - began < 5


def test_yaml_that_is_read() -> None:
    assert parse_yaml("a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  e: [1, 2.5, null]\n") == {
        "a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": [1, 2.5, None]},
    }  # fmt: skip


RECORD = fields(
    {"k": whole(1, 5)}, {"p": or_null(number(0, 1)), "r": each(ordinals(3, 2), 2), "t": text(3)}, more=anything(5, 2)
)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "object"), ({}, "k is missing"), ({"k": True}, "k=True"), ({"k": 6}, "1..5"), ({"k": 1.0}, "k=1.0"),
        ({"k": 1, "p": float("nan")}, "p=nan"), ({"k": 1, "p": "x"}, "p='x'"), ({"k": 1, "r": [[0, 3]]}, r"r\[0\]"),
        ({"k": 1, "r": [[0]] * 3}, "members"), ({"k": 1, "t": "long"}, "t="), ({"k": 1, "m": [[[[1]]]]}, "deeply"),
        ({"k": 1, "m": [1] * 9}, "more than 5"), ({"k": 1, "\x1b" * 9: [[[1]]]}, r"\\x1b"),
    ],
)  # fmt: skip
def test_entries_that_are_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RECORD(value, "")


def test_entries_that_are_allowed() -> None:
    RECORD({"k": 5, "p": None, "r": [[2, None], []], "t": "abc", "m": {"x": [1, "y"]}}, "")

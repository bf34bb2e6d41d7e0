"""Atomic writes and secret files."""

import os
import stat
from pathlib import Path

import pytest

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json, read_json, secret_directory, write_atomic, write_secret


def test_secret_from_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = os.fdopen

    def watching(handle: int, *args: object) -> object:
        seen.append(stat.S_IMODE(os.fstat(handle).st_mode))
        return original(handle, *args)

    monkeypatch.setattr(os, "fdopen", watching)
    write_secret(tmp_path / "s" / "a", b"x")
    assert seen == [0o600]
    assert stat.S_IMODE((tmp_path / "s" / "a").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700


def test_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_messages(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TaggantError, match="is a file; name a folder"):
        secret_directory(tmp_path / "file")
    with pytest.raises(TaggantError, match="keys: .* does not exist"):
        read_json(tmp_path / "none.json", what="keys")


def test_canonical_json_is_one_byte_string() -> None:
    assert canonical_json({"b": 1, "a": "é"}) == b'{"a":"\\u00e9","b":1}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "a name comes twice"),
        ('{"a": NaN}', "NaN is no JSON"),
        ("[" * 100_000, "is damaged"),
        ('{"a": ' + "9" * 5000 + "}", "is damaged"),
    ],
)
def test_json_that_readers_would_take_differently(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(TaggantError, match=message):
        read_json(tmp_path / "x.json", what="claim")
    with pytest.raises(TaggantError, match="cannot be read"):
        read_json(tmp_path, what="claim")

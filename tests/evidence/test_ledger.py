"""The ledger: its chain, several writers, a kill within an entry, and every way of bending it."""

import json
import stat
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import FILE, Ledger, revealed, uses

COMMITMENT = "ab" * 32


def filled(folder: Path) -> Ledger:
    ledger = Ledger(folder, COMMITMENT)
    first = ledger.append("use", suspect="bob", batches=[0], access="url")
    ledger.append("use", suspect="carol", batches=[0, 1], access="onnx")
    ledger.append("result", use=first["number"], log10_p=-4.5, detection="cd")
    ledger.append("reveal", batch=0)
    ledger.append("reveal", batch=0)
    return ledger


def test_uses_and_reveals(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    entries = ledger.entries()
    found = [(u.number, u.suspect, u.batches, u.log10_p, u.finished) for u in uses(entries)]
    assert found == [(0, "bob", (0,), -4.5, True), (1, "carol", (0, 1), 0.0, False)]
    assert revealed(entries) == {0: entries[3]["time"]}
    assert entries[0]["previous"] == COMMITMENT
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert Ledger(tmp_path / "none", COMMITMENT).entries() == []


def _append(folder: str) -> None:
    for _ in range(20):
        Ledger(folder, COMMITMENT).append("curve", run="r")


def test_several_writers(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3) as pool:
        list(pool.map(_append, [str(tmp_path)] * 3))
    assert [e["number"] for e in Ledger(tmp_path, COMMITMENT).entries()] == list(range(60))


def test_a_kill_within_an_entry_leaves_no_entry(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + b'{"number": 5, "ki')
    assert len(ledger.entries()) == 5
    assert ledger.append("curve", run="r")["number"] == 5
    assert len(ledger.entries()) == 6
    assert ledger.path.read_bytes().startswith(whole)


@pytest.mark.parametrize("how", ["changed", "removed", "first", "reordered", "garbled", "other", "rehashed"])
def test_what_is_bent_shows(tmp_path: Path, how: str) -> None:
    ledger = filled(tmp_path)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    if how == "changed":
        lines[2] = lines[2].replace(b"-4.5", b"-9.5")
    elif how == "rehashed":  # by somebody who hashes the changed entry again, and not those after it
        from taggant_lightning.files import canonical_json, sha256_hex

        body = {n: v for n, v in json.loads(lines[1]).items() if n != "hash"} | {"suspect": "nobody"}
        lines[1] = canonical_json(body | {"hash": sha256_hex(canonical_json(body))}) + b"\n"
    elif how == "removed":
        del lines[1]
    elif how == "first":
        del lines[0]
    elif how == "reordered":
        lines[0], lines[1] = lines[1], lines[0]
    elif how == "garbled":
        lines[3] = b"[]\n"
    ledger.path.write_bytes(b"".join(lines))
    commitment = "00" * 32 if how == "other" else COMMITMENT
    with pytest.raises(TaggantError, match="was changed, or one before it is missing, or it belongs to other keys"):
        Ledger(tmp_path, commitment).entries()
    with pytest.raises(TaggantError, match="restore the ledger from a copy"):
        Ledger(tmp_path, commitment).append("curve", run="r")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(TaggantError, match="cannot be written .* their folder must be writable"):
        Ledger(tmp_path / "none", COMMITMENT).append("curve", run="r")

"""Promise and beacon: nothing that keys depend on is left to choose once the public value is known."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taggant_lightning.cli import main
from taggant_lightning.commitment.beacon import promise_of
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger
from taggant_lightning.evidence.moments import date
from taggant_lightning.methods.taggants.keys import KeySet, redraw
from taggant_lightning.methods.taggants.reveal import Revealed, read_reveals, reveal
from taggant_lightning.verdict.claims import verify_claim
from taggant_lightning.verdict.findings import Evidence
from taggant_lightning.verdict.verdict import judge

SECRET = bytes(range(16))
SOURCE = "round 4242 of the beacon, 2026-12-01T12:00Z"


def drawn(value: str = "ab12", **more: Any) -> KeySet:
    arguments = {"num_keys": 6, "num_classes": 5, "shape": (1, 4, 4), "batches": [2, 4], "secret": SECRET}
    source = more.pop("source", SOURCE)
    return KeySet.draw(**{**arguments, **more}, beacon=(value, source))


def test_keys_follow_from_secret_and_value() -> None:
    keys = drawn()
    assert np.array_equal(keys.images, drawn().images)
    assert drawn(" AB 12\n").commitment == keys.commitment  # another spelling is not another chance
    other = drawn("ab13")
    assert not np.array_equal(other.images, keys.images)
    assert promise_of(other.header) == promise_of(keys.header)
    assert (
        drawn(batches=[6]).images.tobytes()
        != KeySet.draw(num_keys=6, num_classes=5, shape=(1, 4, 4), secret=SECRET).images.tobytes()
    )


@pytest.mark.parametrize(
    "more", [{"secret": bytes(16)}, {"statement": "x"}, {"top_k": 2}, {"grid": 2}, {"batches": [3, 3]}, {"test": "rank_score"}]
)
def test_everything_else_is_promised(more: dict[str, Any]) -> None:
    assert promise_of(drawn(**more).header) != promise_of(drawn().header)


def test_the_promise_from_the_document_alone() -> None:
    def field(*parts: bytes) -> bytes:
        return b"".join(len(p).to_bytes(8, "big") + p for p in parts)

    first = drawn(version=1)
    header = json.loads(json.dumps(first.header))
    seeds = []
    for batch in range(2):
        message = field(b"taggant-lightning/derivation/v1", b"seed", b"", SECRET, batch.to_bytes(8, "big"))
        seed = hashlib.shake_256(message).digest(32)
        seeds.append(hashlib.sha256(field(b"taggant-lightning/promise/v1/seed", batch.to_bytes(8, "big"), seed)).hexdigest())
    assert header["beacon"]["seeds"] == seeds
    for keys in (first, drawn()):  # v2 has the root of the seeds in the header itself
        header = json.loads(json.dumps(keys.header))
        del header["beacon"]["value"]
        canonical = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        assert promise_of(keys.header) == hashlib.sha256(field(b"taggant-lightning/promise/v1", canonical)).hexdigest()


@pytest.mark.parametrize("version", [1, 2])
def test_saved_redrawn_revealed(tmp_path: Path, version: int) -> None:
    keys = drawn(version=version)
    keys.save(tmp_path / "k")
    assert KeySet.load(tmp_path / "k").commitment == keys.commitment
    assert redraw(keys.header, SECRET).commitment == keys.commitment
    stored = reveal(keys, 0, Ledger(tmp_path / "k", keys.commitment))
    path = tmp_path / "r.json"
    path.write_text(json.dumps(stored))
    assert read_reveals([path]).labels == {i: int(keys.labels[i]) for i in range(2)}
    path.write_text(json.dumps({**stored, "seed": "00" * 32}))
    with pytest.raises(TaggantError, match="the batch's se.* does not (follow from the promised seed|lead to the seeds)"):
        read_reveals([path])
    forged = json.loads(json.dumps(keys.header))
    if version == 1:
        forged["beacon"]["seeds"][0] = "00" * 32
    else:
        forged["seeds"] = "00" * 32
    with pytest.raises(TaggantError, match="the header's seeds do not follow from the secret"):
        KeySet(keys.images, keys.labels, forged, SECRET).check()


def test_a_promise_of_v1_is_fulfilled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Promises are kept for months: one that an earlier version made draws the keys that it promised."""
    secret = bytes.fromhex("5f0c9be1a7d24e8393b06c1d7ea2f458")
    header = drawn("0", secret=secret, version=1).header
    (tmp_path / "p").mkdir(mode=0o700)
    (tmp_path / "p" / "secret.hex").write_text(secret.hex())
    (tmp_path / "p" / "promised.json").write_text(json.dumps({"header": header, "promise": promise_of(header)}))
    assert main(["keys", "fulfil", str(tmp_path / "p"), "--beacon", "abc", "--out", str(tmp_path / "k")]) == 0
    keys = KeySet.load(tmp_path / "k")
    assert promise_of(keys.header) == promise_of(header)
    assert keys.commitment == drawn("abc", secret=secret, version=1).commitment
    assert main(["keys", "verify", str(tmp_path / "k")]) == 0


def test_in_a_claim() -> None:
    keys = drawn()
    claim = judge(np.ones(6, dtype=np.int64), keys)
    dates = {name: date(text, name) for name, text in
             (("promised", "2026-11-01"), ("beacon", "2026-12-01"), ("committed", "2026-12-02"))}  # fmt: skip

    def choice(evidence: Evidence, revealed: Revealed) -> tuple[bool | None, str]:
        found = next(f for f in verify_claim(claim, revealed, evidence).findings if f.name == "choice of the secret")
        return found.holds, found.sentence

    revealed = Revealed.of(keys)
    holds, said = choice(Evidence(**dates), revealed)
    assert holds is True
    assert promise_of(keys.header) in said
    words = verify_claim(claim, revealed, Evidence(**dates)).words
    assert f"ab12 is the value of {SOURCE}" in words
    assert any("this promise was the claimant's only one" in word for word in words)
    assert choice(Evidence(**{**dates, "promised": dates["committed"]}), revealed)[0] is False
    assert choice(Evidence(**{**dates, "committed": dates["promised"]}), revealed)[0] is False  # before the value was known
    assert choice(Evidence(), revealed)[0] is None
    without = replace(revealed, header={n: v for n, v in keys.header.items() if n != "beacon"})
    holds, said = choice(Evidence(), without)
    assert holds is True
    assert "nothing shows that secrets were not tried" in said


@pytest.mark.parametrize(
    ("value", "source", "message"),
    [("", SOURCE, "beacon='' must be letters and digits"), ("a-b", SOURCE, "='a-b'"), ("ab", " ", "beacon-source is empty")],
)
def test_wrong_beacons(value: str, source: str, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        drawn(value, source=source)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawing = ["--num-keys", "4", "--num-classes", "5", "--shape", "3,8,8", "--batch-size", "2", "--test", "rank_score"]
    promised = str(tmp_path / "promised")
    assert main(["keys", "promise", "--out", promised, *drawing, "--beacon-source", SOURCE]) == 0
    promise = capsys.readouterr().out.splitlines()[-1].split()[1]
    assert main(["keys", "promise", "--out", promised, *drawing, "--beacon-source", SOURCE]) == 2
    assert "holds a promise already" in capsys.readouterr().err
    assert main(["keys", "fulfil", promised, "--beacon", "C0FFEE", "--out", str(tmp_path / "keys")]) == 0
    keys = KeySet.load(tmp_path / "keys")
    assert promise_of(keys.header) == promise
    assert keys.header["beacon"]["value"] == "c0ffee"
    assert main(["keys", "fulfil", promised, "--beacon", "other", "--out", str(tmp_path / "again")]) == 2
    assert "was fulfilled with 'c0ffee', and a promise has one value" in capsys.readouterr().err
    words = ["keys", "verify", "--secret-file", f"{promised}/secret.hex", "--header", str(tmp_path / "keys" / "keyset.json")]
    assert main([*words, "--commitment", keys.commitment]) == 0
    (tmp_path / "promised" / "secret.hex").write_text("5e" * 16 + "ab12cd34ef567890" * 2)
    capsys.readouterr()
    assert main(["keys", "fulfil", promised, "--beacon", "c0ffee", "--out", str(tmp_path / "other")]) == 2
    assert "are not those of the promise" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()

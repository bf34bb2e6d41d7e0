"""A claim from promise to verdict by commands alone, as owner and third party run them, and what the third party refuses."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from taggant_lightning.cli import main
from taggant_lightning.methods.taggants.keys import KeySet
from tests.manifests import whole_manifest

DATES = {
    "promised": "2026-01-01",
    "beacon": "2026-01-08",
    "committed": "2026-01-09",
    "released": "2026-02-01",
    "first-seen": "2026-06-01",
}


@pytest.fixture
def handed(tmp_path: Path) -> Path:
    """Play the owner; return the folder that she hands over."""
    drawing = ["--num-keys", "12", "--num-classes", "10", "--shape", "3,8,8", "--batch-size", "6"]
    assert main(["keys", "promise", "--out", str(tmp_path / "p"), *drawing, "--beacon-source", "round 1 of the beacon"]) == 0
    assert main(["keys", "fulfil", str(tmp_path / "p"), "--beacon", "abc123", "--out", str(tmp_path / "keys")]) == 0
    keys = KeySet.load(tmp_path / "keys")
    with (tmp_path / "answers.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "labels"])
        writer.writerows([i, (int(label) + (i > 9)) % 10] for i, label in enumerate(keys.labels))
    detect = ["detect", "--keys", str(tmp_path / "keys"), "--predictions", str(tmp_path / "answers.csv")]
    assert main([*detect, "--suspect", "bob", "--out", str(tmp_path / "run")]) == 0
    folder = tmp_path / "handed"
    folder.mkdir()
    for batch in ("0", "1"):
        words = ["report", str(tmp_path / "run"), "--keys", str(tmp_path / "keys"), "--reveal", batch]
        assert main([*words, "--out", str(tmp_path / f"page{batch}")]) == 0
        (tmp_path / f"page{batch}" / f"reveal-{batch}.json").rename(folder / f"reveal-{batch}.json")
    (folder / "claim.json").write_bytes((tmp_path / "run" / "detection.json").read_bytes())
    (folder / "answers.json").write_bytes((tmp_path / "run" / "secret" / "detection.secret.json").read_bytes())
    (folder / "ledger.jsonl").write_bytes((tmp_path / "keys" / "ledger.jsonl").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(whole_manifest(keys)))
    return folder


def verify(folder: Path, *more: str, reveals: tuple[int, ...] = (0, 1), **dates: str | None) -> int:
    words = ["keys", "verify", *(w for batch in reveals for w in ("--reveal", str(folder / f"reveal-{batch}.json")))]
    words += ["--claim", str(folder / "claim.json"), "--answers", str(folder / "answers.json")]
    words += ["--ledger", str(folder / "ledger.jsonl"), "--manifest", str(folder / "manifest.json")]
    named = {**DATES, **{name.replace("_", "-"): value for name, value in dates.items()}}
    return main([*words, *(w for name, value in named.items() if value for w in (f"--{name}", value)), *more])


def test_an_honest_claim(handed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(handed) == 3
    out = capsys.readouterr().out
    assert "verified: 12 keys follow from the revealed secrets and lead to the commitment" in out
    lines = out.splitlines()
    place = lines.index("checked:")
    assert lines[0].startswith("nothing speaks against the claim, but its answers are the claimant's word: corrected")
    assert "log10 p = -7.96" in lines[0]  # two ways to choose batches
    assert "rests on the claimant's word:" in lines[place:]
    assert (
        "- that somebody whom the record does not name collected the answers from 'bob', on a day that it does not say" in lines
    )
    assert "verifies" not in out
    assert "FAILS" not in out
    assert "unknown" not in out
    head = json.loads((handed / "ledger.jsonl").read_text().splitlines()[1])["hash"]
    assert verify(handed, "--head", head) == 3
    assert "- that the ledger holds every use and every look after the published head" in capsys.readouterr().out
    manifest = json.loads((handed / "manifest.json").read_text())
    (handed / "manifest.json").write_text(json.dumps({**manifest, "ledger_head": "ab" * 32}))
    assert verify(handed) == 2
    assert "does not hold the published head abab" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        ({"committed": "2026-02-02"}, "commitment before release"),
        ({"committed": None}, "no date of the commitment is given"),
        ({"promised": "2026-01-09"}, "choice of the secret .*too late"),
        ({"promised": "2026-01-08"}, "the same day; give times"),
        ({"first_seen": "2026-01-31"}, "release before model"),
        ({"first_seen": None}, "no date of the model is given"),
        ({"released": "soon"}, "released='soon' is no date"),
    ],
)
def test_dates(handed: Path, dates: dict[str, str | None], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    import re

    capsys.readouterr()
    assert verify(handed, **dates) == 2
    assert re.search(message, capsys.readouterr().err)


def answers_file(folder: Path, shift: int) -> str:
    """Answers that a verifier collected herself: the key's label, or, shifted, another class."""
    keys = KeySet.load(folder.parent / "keys")
    rows = "".join(f"{i},{(int(label) + shift) % 10}\n" for i, label in enumerate(keys.labels))
    (folder / "own.csv").write_text(f"query,labels\n{rows}")
    return str(folder / "own.csv")


def test_asking_again(handed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fabricated answers end where the verifier asks; a true claim then verifies, with the weaker of both numbers."""
    assert verify(handed, "--ask", "--predictions", answers_file(handed, 0)) == 0
    out = capsys.readouterr().out
    assert out.startswith("the claim verifies, the model asked again: corrected log10 p = -7.96")
    assert "asked again the model hits 12 of 12 keys" in out
    assert "2 answers differ from those that the claimant shows, and the weaker number counts" in out
    assert "- that these are the model's answers" not in out
    assert verify(handed, "--ask", "--predictions", answers_file(handed, 3)) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("the claim FAILS: significance")
    assert "asked again the model hits 0 of 12 keys" in printed.out
    for more, message in (
        (["--predictions", "x"], "--predictions says how to ask the model again; add --ask"),
        (["--ask"], "--ask: none of them is given; write exactly one of --onnx"),
        (["--ask", "--url", "http://x", "--onnx", "x"], "--onnx and --url is given"),
        (["--ask", "--onnx", "none.onnx"], "onnx=none.onnx is no file"),
        (["--ask", "--onnx", "x", "--labels", answers_file(handed, 0)], "is no label table"),
    ):
        assert verify(handed, *more) == 2
        assert message in capsys.readouterr().err


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("claim.json", {"log10_p": "x"}, "is damaged: log10_p="),
        ("claim.json", {"provenance": None}, "is damaged: provenance="),
        ("claim.json", {"details": {"batches": [0.0]}}, "is damaged: details.batches.*=0.0 is not a whole number"),
        ("claim.json", {"p_value": 1e-99}, "record \\("),
        ("answers.json", {"answers": [5]}, "answers="),
        ("answers.json", {"answers": [[1.5]]}, "holds no rankings"),
        ("answers.json", {"answers": [[10**30]]}, "holds no rankings .answers"),
        ("answers.json", {"answers": None}, "holds no rankings"),
        ("manifest.json", {"commitment": None}, "does not name the commitment"),
        ("reveal-0.json", {"batch": -1}, "batch=-1 is not a whole number"),
        ("reveal-0.json", {"keys": []}, "keys=.* is not a list"),
        ("reveal-0.json", {"header": 5}, "header=5 is not an object"),
    ],
)
def test_what_was_changed(
    handed: Path, name: str, values: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    change(handed / name, **values)
    capsys.readouterr()
    assert verify(handed) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_header_that_was_never_committed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawing = ["--num-keys", "2", "--num-classes", "5", "--shape", "1,4,4"]
    assert main(["keys", "new", "--out", str(tmp_path / "keys"), *drawing]) == 0
    keys = KeySet.load(tmp_path / "keys")
    (tmp_path / "header.json").write_text(json.dumps({**keys.header, "seeds": "00" * 32}))
    words = ["keys", "verify", "--secret-file", str(tmp_path / "keys" / "secret.hex"), "--commitment", keys.commitment]
    assert main([*words, "--header", str(tmp_path / "header.json")]) == 2
    assert "its seeds do not follow from the secret" in capsys.readouterr().err
    assert main(words) == 0


def test_what_is_missing(handed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for code, message in (
        (verify(handed, reveals=(0,)), "the keys of the claim's batches are not revealed"),
        (verify(handed, "--head", "ab" * 32), "does not hold the published head"),
        (verify(handed, "--level", "0"), "level=0.0 must lie in"),
        (verify(handed, "--level", "1e-9"), "significance"),
    ):
        assert code == 2
        assert message
    error = capsys.readouterr().err
    for message in ("are not revealed", "does not hold the published head", "level=0.0 must lie in", "significance ("):
        assert message in error

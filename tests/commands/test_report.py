"""`taggant report`: public by default, reveals when told to, and each wrong input with its sentence and nothing written."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taggant_lightning.access.answer import Answer
from taggant_lightning.cli import main
from taggant_lightning.commitment.seeds import batch_seed
from taggant_lightning.evidence.ledger import Ledger, revealed
from taggant_lightning.methods.taggants.key_images import batch_secret
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.methods.taggants.reveal import read_reveals
from taggant_lightning.verdict.verdict import incomplete_answers, judge, looked_at, write_verdict
from tests.manifests import whole_manifest

CLASSES = 29


def owner(root: Path, test: str = "binomial_top_k") -> KeySet:
    """Draw twelve keys in two batches and ask a Bob, an innocent, and one who broke off."""
    keys = KeySet.draw(num_keys=12, num_classes=CLASSES, shape=(3, 6, 6), grid=6, test=test, batches=[6, 6], statement="birds")
    keys.save(root / "keys")
    ask(root, keys, "bob", keys.labels.tolist()[:9] + [(label + 1) % CLASSES for label in keys.labels.tolist()[9:]])
    ask(root, keys, "innocent", [(label + 1) % CLASSES for label in keys.labels.tolist()])
    Ledger(root / "keys", keys.commitment).append("use", suspect="secretive", batches=[0, 1], access="url")
    return keys


def ask(root: Path, keys: KeySet, suspect: str, first: list[int], batches: list[int] | None = None) -> None:
    """Enter a use and write its records; the model's first answers are given, the others follow in order."""
    answers = [Answer(i, ((f, *(c for c in range(CLASSES) if c != f)))) for i, f in enumerate(first)]
    ledger, batches = Ledger(root / "keys", keys.commitment), [0, 1] if batches is None else batches
    entry = ledger.append("use", suspect=suspect, batches=batches, access="url")
    origin = {"suspect": suspect, "access": "url", "first_seen": "2027-03-01"}
    origin |= {"ledger": {"entry": entry["number"], "head": entry["hash"]}}
    answers, ranks = looked_at(answers, keys, batches)
    record = judge(ranks, keys, origin, batches=batches, incomplete=incomplete_answers(answers, keys))
    write_verdict(root / suspect, record, ranks, ledger, answers)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("owner")
    keys = owner(root)
    (root / "manifest.json").write_text(json.dumps(whole_manifest(keys)))
    audit = {"bound": 8, "max_step": 8, "num_changed": 98765, "visibility": {"psnr_mean": 36.5, "ssim_mean": None}}
    (root / "audit.json").write_text(json.dumps(audit))
    controls = dict.fromkeys(("top-k", "top-1", "rank score", "sequential"), 0.4)
    mutants = {"ties for the claimant": {"test": "top-k", "mutant": 5e-5}}
    (root / "calibration.json").write_text(json.dumps({"controls": {"real": {"resnet18": controls}}, "mutants": mutants}))
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "owner"))


def everything(root: Path) -> list[str]:
    return [
        "report", str(root / "bob" / "detection.json"), str(root / "innocent"), "--keys", str(root / "keys"),
        "--manifest", str(root / "manifest.json"), "--committed", "2026-01-24", "--released", "2026-02-01",
        "--timestamp", "https://list.example.org/42", "--audit", str(root / "audit.json"),
        "--calibration", str(root / "calibration.json"),
    ]  # fmt: skip


def secrets_in(folder: Path, keys: KeySet, batch: int | None = None) -> set[str]:
    """Search a folder for secrets of the keys, or of one batch: as bytes, in base64, within pictures, as numbers in a row."""
    numbers = keys.numbers(None if batch is None else [batch])
    found, salts = set(), keys.salts()
    of_batches = [batch_secret(keys.header, keys.secret, b) for b in (range(len(keys.batches)) if batch is None else [batch])]
    seeds = [batch_seed(keys.secret, b) for b in (range(len(keys.batches)) if batch is None else [batch])]
    raw = {"secret": [keys.secret, *of_batches, *seeds], "salt": [salts[n] for n in numbers], "image": []}
    for number in numbers:
        image = keys.images[number]
        raw["image"] += [image.tobytes(), np.ascontiguousarray(image.transpose(1, 2, 0)).tobytes()]
    labels = [str(keys.labels[n]) for n in numbers]
    rows = [labels, [word for n, label in zip(numbers, labels, strict=True) for word in (str(n), label)]]
    patterns = [re.compile(rb"(?<![0-9A-Za-z.])" + rb"[^0-9A-Za-z.]+".join(map(str.encode, row))) for row in rows]
    for content in contents(folder):
        for what, needles in raw.items():
            forms = [form for n in needles for form in (n, n.hex().encode(), base64.b64encode(n))]
            found |= {what for form in forms if form in content}
        found |= {"labels" for pattern in patterns if pattern.search(content)}
        if (picture := decoded(content)) is not None:
            found |= {"image" for n in numbers if np.array_equal(picture, keys.images[n].transpose(1, 2, 0))}
    return found


def contents(folder: Path) -> Iterator[bytes]:
    """Yield every file, and whatever it holds in base64."""
    for path in folder.rglob("*"):
        data = path.read_bytes()
        yield data
        for packed in re.findall(rb"base64,([A-Za-z0-9+/=]+)", data):
            yield base64.b64decode(packed)


def decoded(data: bytes) -> np.ndarray | None:
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except OSError:
        return None


def test_the_page_is_public_whole_and_the_same_each_time(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = KeySet.load(root / "keys")
    before = (root / "keys" / "ledger.jsonl").read_bytes()
    for out in ("a", "b"):
        assert main([*everything(root), "--out", str(tmp_path / out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"taggant: page={tmp_path / 'b' / 'report.html'}"
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == sorted(
        ["report.html", *(f"{kind}-{n}.{end}" for kind in ("null", "fresh") for n in (1, 2) for end in ("svg", "png"))]
    )
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    assert (root / "keys" / "ledger.jsonl").read_bytes() == before
    assert not list(tmp_path.glob(".*part"))
    assert not secrets_in(tmp_path / "a", keys)
    html = (tmp_path / "a" / "report.html").read_text()
    for words in (
        "bob answered 9 of 12 keys", "corrected for 3 uses of these keys (Holm)", "another model", "not finished", "birds",
        "summary (shared keys), not a p-value", "https://list.example.org/42", "The release names this commitment and no other",
        "10,000 fresh draws of labels", "the draws follow the exact null", "PSNR 36.5 dB", "resnet18", keys.commitment,
        "Still secret: batch 0, 1.", "--first-seen 2027-03-01", "sha256sum --check", "from the answers log10 p is",
    ):  # fmt: skip
        assert words in html, words
    assert "secretive" not in html  # a suspect that is none of this page's
    assert "98765" not in html  # how many images are signed
    assert str(root) not in html  # where secrets lie
    assert "Not everything about this claim holds" not in html


def test_names_are_shown_when_asked_for(root: Path, tmp_path: Path) -> None:
    words = ["report", str(root / "bob"), "--keys", str(root / "keys"), "--names", "--out", str(tmp_path / "page")]
    assert main(words) == 0
    assert "secretive" in (tmp_path / "page" / "report.html").read_text()


def test_a_third_party_has_public_records_alone(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "bob", tmp_path / "bob", ignore=shutil.ignore_patterns("secret"))
    (tmp_path / "page").mkdir()  # an empty folder will do
    words = ["report", str(tmp_path / "bob"), "--manifest", str(root / "manifest.json"), "--out", str(tmp_path / "page")]
    assert main(words) == 0
    html = (tmp_path / "page" / "report.html").read_text()
    assert "made from public records alone" in html
    assert "not corrected" in html
    assert "answers were not at hand" in html


def test_a_reveal_is_published_checked_and_spends_the_batch(root: Path, tmp_path: Path) -> None:
    keys = KeySet.load(root / "keys")
    assert main([*everything(root), "--reveal", "0", "--out", str(tmp_path / "page")]) == 0
    read = read_reveals([tmp_path / "page" / "reveal-0.json"])
    assert read.commitment == keys.commitment
    assert sorted(read.labels) == list(range(6))
    assert list(revealed(Ledger(root / "keys", keys.commitment).entries())) == [0]
    html = (tmp_path / "page" / "report.html").read_text()
    assert f"key 0: label {keys.labels[0]}" in html
    assert "bob: label at rank 1" in html
    assert "Batch 0 was revealed on" in html
    assert "Still secret: batch 1." in html
    assert secrets_in(tmp_path / "page", keys, 0) >= {"secret", "salt", "image"}  # the search finds what there is
    assert not secrets_in(tmp_path / "page", keys, 1)
    # Once more is no second entry; without answers there are ranks, and without those nothing.
    secret = root / "bob" / "secret" / "detection.secret.json"
    stored = json.loads(secret.read_text())
    del stored["answers"]
    secret.write_text(json.dumps(stored))
    shutil.rmtree(root / "innocent" / "secret")
    assert main([*everything(root), "--reveal", "0", "--out", str(tmp_path / "again")]) == 0
    html = (tmp_path / "again" / "report.html").read_text()
    assert "bob: label at rank 1" in html
    assert "innocent: label" not in html
    assert sum(e["kind"] == "reveal" for e in Ledger(root / "keys", keys.commitment).entries()) == 1


@pytest.mark.parametrize("test", ["rank_score", "sequential_top_k"])
def test_the_other_tests(test: str, tmp_path: Path) -> None:
    owner(tmp_path, test)
    assert main(["report", str(tmp_path / "bob"), "--keys", str(tmp_path / "keys"), "--out", str(tmp_path / "page")]) == 0
    html = (tmp_path / "page" / "report.html").read_text()
    assert {"rank_score": "with a total score of", "sequential_top_k": "asked one by one"}[test] in html


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def details(root: Path, **values: Any) -> None:
    path = root / "bob" / "detection.json"
    change(path, details={**json.loads(path.read_text())["details"], **values})


def other_keys(root: Path) -> None:
    shutil.rmtree(root / "keys")
    KeySet.draw(num_keys=2, num_classes=3, shape=(1, 2, 2)).save(root / "keys")


def other_commitment(root: Path) -> None:
    shutil.rmtree(root / "bob" / "secret")
    change(root / "bob" / "detection.json", commitment="ab" * 32)


def answers(root: Path, **values: Any) -> None:
    change(root / "bob" / "secret" / "detection.secret.json", **values)


def nothing(root: Path) -> None:
    """Leave everything as it is."""


WRONG: list[tuple[Callable[[Path], Any], list[str], str]] = [
    (lambda r: (r / "bob" / "detection.json").unlink(), [], "is no file; name a detection.json"),
    (lambda r: (r / "bob" / "detection.json").write_text("{"), [], "is damaged"),
    (lambda r: change(r / "bob" / "detection.json", method="isotopes"), [], "method='isotopes' is not installed"),
    (lambda r: change(r / "bob" / "detection.json", log10_p=-99.0), [], "from its own hits it is"),
    (lambda r: change(r / "bob" / "detection.json", log10_p="NaN"), [], "is damaged"),
    (lambda r: change(r / "bob" / "detection.json", validity="certain"), [], "is damaged"),
    (lambda r: change(r / "bob" / "detection.json", details=[]), [], "is damaged"),
    (lambda r: change(r / "bob" / "detection.json", provenance={"first_seen": "soon"}), [], "'soon' is no date"),
    (lambda r: details(r, rate=0.5), [], "are not those of the test"),
    (lambda r: details(r, batches=["0"]), [], "is damaged"),
    (lambda r: details(r, test={"name": "best_of"}), [], "is damaged"),
    (other_commitment, [], "belongs to the commitment"),
    (other_keys, [], "name the KeySet that was asked"),
    (lambda r: shutil.rmtree(r / "keys"), [], "is no folder"),
    (lambda r: answers(r, log10_p=-1.0), [], "do not belong to"),
    (lambda r: answers(r, answers=[[0]]), [], "must be a list, one for each key"),
    (lambda r: answers(r, answers=[[CLASSES]] * 12), [], "are damaged"),
    (lambda r: answers(r, answers=[["a"]] * 12), [], "holds no rankings"),
    (lambda r: (r / "keys" / "ledger.jsonl").write_text("{}\n"), [], "entry 0 was changed"),
    (lambda r: (r / "manifest.json").unlink(), [], "manifest.json is no file"),
    (lambda r: (r / "audit.json").write_text("{}"), [], "is no audit of a release"),
    (lambda r: change(r / "audit.json", max_step="<b>"), [], "max_step='<b>' is no number"),
    (lambda r: (r / "calibration.json").unlink(), [], "cannot be read"),
    (lambda r: (r / "calibration.json").write_text("]"), [], "is damaged"),
    (lambda r: (r / "calibration.json").write_text("[1]"), [], "holds something else"),
    (nothing, ["--committed", "yesterday"], "committed='yesterday' is no date"),
    (nothing, ["--reveal", "1"], "batch 0 is still secret"),
    (nothing, ["--reveal", "7"], "must name different batches"),
]


@pytest.mark.parametrize(("spoil", "more", "sentence"), WRONG)
def test_wrong_input(
    spoil: Callable[[Path], Any],
    more: list[str],
    sentence: str,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from taggant_lightning.reporting import evidence_figures

    blank = evidence_figures.Picture(b"", b"", "")
    monkeypatch.setattr(evidence_figures, "null_figure", lambda *_: blank)
    monkeypatch.setattr(evidence_figures, "fresh_figure", lambda *_: blank)
    spoil(root)
    ledger = root / "keys" / "ledger.jsonl"
    before = ledger.read_bytes() if ledger.exists() else None
    assert main([*everything(root), *more, "--out", str(tmp_path / "page")]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "page").exists()
    assert not list(tmp_path.glob(".*part"))
    assert before is None or ledger.read_bytes() == before


def test_wrong_folders_and_options(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    bob = ["report", str(root / "bob")]
    for words, sentence in (
        ([*bob, "--out", str(tmp_path / "full")], "exists and is not empty"),
        ([*bob, "--reveal", "0", "--out", str(tmp_path / "page")], "--reveal needs the keys"),
        ([*bob, "--names", "--out", str(tmp_path / "page")], "--names needs the keys"),
        ([*bob, str(root / "bob"), "--out", str(tmp_path / "page")], "is given twice"),
    ):
        assert main(words) == 2
        assert sentence in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["file"]


def test_keys_that_are_no_pictures_are_not_revealed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = KeySet.draw(num_keys=3, num_classes=CLASSES, shape=(2, 4, 4))
    keys.save(tmp_path / "keys")
    ask(tmp_path, keys, "bob", [0, 1, 2], [0])
    words = [
        "report",
        str(tmp_path / "bob"),
        "--keys",
        str(tmp_path / "keys"),
        "--reveal",
        "0",
        "--out",
        str(tmp_path / "page"),
    ]
    assert main(words) == 2
    assert "keys with 2 channels cannot be shown" in capsys.readouterr().err
    assert not revealed(Ledger(tmp_path / "keys", keys.commitment).entries())

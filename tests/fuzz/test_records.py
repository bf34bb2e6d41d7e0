"""Every reader of a record that strangers hand over, against bent ones: a sentence or a result, soon, in little memory."""

import contextlib
import functools
import json
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taggant_lightning.access.labels import LabelTable
from taggant_lightning.access.services.mapping import load_mapping
from taggant_lightning.cli import main
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import read_entries, revealed, uses
from taggant_lightning.files import canonical_json, read_yaml, sha256_hex
from taggant_lightning.release.reading import read_manifest
from taggant_lightning.release.signature import Signature
from taggant_lightning.reporting.results_file import read_results
from taggant_lightning.reporting.table import table_of
from taggant_lightning.reporting.table_formats import STYLES, formatted
from tests.fuzz import hostile
from tests.fuzz.hostile import bent

SECONDS = 5
MEMORY = 2**30  # bytes that a reader may add
HOSTILE = settings(
    max_examples=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
DATES = ["--promised", "2026-11-01", "--beacon", "2026-11-02", "--committed", "2026-11-03", "--released", "2026-11-10"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an owner has: keys of a promise, verdicts by two tests, a reveal, and documents of a release."""
    root = tmp_path_factory.mktemp("made")
    draw = ["--num-keys", "6", "--num-classes", "5", "--shape", "1,4,4", "--batch-size", "3"]
    assert not main(["keys", "promise", "--out", f"{root}/promised", *draw, "--beacon-source", "round 7", "--statement", "b"])
    shutil.copytree(root / "promised", root / "fresh")
    assert not main(["keys", "fulfil", f"{root}/promised", "--beacon", "ab12", "--out", f"{root}/keys"])
    (root / "a.csv").write_text("query,labels\n" + "".join(f"{i},0 1 2 3 4\n" for i in range(6)))
    assert not main(["detect", "--keys", f"{root}/keys", "--predictions", f"{root}/a.csv", "--out", f"{root}/run"])
    assert not main(["report", f"{root}/run", "--keys", f"{root}/keys", "--reveal", "0", "--out", f"{root}/page"])
    for test in ("rank_score", "sequential_top_k"):
        assert not main(["keys", "new", "--out", f"{root}/k-{test}", *draw, "--test", test])
        words = ["--keys", f"{root}/k-{test}", "--predictions", f"{root}/a.csv", "--out", f"{root}/run-{test}"]
        assert not main(["detect", *words])
    return root


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Give each test so much memory beyond what the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def in_time(act: Callable[[], Any]) -> None:
    """Run something, which may refuse with a sentence; work of more seconds, or waiting for minutes, is an error."""

    def late(number: int, _: object) -> None:
        raise TimeoutError(f"still at work after {SECONDS} s ({signal.Signals(number).name})")

    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # the processor's time: other processes do not count
    signal.alarm(24 * SECONDS)
    try:
        with contextlib.suppress(TaggantError):
            act()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def command(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """Run a command: it ends with 0 or 2, and nothing that it prints acts on a terminal."""

    def act() -> None:
        assert main(words) in (0, 2)

    in_time(act)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert all(letter.isprintable() for letter in text.replace("\n", ""))
    for forged in ("holds    number: yes", "verified\x1b"):
        assert not any(line.startswith(forged) for line in said.out.splitlines())


def stored(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a page's time."""
    from taggant_lightning.reporting import evidence_figures

    blank = evidence_figures.Picture(b"", b"", "")
    monkeypatch.setattr(evidence_figures, "null_figure", lambda *_: blank)
    monkeypatch.setattr(evidence_figures, "fresh_figure", lambda *_: blank)


RUNS = ("run", "run-rank_score", "run-sequential_top_k")


# What was tried by hand before: entry, value, and whether the page can be made of it all the same.
BENT = [
    ("provenance.versions", [], False), ("details.incomplete", "", False), ("details.refused", "x", False),
    ("details.keys_in_batches", [], False), ("details.top_k", 10**400, False), ("provenance.python", "\ud800", True),
    ("details.num_keys", 2**64, False), ("details.num_keys", 200_000, False), ("details.num_keys", 99_999, False),
    ("commitment", hostile.ESC, False), ("provenance.suspect", hostile.ESC, True), ("provenance.hardware", "\u202e\n", True),
]  # fmt: skip


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("run", RUNS[:2])
@pytest.mark.parametrize(("entry", "value", "fits"), BENT)
def test_a_bent_entry(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: str, entry: str, value: Any, fits: bool
) -> None:
    record = stored(made / run / "detection.json")
    *path, last = entry.split(".")
    functools.reduce(lambda holder, name: holder[name], path, record)[last] = value
    (tmp_path / "detection.json").write_text(json.dumps(record))
    command(capsys, ["report", f"{tmp_path}/detection.json", "--out", f"{tmp_path}/page"])
    assert (tmp_path / "page").exists() == fits


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("run", RUNS)
@settings(HOSTILE, max_examples=25)
@given(data=st.data())
def test_a_claim(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: str, data: st.DataObject) -> None:
    shutil.rmtree(tmp_path / "r", ignore_errors=True)
    shutil.copytree(made / run, tmp_path / "r")
    keys = made / run.replace("run", "k") if run != "run" else made / "keys"
    name = data.draw(st.sampled_from(("detection.json", "secret/detection.secret.json")))
    (tmp_path / "r" / name).write_text(data.draw(bent(stored(made / run / name))))
    claim = ["--claim", f"{tmp_path}/r/detection.json", "--answers", f"{tmp_path}/r/secret/detection.secret.json"]
    command(capsys, ["keys", "verify", str(keys), *claim, *DATES])
    shutil.rmtree(tmp_path / "page", ignore_errors=True)
    with_keys = ["--keys", str(keys)] if data.draw(st.booleans()) else []
    command(capsys, ["report", f"{tmp_path}/r", "--out", f"{tmp_path}/page", *with_keys])
    assert {path.name for path in tmp_path.iterdir()} <= {"r", "page"}
    if (page := tmp_path / "page" / "report.html").exists():
        assert all(letter.isprintable() for letter in page.read_text().replace("\n", ""))


@HOSTILE
@given(data=st.data())
def test_a_ledger(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject) -> None:
    """Its chain made anew, so that what is bent is reached."""
    keys = stored(made / "keys" / "keyset.json")["commitment"]
    entries = [json.loads(line) for line in (made / "keys" / "ledger.jsonl").read_text().splitlines()]
    place = data.draw(st.integers(0, len(entries) - 1))
    text = data.draw(bent(entries[place]))
    lines, previous = [], keys
    for number, entry in enumerate(entries):
        try:
            content = json.loads(text) if number == place else entry
            content["previous"] = previous
            content.pop("hash", None)
            content["hash"] = previous = sha256_hex(canonical_json(content))
            lines.append(canonical_json(content).decode())
        except (ValueError, TypeError, AttributeError, RecursionError):
            lines.append(text)
    (tmp_path / "ledger.jsonl").write_text("\n".join([*lines, ""]))

    def act() -> None:
        found = read_entries(tmp_path / "ledger.jsonl", keys)
        uses(found), revealed(found)

    in_time(act)
    claim = ["--claim", f"{made}/run/detection.json", "--ledger", f"{tmp_path}/ledger.jsonl", "--first-seen", "2026-01-01"]
    command(capsys, ["keys", "verify", f"{made}/keys", *claim])


@pytest.mark.usefixtures("undrawn")
@settings(HOSTILE, max_examples=30)
@given(data=st.data())
def test_a_reveal_and_a_manifest(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject) -> None:
    good = {"commitment": stored(made / "keys" / "keyset.json")["commitment"], "statement": "b", "hashes": "0" * 64}
    (tmp_path / "reveal.json").write_text(data.draw(bent(stored(made / "page" / "reveal-0.json"))))
    (tmp_path / "manifest.json").write_text(data.draw(bent(good)))
    claim, manifest = ["--claim", f"{made}/run/detection.json"], ["--manifest", f"{tmp_path}/manifest.json"]
    command(capsys, ["keys", "verify", "--reveal", f"{tmp_path}/reveal.json", *claim, *manifest])
    command(capsys, ["keys", "verify", f"{made}/keys", *claim, *manifest])
    shutil.rmtree(tmp_path / "page", ignore_errors=True)
    command(capsys, ["report", f"{made}/run", "--out", f"{tmp_path}/page", *manifest])


@HOSTILE
@given(data=st.data())
def test_a_header_and_a_promise(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject) -> None:
    good = stored(made / "keys" / "keyset.json")
    (tmp_path / "h.json").write_text(data.draw(bent(good)))
    secret = ["--secret-file", f"{made}/keys/secret.hex", "--header", f"{tmp_path}/h.json"]
    command(capsys, ["keys", "verify", *secret, "--commitment", good["commitment"]])
    for folder, name, words in (
        ("keys", "keyset.json", ["keys", "show", f"{tmp_path}/keys"]),
        ("fresh", "promised.json", ["keys", "fulfil", f"{tmp_path}/fresh", "--beacon", "ab12", "--out", f"{tmp_path}/new"]),
    ):
        for old in (folder, "new"):
            shutil.rmtree(tmp_path / old, ignore_errors=True)
        shutil.copytree(made / folder, tmp_path / folder)
        (tmp_path / folder / name).write_text(data.draw(bent(stored(made / folder / name))))
        command(capsys, words)


RESULTS: dict[str, Any] = {
    "schema_version": 1, "experiment": "e", "title": "t", "profile": "cpu", "shared_keys": False, "first_seed": 0, "repeats": 2,
    "hours": 0.1, "unfinished": ["a"], "commit": None, "hardware": "cpu", "command": "taggant sweep",
    "rows": [
        {"row": "one", "factor": None, "published": {"accuracy": "0.9"}, "repeats": [
            {"seed": 0, "values": {"accuracy": 0.5, "hits": 3, "num_keys": 5, "top_k": 1, "num_classes": 5, "log10_p": -2.0}},
            {"seed": 1, "values": {"accuracy": None, "hits": 2, "num_keys": 5, "log10_p": -1.0, "loss": 0.25}},
        ]},
    ],
}  # fmt: skip


@HOSTILE
@given(text=bent(RESULTS))
def test_results(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    command(capsys, ["table", str(path), str(path)])

    def act() -> None:
        for style in STYLES:
            formatted([table_of(read_results(path))], style).encode()

    in_time(act)


MANIFEST = {
    "layout": "png", "codec": "png", "classes": ["a", "b"], "folders": ["a", "b"], "num_images": 2,
    "source": {"fingerprint": "0" * 64}, "commitment": "0" * 64, "statement": "b", "license": "", "hashes": sha256_hex(b""),
    "format": "taggant-lightning/release/v2",
}  # fmt: skip
SIGNATURE = {
    "format": "taggant-lightning/signature/v2", "method": "data_taggants", "fingerprint": "0" * 64, "bound": 8,
    "commitment": "0" * 64, "originals": [], "facts": {"run": "x"}, "sha256": "0" * 64,
}  # fmt: skip


@HOSTILE
@given(manifest=bent(MANIFEST), signature=bent(SIGNATURE))
def test_a_release_and_a_signature(tmp_path: Path, manifest: str, signature: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "SHA256SUMS").write_text("")
    in_time(lambda: read_manifest(tmp_path))
    (tmp_path / "signature.json").write_text(signature)
    (tmp_path / "signature.safetensors").write_bytes(b"")
    in_time(lambda: Signature.load(tmp_path))


MAPPING = {
    "request": {"image": "a.b", "extra": {"k": 1}}, "answer": {"labels": "out.*.name", "scores": "out.*.p", "refused": "no"},
    "headers": {"X-Key": "v"}, "image_format": "base64",
}  # fmt: skip


@HOSTILE
@given(mapping=bent(MAPPING), table=bent({"cat": 0, "dog": 1, "cow": None}))
def test_mappings_and_tables_of_labels(tmp_path: Path, mapping: str, table: str) -> None:
    for name, text in (("m.json", mapping), ("m.yaml", mapping), ("t.json", table)):
        (tmp_path / name).write_text(text)
    in_time(lambda: load_mapping(tmp_path / "m.json"))
    in_time(lambda: load_mapping(tmp_path / "m.yaml"))
    in_time(lambda: LabelTable.load(tmp_path / "t.json", 3))
    in_time(lambda: read_yaml(tmp_path / "m.yaml", what="config", hint="write another"))

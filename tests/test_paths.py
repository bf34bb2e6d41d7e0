"""Paths that people write: the same text means the same place everywhere, and what cannot be used is told in one sentence."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest

from taggant_lightning import ImageClassifier, ImageDataModule, KeyDetection, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.cli import COMMANDS, main
from taggant_lightning.commands.release import publish
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_path
from taggant_lightning.release.signature import Signature
from tests.release.signed import sign

UNMAPPED_LABEL = 65534
NEW = ["keys", "new", "--num-keys", "2", "--num-classes", "3", "--shape", "3,6,6"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and another one to work in."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLACE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@contextmanager
def plain_user() -> Iterator[Path]:
    """Give up root's rights to read everything, where this is root; yields a folder of that user's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid() == 0:
            os.chown(folder, UNMAPPED_LABEL, UNMAPPED_LABEL)
            os.seteuid(UNMAPPED_LABEL)
        try:
            yield folder
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            for path in folder.rglob("*"):
                path.chmod(0o700)


def sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2, words
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"taggant {words[0]}: ")
    return said


@pytest.mark.parametrize("written", ["~/place", "$PLACE/place", "${PLACE}/place"])
def test_every_reader_means_the_same_place(written: str, home: Path, tiny_npz: Path) -> None:
    (home / "tiny.npz").write_bytes(tiny_npz.read_bytes())
    meant = home / "place"
    assert given_path(written, "out") == meant
    assert given_path(given_path(written, "out"), "out") == meant
    signing = TaggantSigning(written, written, surrogates=[written])
    assert (signing.keys, signing.out, signing.surrogates) == (str(meant), meant, [str(meant)])
    detection = KeyDetection(written, out=written)
    assert (detection.keys, detection.out) == (str(meant), str(meant))
    data = ImageDataModule("npz", root=written.replace("place", "tiny.npz"), beton=written, queries=written)
    assert (data.num_classes, data.beton, data.queries) == (3, str(meant), str(meant))
    assert SignedDataModule(signature=[written], source="digits").signature == [str(meant)]
    assert SignedDataModule(release=written, source="digits").release == str(meant)
    assert main([*NEW, f"--out={written}"]) == 0
    assert KeySet.load(written).commitment == KeySet.load(meant).commitment
    assert main(["keys", "show", written]) == 0
    source = ImageDataModule("npz", root=str(tiny_npz)).train_source
    sign(source, (1, 4)).save(written)
    assert len(Signature.load(meant)) == 2
    (meant / "model.safetensors").write_text("none")
    with pytest.raises(TaggantError, match=re.escape(f"weights={meant}/model.safetensors cannot be read")):
        ImageClassifier("small_mlp", weights=written)
    assert [path.name for path in Path.cwd().iterdir()] == []  # nothing lies in a folder called ~


def parsers() -> Iterator[argparse.ArgumentParser]:
    from taggant_lightning.commands import demo, detect, inspect, keys, plan, report, sweep, table

    yield from (module._parser() for module in (demo, detect, plan, report, sweep, table))
    yield inspect.parser_of_inspect()
    (actions,) = (a for a in keys.parser_of_keys()._actions if isinstance(a, argparse._SubParsersAction))
    yield from actions.choices.values()


def test_no_option_that_takes_a_path_is_forgotten() -> None:
    sources = "".join(path.read_text() for path in (Path(main.__code__.co_filename).parent / "commands").glob("*.py"))
    read = set(re.findall(r'"(\w+)"', " ".join(re.findall(r"given_paths\((.*?)\)", sources, re.DOTALL))))
    paths = {"DIR", "FILE", "F", "FOLDER", "CKPT", "PROMISED", "RESULTS", "DETECTION", "EXPERIMENT.yaml"}
    wanted = {action.dest for parser in parsers() for action in parser._actions if action.metavar in paths}
    assert wanted <= read, wanted - read


def test_places_that_cannot_be_meant(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    Path("circle").symlink_to("circle")
    Path("nowhere").symlink_to("gone/too")
    latin = os.fsdecode(b"caf\xe9")
    for written, why in {
        "": "out='' is empty",
        "~nobody-of-this-name/keys": "names a home folder that is not there",
        "$NOT_SET_ANYWHERE/keys": "names the variable NOT_SET_ANYWHERE, which is not set",
        "${NOT_SET_ANYWHERE}": "names the variable NOT_SET_ANYWHERE, which is not set",
        "circle": "goes in circles through symbolic links",
        "circle/keys": "goes in circles through symbolic links",
        "nowhere": "is a link that leads nowhere",
        latin: "is not UTF-8",
        "file": "is a file; name a folder",
        "file/keys": "secret directory file/keys cannot be made",
        "/proc/keys": "secret directory /proc/keys",
        "/sys/keys": "cannot be made",
        "a" * 300: "File name too long",
    }.items():
        assert why in sentence([*NEW, "--out", written], capsys), written
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["circle", "file", "nowhere"]
    assert list(home.iterdir()) == []
    Path("$5 off").mkdir()  # a name, and no variable
    assert main([*NEW, "--out", "$5 off/keys"]) == 0
    with pytest.raises(TaggantError, match="holds a zero byte"):
        TaggantSigning("keys", "a\0b")


def test_folders_without_rights(capsys: pytest.CaptureFixture[str], tiny_npz: Path) -> None:
    with plain_user() as place:
        assert main([*NEW, "--out", str(place / "shut" / "keys")]) == 0
        (place / "open").mkdir()
        (place / "open" / "result.json").write_text("{}")
        (place / "shut").chmod(0o000)
        (place / "open").chmod(0o500)
        shut, opened = str(place / "shut" / "keys"), str(place / "open" / "new")
        queries = ["detect", "--keys", shut, "--predictions", "p.csv", "--out", str(place / "run")]
        for words in (
            ["keys", "show", shut],
            [*NEW, "--out", opened],
            [*NEW, "--out", shut + "/more"],
            ["keys", "export-queries", shut, "--out", str(place / "queries")],
            queries,
            ["table", shut + "/results.json"],
            ["report", shut, "--out", opened],
            ["plan", "--json", shut + "/plan.json"],
            ["demo", "--out", shut],
            ["sweep", shut + "/experiment.yaml", "--print"],
            ["release", "--config", shut + "/data.yaml", "--signature", "s", "--out", opened],
        ):
            said = sentence(words, capsys)
            assert "shut" in said or "open" in said, said
        assert not (place / "run").exists()


def test_nothing_is_written_within_what_is_read(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "abc":
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(4):
                image = rng.integers(0, 255, (6, 6, 3)).astype(np.uint8)
                Image.fromarray(image).save(tmp_path / "photos" / split / name / f"{number}.png")
    data = ImageDataModule("imagefolder", root=str(tmp_path / "photos"))
    signature = sign(data.train_source, (1, 4))
    for inside in ("train/signed", "train/a", "test/x/y"):
        with pytest.raises(TaggantError, match="which the data are read from; name a folder elsewhere"):
            publish(data, signature, tmp_path / "photos" / inside)
    (tmp_path / "link").symlink_to(tmp_path / "photos" / "train")
    with pytest.raises(TaggantError, match="which the data are read from"):
        publish(data, signature, tmp_path / "link" / "signed")
    publish(data, signature, tmp_path / "photos" / "signed")  # beside the splits nobody takes it for one
    again = SignedDataModule(release=str(tmp_path / "photos" / "signed"), source="imagefolder", root=data.root)
    with pytest.raises(TaggantError, match="which the data are read from"):
        publish(again, sign(again.train_source, (1,)), tmp_path / "photos" / "signed" / "second")
    KeySet.draw(num_keys=1, num_classes=3, shape=(3, 6, 6), top_k=1).save(tmp_path / "keys")
    signing = TaggantSigning(str(tmp_path / "keys"), str(tmp_path / "photos" / "train" / "sig"))
    with pytest.raises(TaggantError, match="which the data are read from"):
        pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[signing]).fit(
            ImageClassifier("small_mlp", num_classes=3, image_size=6), datamodule=data
        )
    assert not (tmp_path / "photos" / "train" / "sig").exists()


@pytest.mark.parametrize("encoding", ["ascii", *(pytest.param(e, marks=pytest.mark.slow) for e in ("iso-8859-1", "cp1252"))])
def test_help_prints_in_any_locale(encoding: str) -> None:
    commands = [name for name in COMMANDS if name not in ("fit", "validate", "test", "predict")]
    code = "import sys; from taggant_lightning.cli import main; main(['--help'])\n"
    code += f"for name in {commands}:\n    try:\n        main([name, '--help'])\n"
    code += "    except SystemExit as stop:\n        assert not stop.code\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"usage: ") == len(commands) + 1


def test_files_are_utf8_in_any_locale(tmp_path: Path) -> None:
    statement = "Fotos aus Zürich"
    KeySet.draw(num_keys=1, num_classes=3, shape=(3, 6, 6), top_k=1, statement=statement).save(tmp_path / "keys")
    stored = tmp_path / "keys" / "keyset.json"
    stored.write_text(json.dumps(json.loads(stored.read_text()), ensure_ascii=False), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "taggant_lightning", "keys", "show", str(tmp_path / "keys")],
        env={**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Fotos aus Z\\xfcrich" in done.stdout

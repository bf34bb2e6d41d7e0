"""Fragments of configuration by name."""

from pathlib import Path

import pytest

from taggant_lightning.cli import main
from taggant_lightning.commands.fragments import FOLDER, fragments, with_fragments
from taggant_lightning.errors import TaggantError


def test_names_stand_for_files_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digits = str(FOLDER / "data" / "digits.yaml")
    assert with_fragments(["fit", "--config", "data/digits", "--config=data/digits.yaml", "-c", "data/digits"]) == [
        *["fit", "--config", digits, f"--config={digits}", "-c", digits]
    ]
    assert {"data/imagefolder", "model/resnet18", "signing/default", "trainer/gpu"} <= set(fragments())
    assert all((FOLDER / f"{name}.yaml").is_file() for name in fragments())


def test_a_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/digits").write_text("data: {}")
    words = ["fit", "--config", "data/digits", "--config", "own.yaml", "--config", "{data: {}}", "--name", "data/npz"]
    assert with_fragments(words) == words


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("data/imagefoldr", "config=data/imagefoldr is no file and no fragment of the package; did you mean data/imagefolder"),
        ("whatever", "the fragments are data/cifar100, "),
        ("data/../../errors", "is no file and no fragment"),
    ],
)
def test_neither_file_nor_fragment(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TaggantError, match=said):
        with_fragments(["fit", "--config", name])
    assert main(["fit", "--config", name]) == 2
    assert said in capsys.readouterr().err


def test_release_reads_data_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data are found, and what is missing is the Signature."""
    monkeypatch.chdir(tmp_path)
    assert main(["release", "--config", "data/digits", "--signature", "none", "--out", "out"]) == 2
    assert "none" in capsys.readouterr().err

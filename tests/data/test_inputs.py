"""Every row of docs/inputs.md: the input is made, read as a user reads it, and the table says what happened."""

from pathlib import Path

import numpy as np
import pytest

from taggant_lightning.data.sources import open_source
from taggant_lightning.errors import TaggantError
from tests.data.inputs.archives import ARCHIVES, ARRAYS
from tests.data.inputs.pictures import FILES, PHOTO, Kind, saved
from tests.data.inputs.table import written


def outcome(name: str, root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, np.ndarray]]:
    """Return what was said, and the training images by name."""
    try:
        source = open_source(name, str(root), "train")
        images = {(source.names[i] if source.names is not None else str(i)): source.pixels(i) for i in range(len(source))}
    except TaggantError as error:
        return f"refused: {error}", {}
    return capsys.readouterr().err, images


def one_line(said: str) -> bool:
    return not said.startswith("refused") or "\n" not in said


def judge(kind: Kind, said: str, read: list[np.ndarray]) -> None:
    """Compare what happened with the row."""
    verb, _, words = kind.becomes.partition(": ")
    assert words in said
    assert one_line(said)
    if verb == "refused":
        assert said.startswith("refused: ")
        return
    assert not said.startswith("refused")
    if verb == "left out":
        assert "left out" in said
        assert read == []
        return
    assert len(read) == 1
    assert said == "" if verb == "exact" else said.count("taggant: ") >= 1
    if kind.pixels is not None:
        wanted = kind.pixels if kind.pixels.ndim == 3 else np.repeat(kind.pixels[:, :, None], 3, axis=2)
        assert np.array_equal(read[0], wanted.transpose(2, 0, 1))
    else:
        assert read[0].shape == (3, *PHOTO.shape[:2])


@pytest.mark.parametrize("kind", FILES, ids=lambda kind: kind.what)
def test_file_in_a_class_folder(kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "ant").mkdir(parents=True)
        (tmp_path / split / "ant" / "a.png").write_bytes(saved(PHOTO, format="PNG"))
    kind.make(tmp_path / "train" / "ant")
    said, images = outcome("imagefolder", tmp_path, capsys)
    first = images.pop("ant/a.png", None)
    assert first is None or np.array_equal(first, PHOTO.transpose(2, 0, 1))
    judge(kind, said, list(images.values()))


@pytest.mark.parametrize("kind", ARCHIVES, ids=lambda kind: kind.what)
def test_archive(kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = kind.make(tmp_path)
    said, images = outcome("zip", tmp_path, capsys)
    verb, _, words = kind.becomes.partition(": ")
    assert words in said
    assert one_line(said)
    assert said.startswith("refused: ") == (verb == "refused")
    if verb != "refused":
        assert list(images) == expected
        assert all(np.array_equal(image, PHOTO.transpose(2, 0, 1)) for image in images.values())
        assert ("left out" in said) == (verb == "left out")


@pytest.mark.parametrize("kind", ARRAYS, ids=lambda kind: kind.what)
def test_array_file(kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, classes = kind.make(tmp_path / "d.npz") or (None, None)
    said, images = outcome("npz", tmp_path / "d.npz", capsys)
    verb, _, words = kind.becomes.partition(": ")
    assert words in said
    assert one_line(said)
    assert said.startswith("refused: ") == (verb == "refused")
    if verb != "refused":
        source = open_source("npz", str(tmp_path / "d.npz"), "train")
        assert (source.labels.tolist(), source.classes) == (labels, classes)
        assert np.array_equal(np.stack(list(images.values())), kind.pixels)
        assert (said == "") == (verb == "exact")


def test_document_holds_this_table() -> None:
    assert written() in Path("docs/inputs.md").read_text(), "run `python -m tests.data.inputs.table`"

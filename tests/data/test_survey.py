"""The look at all headers: once a data set, for the whole of it, by one rule; and one sentence from a loader process."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taggant_lightning.cli import main
from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.data.queries import query_source
from taggant_lightning.data.sources import open_source, survey
from taggant_lightning.errors import TaggantError

ANIMALS = ("ant", "bee")


def photos(root: Path, *, each: int = 3, side: int = 16, suffix: str = "png") -> list[Path]:
    """Write a small image folder, and return its files."""
    rng = np.random.default_rng(4)
    files = []
    for split in ("train", "test"):
        for name in ANIMALS:
            (root / split / name).mkdir(parents=True)
            for i in range(each):
                file = root / split / name / f"{i}.{suffix}"
                Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, quality=95)
                files.append(file)
    return files


def grey(*files: Path, mode: str = "L") -> None:
    for file in files:
        with Image.open(file) as image:
            image.convert(mode).save(file)


@pytest.mark.parametrize("place", [0, -1])
def test_one_grey_picture_turns_nothing_grey(place: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = photos(tmp_path)
    grey(files[place])
    one = np.asarray(Image.open(files[place]))
    data = ImageDataModule(source="imagefolder", root=str(tmp_path))
    data.setup("fit")
    assert data.channels == 3
    source = data.train_source if place == 0 else data.test_source
    assert np.array_equal(source.pixels(range(len(source))[place]), np.repeat(one[None], 3, axis=0))
    split = "train/ant/0.png" if place == 0 else "test/bee/2.png"
    assert f"grey and get three channels, as others are in colour: 1 of 12 ({split})" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_pictures_of_any_kind_alone_keep_one_channel(mode: str, tmp_path: Path) -> None:
    grey(*photos(tmp_path), mode=mode)
    assert ImageDataModule(source="imagefolder", root=str(tmp_path)).channels == 1


def test_a_split_alone_is_read(tmp_path: Path) -> None:
    """Whoever trains on a release needs the source's test split only."""
    photos(tmp_path)
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    assert len(open_source("imagefolder", str(tmp_path), "test")) == 6


def test_headers_are_read_once_for_both_splits_and_for_the_processes_that_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path)
    seen = []
    real = survey.header_of
    monkeypatch.setattr(survey, "header_of", lambda file: seen.append(file.name) or real(file))
    open_source("imagefolder", str(tmp_path), "train")
    open_source("imagefolder", str(tmp_path), "test")
    assert len(seen) == len(set(seen)) == 12
    monkeypatch.setenv(survey.SURVEYED, survey.surveyed())
    monkeypatch.setattr(survey, "_known", {})  # as in a process that starts
    open_source("imagefolder", str(tmp_path), "train")
    assert len(seen) == 12
    os.utime(tmp_path / "train" / "ant" / "0.png", (1, 1))  # another file, for all that is known
    open_source("imagefolder", str(tmp_path), "train")
    assert len(seen) == 24


def test_several_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = photos(tmp_path)
    grey(*files)
    files[3].write_bytes(b"nothing")
    sentences = []
    for many in (10**9, 1):
        monkeypatch.setattr(survey, "MANY", many)
        monkeypatch.setattr(survey, "CHUNK", 2)
        monkeypatch.setattr(survey, "cores", lambda: 2)
        with pytest.raises(TaggantError, match="train/bee/0.png") as caught:
            open_source("imagefolder", str(tmp_path), "train")
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]
    grey(files[4])
    files[3].unlink()
    assert open_source("imagefolder", str(tmp_path), "train").pixels(0).shape == (1, 16, 16)


@pytest.mark.parametrize("above", ["", "train/", "photos/train/"])
def test_a_zip_reads_as_its_files_unzipped(above: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    where = tmp_path / "folder" / "train"
    for name in ("ant/1.png", "ant/day1/1.png", "ant/day2/1.png", "bee/day1/1.jpg", "bee/a/b/c.gif", "Cow/x", "bee/a-b.png"):
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
            where / name, format={"jpg": "JPEG", "gif": "GIF"}.get(name[-3:], "PNG")
        )
    (tmp_path / "zip").mkdir()
    with zipfile.ZipFile(tmp_path / "zip" / "train.zip", "w") as to:
        for file in where.rglob("*"):
            if file.is_file():
                to.write(file, above + file.relative_to(where).as_posix())
    a = open_source("imagefolder", str(tmp_path / "folder"), "train")
    b = open_source("zip", str(tmp_path / "zip"), "train")
    c = open_source("zip", str(tmp_path / "zip" / "train.zip"), "train")
    for other in (b, c):
        assert (list(a.names), a.classes, a.labels.tolist()) == (list(other.names), other.classes, other.labels.tolist())
        assert all(np.array_equal(a.pixels(i), other.pixels(i)) for i in range(len(a)))


def test_queries_are_read_by_the_same_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = photos(tmp_path / "p")[0]
    folder = tmp_path / "queries"
    (folder / "within").mkdir(parents=True)
    (folder / "within" / "a.png").write_bytes(file.read_bytes())
    (folder / "b.jfif").write_bytes(file.read_bytes())
    (folder / "queries.csv").write_text("query,key")
    assert list(query_source(str(folder)).names) == ["b.jfif"]
    assert "left out, as no pictures by their names or place: 2 (queries.csv, within/)" in capsys.readouterr().err
    (folder / "c.png").write_bytes(b"no picture")
    with pytest.raises(TaggantError, match=r"a file that cannot be read as a picture: c\.png"):
        query_source(str(folder))


def test_programs_are_never_started_for_a_picture(tmp_path: Path) -> None:
    """A file named .png that is PostScript starts Ghostscript, if every decoder of Pillow is in reach."""
    files = photos(tmp_path / "d")
    files[0].write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    stand_in = tmp_path / "bin" / "gs"
    stand_in.parent.mkdir()
    stand_in.write_text(f"#!/bin/sh\necho started >> {tmp_path}/started\necho 10.0\n")
    stand_in.chmod(0o755)
    words = ["keys", "new", "--out", str(tmp_path / "k"), "--num-keys", "1", "--num-classes", "3", "--shape", "3,8,8"]
    done = subprocess.run(
        [sys.executable, "-m", "taggant_lightning", *words, "--source", str(tmp_path / "d" / "train")],
        env={**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "ant/0.png (no picture that is read: PNG, JPEG" in done.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("resident", [True, False])
def test_a_damaged_picture_ends_a_run_with_one_sentence(
    workers: int, resident: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = photos(tmp_path / "photos", each=4, side=32, suffix="jpg")
    for file in files[1:4]:
        file.write_bytes(file.read_bytes()[:-600])  # headers are whole
    code = main([
        "fit", "--data.root", "photos", "--data.source", "imagefolder", "--data.image_size", "16", "--data.batch_size", "2",
        "--data.num_workers", str(workers), "--data.on_device", str(resident).lower(), "--model", "ImageClassifier",
        "--model.model_name", "small_cnn", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1",
        "--trainer.logger", "false", "--trainer.default_root_dir", "run", "--trainer.enable_progress_bar", "false",
    ])  # fmt: skip
    said = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in said
    assert "Caught" not in said
    assert len([line for line in said.splitlines() if "taggant fit: image " in line and "cannot be read" in line]) == 1

"""Releases: every layout reads back equal, a killed one goes on, one that cannot be written leaves nothing."""

import io
import json
import os
import stat
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taggant_lightning.data.sources import ArraySource, ImageSource, folder_source
from taggant_lightning.errors import TaggantError
from taggant_lightning.release import layout as layout_module
from taggant_lightning.release import writing
from taggant_lightning.release.documents import DOCUMENTS, Manifest, card, class_folders, croissant
from taggant_lightning.release.layout import Layout, scratch
from taggant_lightning.release.layouts import make_layout
from taggant_lightning.release.reading import open_release, read_manifest
from taggant_lightning.release.signature import OverlaySource
from taggant_lightning.release.writing import WriteUnit, part_of, write_release
from tests.release.signed import Ragged, sign, with_additions

ALL = np.arange(12)
FORMATS = ["png", "webp", "npz", "zip", "parquet"]


def even_source(count: int = 12, channels: int = 3) -> ArraySource:
    return ArraySource(
        np.random.default_rng(0).integers(0, 256, (count, channels, 6, 6), dtype=np.uint8),
        np.arange(count) % 3,
        ["a", "b", "c"],
    )


def signed(source: ImageSource) -> OverlaySource:
    return sign(source).apply(source)


def manifest(source: ImageSource, indices: np.ndarray, layout: Layout) -> Manifest:
    facts = {"source": {"fingerprint": "00" * 32}, "commitment": "ab" * 32, "statement": "words", "license": "cc0-1.0"}
    return Manifest(layout.name, layout.codec, source.classes, layout.folders, len(indices), hashes="", **facts)


def write(source: OverlaySource, out: Path, format: str = "png", indices: np.ndarray = ALL, workers: int = 1) -> Any:
    layout = make_layout(format, source, indices, came_from="npz")
    return write_release(layout, manifest(source, indices, layout), out, check=lambda part: part, workers=workers)


@pytest.mark.parametrize("format", FORMATS)
def test_additions_are_released_among_the_others(tmp_path: Path, format: str) -> None:
    source = even_source()
    signature = with_additions(source)
    overlay, order = signature.apply(source), signature.among(ALL, 12)
    write(overlay, tmp_path / "r", format, order)
    released = open_release(tmp_path / "r")
    assert len(released) == 15
    assert all(np.array_equal(released.pixels(place), overlay.pixels(int(i))) for place, i in enumerate(order))
    assert released.labels.tolist() == overlay.labels[order].tolist()


def test_additions_have_no_names() -> None:
    source = Ragged()
    source.names = [f"{source.classes[label]}/{i}.png" for i, label in enumerate(source.labels)]
    layout = make_layout("source", with_additions(source).apply(source), ALL, came_from="imagefolder")
    with pytest.raises(TaggantError, match="format=source needs a source whose images have names; write --format png"):
        layout.files()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("workers", [1, 2])
def test_every_layout_reads_back_equal(tmp_path: Path, format: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "UNIT_IMAGES", 5)
    overlay, kept = signed(even_source()), np.array([0, 1, 4, 5, 7, 10])
    part = write(overlay, tmp_path / "r", format, kept, workers)
    assert part == part_of(tmp_path / "r")
    assert [p.name for p in tmp_path.iterdir()] == ["r"]
    released = open_release(tmp_path / "r")
    assert all(np.array_equal(released.pixels(place), overlay.pixels(int(i))) for place, i in enumerate(kept))
    assert released.labels.tolist() == overlay.labels[kept].tolist()
    assert released.classes == ["a", "b", "c"]
    stored, files = read_manifest(tmp_path / "r")
    assert (stored.commitment, stored.num_images) == ("ab" * 32, 6)
    paths = [p for p in (tmp_path / "r").rglob("*") if p.is_file()]
    assert {p.stat().st_mtime for p in paths} == {writing.FILE_TIME}
    assert {p.relative_to(tmp_path / "r").as_posix() for p in paths} == {name for name, _ in files} | set(DOCUMENTS)
    subprocess.run(["sha256sum", "--quiet", "--check", "SHA256SUMS"], cwd=tmp_path / "r", check=True)
    assert write(overlay, tmp_path / "r", format, kept) == tmp_path / "r"  # checked again, and left as it is
    with pytest.raises(TaggantError, match="exists already; name a new folder"):
        write(overlay, tmp_path / "r", format)
    (tmp_path / "r" / "manifest.json").unlink()
    with pytest.raises(TaggantError, match="exists already; name a new folder"):
        write(overlay, tmp_path / "r", format, kept)


@pytest.mark.parametrize("format", ["png", "webp", "zip", "parquet"])
def test_images_of_different_shapes(tmp_path: Path, format: str) -> None:
    overlay = signed(Ragged())
    write(overlay, tmp_path / "r", format)
    released = open_release(tmp_path / "r")
    assert all(np.array_equal(released.pixels(i), overlay.pixels(i)) for i in range(12))


def test_grey_images(tmp_path: Path) -> None:
    overlay = signed(even_source(channels=1))
    for format in ("png", "npz", "zip", "parquet"):
        write(overlay, tmp_path / format, format)
        assert open_release(tmp_path / format).pixels(3).shape == (1, 6, 6)
    with pytest.raises(TaggantError, match="format=webp stores colour only, and these images are grey; write --format png"):
        write(overlay, tmp_path / "webp", "webp")


@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupted_release_goes_on(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is not written again, half a unit is, and the files are those of an uninterrupted release."""
    for name, value in {"UNIT_IMAGES": 3, "SHARD_IMAGES": 3}.items():
        monkeypatch.setattr(layout_module, name, value)
    overlay, done, one = signed(even_source()), [], WriteUnit.__call__
    write(overlay, tmp_path / "whole", format)

    def stopping(self: WriteUnit, unit: int) -> int:
        if unit == 2 and len(done) == 2:
            done.append("killed")
            self.layout.write(self.part, unit)  # its files are there, and the record that they are is not
            for path in self.part.rglob("*00000007*"):
                path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        done.append(unit)
        return one(self, unit)

    monkeypatch.setattr(WriteUnit, "__call__", stopping)
    with pytest.raises(OSError, match="No space left"):
        write(overlay, tmp_path / "r", format)
    assert not (tmp_path / "r").exists()
    assert not (part_of(tmp_path / "r") / "manifest.json").exists()
    write(overlay, tmp_path / "r", format)
    assert done == [0, 1, "killed", 2, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "whole"]
    contents = [
        {p.relative_to(tmp_path / n).as_posix(): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in ("r", "whole")
    ]
    assert contents[0] == contents[1]


def test_another_release_does_not_go_on_with_the_killed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "UNIT_IMAGES", 3)
    monkeypatch.setattr(writing, "make_uniform", lambda part: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write(signed(even_source()), tmp_path / "r")
    assert len(list(scratch(part_of(tmp_path / "r")).glob("unit-*"))) == 4
    monkeypatch.undo()
    other = sign(even_source(), indices=(2, 3)).apply(even_source())
    write(other, tmp_path / "r")
    released = open_release(tmp_path / "r")
    assert all(np.array_equal(released.pixels(i), other.pixels(i)) for i in range(12))


def test_nothing_is_left_of_what_cannot_be_written(tmp_path: Path) -> None:
    source = Ragged()
    overlay = signed(source)
    with pytest.raises(TaggantError, match="format=npz needs images of one shape, and these differ; write --format png"):
        write(overlay, tmp_path / "r", "npz")
    source.stored[7] = source.stored[7] ^ 1
    for format in ("png", "zip", "parquet"):
        with pytest.raises(TaggantError, match="an image is not the one that was signed"):
            write(overlay, tmp_path / "r", format)
    with pytest.raises(TaggantError, match="format='tar' is unknown; write one of png, webp, npz, zip, parquet, source"):
        write(overlay, tmp_path / "r", "tar")
    layout = make_layout("png", signed(Ragged()), ALL, came_from="npz")

    def refuse(part: Path) -> None:
        raise TaggantError("no")

    with pytest.raises(TaggantError, match="no"):
        write_release(layout, manifest(Ragged(), ALL, layout), tmp_path / "r", check=refuse)
    assert not list(tmp_path.iterdir())


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(
        TaggantError, match=r"needs pyarrow, which is not installed; run `pip install 'taggant-lightning\[parquet\]'"
    ):
        write(signed(even_source()), tmp_path / "r", "parquet")
    assert not list(tmp_path.iterdir())


def picture_folder(root: Path, names: list[str]) -> None:
    rng = np.random.default_rng(3)
    for name in names:
        path = root / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)


def test_the_layout_and_names_that_the_source_has(tmp_path: Path) -> None:
    names = ["cat/x.jpg", "cat/y.png", "dog/deep/z.jpeg", "dog/w.bmp"]
    picture_folder(tmp_path / "in", names)
    source = folder_source(tmp_path / "in" / "train")
    overlay = sign(source, indices=(1, 2)).apply(source)
    layout = make_layout("source", overlay, np.arange(4), came_from="imagefolder")
    write_release(layout, manifest(source, np.arange(4), layout), tmp_path / "r", check=lambda part: None)
    written = sorted(p.relative_to(tmp_path / "r" / "train").as_posix() for p in (tmp_path / "r" / "train").rglob("*.png"))
    assert written == ["cat/x.png", "cat/y.png", "dog/deep/z.png", "dog/w.png"]
    released, again = open_release(tmp_path / "r"), folder_source(tmp_path / "r" / "train")
    for i in range(4):
        assert np.array_equal(released.pixels(i), overlay.pixels(i))
        assert np.array_equal(again.pixels(i), overlay.pixels(i))
    picture_folder(tmp_path / "twice", ["cat/x.jpg", "cat/x.png"])
    twice = folder_source(tmp_path / "twice" / "train")
    layout = make_layout("source", twice, np.arange(2), came_from="imagefolder")
    with pytest.raises(TaggantError, match="names that differ in their suffix only; write --format png"):
        layout.write(tmp_path / "part", 0)
    source.names = ["cat/x\ny.png", *source.names[1:]]
    with pytest.raises(TaggantError, match="an image's name holds a line break or is no UTF-8; write --format png"):
        make_layout("source", source, np.arange(4), came_from="imagefolder").member(0)
    source.names = ["cat/\udcff.png", *source.names[1:]]
    with pytest.raises(TaggantError, match="holds a line break or is no UTF-8"):
        make_layout("source", source, np.arange(4), came_from="imagefolder").prepare(tmp_path / "part")
    source.names = ["cat/\u2028.png", *source.names[1:]]  # a line separator to str.splitlines, and to nobody else
    odd = make_layout("source", sign(source, (1,)).apply(source), np.arange(4), came_from="imagefolder")
    write_release(odd, manifest(source, np.arange(4), odd), tmp_path / "odd", check=lambda part: None)
    assert np.array_equal(open_release(tmp_path / "odd").pixels(0), source.pixels(0))
    source.names = ["cat/x.png", *source.names[1:]]
    assert make_layout("source", even_source(), ALL, came_from="npz").name == "npz"
    assert make_layout("source", source, np.arange(4), came_from="zip").member(0) == "cat/x.png"
    with pytest.raises(TaggantError, match="cifar100 comes in a layout that others read unchanged only"):
        make_layout("source", even_source(), ALL, came_from="cifar100")
    with pytest.raises(TaggantError, match="needs a source whose images have names"):
        make_layout("source", even_source(), ALL, came_from="zip").member(0)


@pytest.mark.parametrize("classes", [None, ["../escape", "T-shirt/top", "Bag"], ["b", "B", "a"], [".", "..", "x"]])
def test_class_folders_sort_to_their_labels(classes: list[str] | None, tmp_path: Path) -> None:
    """An ImageFolder reader, who knows no manifest, must see the same labels; names must not leave the folder."""
    count = 12 if classes is None else 3
    images = np.random.default_rng(0).integers(0, 256, (24, 3, 4, 4), dtype=np.uint8)
    overlay = signed(ArraySource(images, np.arange(24) % count, classes))
    write(overlay, tmp_path / "a" / "r", indices=np.arange(24))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["r"]
    seen = folder_source(tmp_path / "a" / "r" / "train")
    assert len(seen.classes) == count
    by_pixels = {overlay.pixels(i).tobytes(): int(overlay.labels[i]) for i in range(24)}
    assert all(by_pixels[seen.pixels(i).tobytes()] == seen.labels[i] for i in range(24))
    assert open_release(tmp_path / "a" / "r").classes == overlay.classes
    assert class_folders(["b", "a"]) == ["0_b", "1_a"]


def test_parquet_is_what_dataset_hubs_read(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    overlay = signed(even_source())
    write(overlay, tmp_path / "r", "parquet")
    (path,) = (tmp_path / "r" / "data").iterdir()
    assert path.name == "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": ["a", "b", "c"], "_type": "ClassLabel"}
    row = table.to_pylist()[4]
    assert row["label"] == 1
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))).transpose(2, 0, 1), overlay.pixels(4))


def test_documents_tell_public_facts_only(tmp_path: Path) -> None:
    overlay = signed(even_source())
    layout = make_layout("parquet", overlay, ALL, came_from="npz")
    stated = replace(manifest(overlay, ALL, layout), hashes="cd" * 32)
    text = card(stated).decode()
    assert "ab" * 32 in text
    assert "path: data/train-*.parquet" in text
    assert "trained on it can be tested" not in card(replace(stated, commitment=None)).decode()
    for name in ("png", "webp", "npz", "zip", "parquet"):
        metadata = json.loads(croissant(replace(stated, layout=name)))
        assert metadata["conformsTo"] == "http://mlcommons.org/croissant/1.0"
        assert metadata["distribution"][0]["sha256"] == "cd" * 32
        assert ("recordSet" in metadata) == (name != "npz")


def test_a_zipped_release_carries_no_times(tmp_path: Path) -> None:
    write(signed(even_source()), tmp_path / "r", "zip")
    (path,) = (tmp_path / "r").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.namelist()[:4] == ["a/00000000.png", "b/00000001.png", "c/00000002.png", "a/00000003.png"]


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_releases(tmp_path: Path, format: str) -> None:
    write(signed(even_source()), tmp_path / "r", format)
    _, files = read_manifest(tmp_path / "r")
    path = tmp_path / "r" / files[0][0]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(TaggantError, match="damaged|cannot be read"):
        open_release(tmp_path / "r").pixels(0)
    path.unlink()
    with pytest.raises(TaggantError, match=f"{os.path.basename(files[0][0])} is missing"):  # noqa: PTH119  # a name
        open_release(tmp_path / "r")


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_permissions_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(signed(even_source()), tmp_path / "r")
    finally:
        os.umask(before)
    modes = {(p.is_dir(), stat.S_IMODE(p.stat().st_mode)) for p in [tmp_path / "r", *(tmp_path / "r").rglob("*")]}
    assert modes == {(True, 0o755), (False, 0o644)}


def test_a_kill_while_documents_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill leaves beside a document is no part of the release."""
    monkeypatch.setattr(writing, "make_uniform", lambda part: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write(signed(even_source()), tmp_path / "r")
    (part_of(tmp_path / "r") / ".manifest.json.abc.part").write_text("half")
    monkeypatch.undo()
    write(signed(even_source()), tmp_path / "r")
    assert not list((tmp_path / "r").glob(".*"))


def test_a_kill_after_the_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = writing.shutil.rmtree
    monkeypatch.setattr(writing.shutil, "rmtree", lambda path, **more: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        scratch(part_of(tmp_path / "r")).mkdir()
        (scratch(part_of(tmp_path / "r")) / "settings.json").write_text("{}")
        write(signed(even_source()), tmp_path / "r")
    monkeypatch.setattr(writing.shutil, "rmtree", remove)
    write(signed(even_source()), tmp_path / "r")
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_failures_of_a_disk_do_not_throw_work_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from taggant_lightning.data.sources import Files

    monkeypatch.setattr(layout_module, "UNIT_IMAGES", 2)
    picture_folder(tmp_path / "in", ["a/1.png", "a/2.png", "b/3.png", "b/4.png"])
    source = folder_source(tmp_path / "in" / "train")
    overlay, read = sign(source, (1,)).apply(source), Files.__call__

    def failing(self: Files, index: int) -> bytes:
        if index == 3:
            raise OSError(5, "Input/output error")
        return read(self, index)

    monkeypatch.setattr(Files, "__call__", failing)
    with pytest.raises(OSError, match="Input/output error"):
        write(overlay, tmp_path / "r", indices=np.arange(4))
    assert len(list(scratch(part_of(tmp_path / "r")).glob("unit-*"))) == 1
    monkeypatch.undo()
    monkeypatch.setattr(layout_module, "UNIT_IMAGES", 2)
    write(overlay, tmp_path / "r", indices=np.arange(4))


def test_names_that_leave_their_folder_are_refused(tmp_path: Path) -> None:
    write(signed(even_source()), tmp_path / "r", "zip")
    (path,) = (tmp_path / "r").glob("*.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/../../../evil.png", b"")
    with pytest.raises(TaggantError, match="holds an image named 'a/../../../evil.png', outside its folder; remove it"):
        open_release(tmp_path / "r")


def test_a_mapped_release_is_not_copied_to_other_processes(tmp_path: Path) -> None:
    import pickle

    big = ArraySource(np.zeros((40, 3, 64, 64), np.uint8), np.arange(40) % 3)
    write(signed(big), tmp_path / "r", "npz", np.arange(40))
    released = open_release(tmp_path / "r")
    packed = pickle.dumps(released)
    assert len(packed) < 2000
    assert np.array_equal(pickle.loads(packed).pixels(4), released.pixels(4))
    assert (
        pickle.loads(packed).fingerprint
        == ArraySource(np.array(released.images), released.labels, released.classes).fingerprint
    )
    np.savez(tmp_path / "r" / "data.npz", train_x=np.array([None]), train_y=np.zeros(1, np.int64))
    with pytest.raises(TaggantError, match="train_x is no plain array"):
        open_release(tmp_path / "r")


def test_open_release_messages(tmp_path: Path) -> None:
    with pytest.raises(TaggantError, match="is no folder; write the one that `taggant release"):
        open_release(tmp_path / "none")
    write(signed(even_source()), tmp_path / "r")
    hashes, stated = tmp_path / "r" / "SHA256SUMS", tmp_path / "r" / "manifest.json"
    content = hashes.read_bytes()
    for damage, message in (
        (b"x" + content, "SHA256SUMS is missing or damaged"),
        (content[:-1] + b"x\n", "SHA256SUMS is not the list that the manifest names"),
        (content.replace(b"  train/", b"  ../train/"), "line 1 names a file outside the release"),
        (content.replace(b"  train/", b"  /train/"), "line 1 names a file outside the release"),
    ):
        hashes.write_bytes(damage)
        with pytest.raises(TaggantError, match=message):
            open_release(tmp_path / "r")
    hashes.write_bytes(content)
    facts = json.loads(stated.read_text())
    for change, message in (({"format": "other"}, "has the format 'other'"), ({"more": 1}, "manifest.json is damaged")):
        stated.write_text(json.dumps({**facts, **change}))
        with pytest.raises(TaggantError, match=message):
            open_release(tmp_path / "r")

"""Signatures and releases: ragged shapes, overlay, read-back, planted faults."""

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taggant_lightning.data import release as release_module
from taggant_lightning.data.release import check_release, encode_png, open_release, write_release
from taggant_lightning.data.signature import Signature, pixel_digest
from taggant_lightning.data.sources import ArraySource, ImageSource, folder_source
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import sha256_hex

ALL = np.arange(12)


class Ragged(ImageSource):
    """Images of different shapes."""

    def __init__(self) -> None:
        rng = np.random.default_rng(2)
        self.stored = [rng.integers(0, 256, (3, 5 + i, 9 - i % 3), dtype=np.uint8) for i in range(12)]
        self.labels, self.classes = np.arange(12) % 3, ["a", "b", "c"]

    def pixels(self, index: int) -> np.ndarray:
        return self.stored[index]

    def _identity(self) -> Any:
        return [pixel_digest(p) for p in self.stored]


def sign(source: ImageSource, indices: tuple[int, ...] = (1, 4, 7), bound: int = 5) -> Signature:
    rng = np.random.default_rng(5)
    steps = []
    for i in indices:
        pixels = source.pixels(i).astype(np.int16)
        steps.append(np.clip(rng.integers(-bound, bound + 1, pixels.shape), -pixels, 255 - pixels).astype(np.int16))
    return Signature(
        method="data_taggants",
        indices=np.array(indices),
        steps=steps,
        served=np.arange(len(indices)),
        originals=[pixel_digest(source.pixels(i)) for i in indices],
        fingerprint=source.fingerprint,
        bound=bound,
        commitment="ab" * 32,
        facts={"cosine_mean": 0.5},
    )


@pytest.mark.parametrize("make", [Ragged, lambda: ArraySource(np.full((12, 1, 4, 4), 250, np.uint8), np.arange(12) % 3)])
def test_round_trip_and_overlay(make: Any, tmp_path: Path) -> None:
    source = make()
    signature = sign(source)
    folder = signature.save(tmp_path / "s")
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    again = Signature.load(folder)
    assert [s.tolist() for s in again.steps] == [s.tolist() for s in signature.steps]
    overlay = again.apply(source)
    assert list(overlay.signed_indices) == [1, 4, 7]
    for i in range(12):
        step = overlay.pixels(i).astype(int) - source.pixels(i)
        assert np.array_equal(step, signature.steps[(1, 4, 7).index(i)] if i in (1, 4, 7) else 0 * step)
    assert overlay.fingerprint != source.fingerprint
    assert overlay.labels.tolist() == source.labels.tolist()


def test_another_dataset_is_refused() -> None:
    signature, other = sign(Ragged()), Ragged()
    other.stored[0] = other.stored[0] ^ 1
    with pytest.raises(TaggantError, match="the Signature was made for the dataset .* and this one is"):
        signature.apply(other)


def test_another_image_behind_the_same_fingerprint_is_refused() -> None:
    source = Ragged()
    overlay = sign(source).apply(source)
    source.stored[4] = source.stored[4] ^ 1
    with pytest.raises(TaggantError, match="an image is not the one that was signed"):
        overlay.pixels(4)


def test_additions_are_refused_and_not_dropped(tmp_path: Path) -> None:
    from dataclasses import replace

    more = replace(sign(Ragged()), additions=[np.zeros((3, 4, 4), np.uint8)])
    for call in (lambda: more.save(tmp_path / "s"), lambda: more.apply(Ragged())):
        with pytest.raises(TaggantError, match="has 1 additions; only replacements are supported so far"):
            call()


def test_steps_beyond_the_pixel_range_are_refused() -> None:
    source = Ragged()
    signature = sign(source)
    signature.steps[0][:] = 300
    with pytest.raises(TaggantError, match="a signed image leaves the pixel range"):
        signature.apply(source).pixels(1)


@pytest.mark.parametrize("name", ["signature.json", "signature.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_damaged_signature(tmp_path: Path, name: str, damage: str) -> None:
    path = sign(Ragged()).save(tmp_path / "s") / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-20] if damage == "cut" else content[:-3] + b"\x07\x07\x07")
    with pytest.raises(TaggantError, match="damaged|does not exist"):
        Signature.load(tmp_path / "s")
    with pytest.raises(TaggantError, match="is no folder; write the one that TaggantSigning made"):
        Signature.load(tmp_path / "other")


@pytest.mark.parametrize("layout", ["png", "npz"])
def test_release_reads_back_equal(tmp_path: Path, layout: str) -> None:
    source = (
        Ragged()
        if layout == "png"
        else ArraySource(np.random.default_rng(0).integers(0, 256, (12, 3, 6, 6), dtype=np.uint8), ALL % 3)
    )
    overlay = sign(source).apply(source)
    kept = np.array([0, 1, 4, 5, 7, 10])
    report = write_release(overlay, kept, tmp_path / "r", format=layout, commitment="ab" * 32, statement="words")
    assert report == check_release(tmp_path / "r", overlay, kept)
    assert report == {"num_images": 6, "num_changed": 3, "max_step": 5, "bound": 5}
    released = open_release(tmp_path / "r")
    assert all(np.array_equal(released.pixels(place), overlay.pixels(int(i))) for place, i in enumerate(kept))
    assert json.loads((tmp_path / "r" / "manifest.json").read_text())["commitment"] == "ab" * 32
    text = (tmp_path / "r" / "manifest.json").read_text()
    assert "signed" not in text
    assert len({p.stat().st_mtime for p in (tmp_path / "r").rglob("*") if p.is_file()}) == 1
    with pytest.raises(TaggantError, match="exists already; name a new folder"):
        write_release(overlay, kept, tmp_path / "r", format=layout, commitment=None, statement="")


def test_release_leaves_nothing_half_written(tmp_path: Path) -> None:
    source = Ragged()
    overlay = sign(source).apply(source)
    source.stored[7] = source.stored[7] ^ 1
    for layout, message in (
        ("png", "an image is not the one"),
        ("npz", "an image is not the one"),
        ("tar", "format='tar' is unknown"),
    ):
        with pytest.raises(TaggantError, match=message):
            write_release(overlay, ALL, tmp_path / "r", format=layout, commitment=None, statement="")
    assert not list(tmp_path.iterdir())
    overlay = sign(Ragged()).apply(Ragged())
    with pytest.raises(TaggantError, match="images of one shape"):
        write_release(overlay, ALL, tmp_path / "r", format="npz", commitment=None, statement="")
    assert not list(tmp_path.iterdir())


def tamper(folder: Path, place: int, pixels: np.ndarray | None = None, label: int | None = None, honest: bool = True) -> None:
    """Change one file of a release, with the manifest following suit."""
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["files"][place]
    if label is not None:
        entry["label"] = label
    if pixels is not None:
        data = encode_png(pixels)
        (folder / entry["name"]).write_bytes(data)
        entry["bytes"] = len(data)
        if honest:
            entry["sha256"] = sha256_hex(data)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_check_finds_planted_faults(tmp_path: Path) -> None:
    source = Ragged()
    overlay = sign(source).apply(source)

    def released(name: str) -> Path:
        write_release(overlay, ALL, tmp_path / name, format="png", commitment=None, statement="")
        return tmp_path / name

    far = overlay.pixels(4).astype(int)
    far[0, 0, 0] = int(source.pixels(4)[0, 0, 0]) + (6 if source.pixels(4)[0, 0, 0] < 128 else -6)
    faults: dict[str, tuple[dict[str, Any], str]] = {
        "bound": ({"place": 4, "pixels": far.astype(np.uint8)}, "differs by 6 steps and the bound is 5"),
        "label": ({"place": 2, "label": 0}, "labels or classes differ"),
        "other": (
            {"place": 3, "pixels": np.clip(source.pixels(3).astype(int) + 1, 0, 255).astype(np.uint8)},
            "not those of the Signature",
        ),
        "undone": ({"place": 4, "pixels": source.pixels(4)}, "not those of the Signature"),
        "shape": ({"place": 3, "pixels": source.pixels(3)[:, :-1]}, "image 3 has shape"),
        "hash": ({"place": 3, "pixels": source.pixels(3) ^ 1, "honest": False}, "differs from its hash"),
    }
    for name, (change, message) in faults.items():
        folder = released(name)
        check_release(folder, overlay, ALL)
        tamper(folder, **change)
        with pytest.raises(TaggantError, match=message):
            check_release(folder, overlay, ALL)


@pytest.mark.parametrize("classes", [None, ["../escape", "T-shirt/top", "Bag"], ["b", "B", "a"], [".", "..", "x"]])
def test_class_folders_sort_to_their_labels(classes: list[str] | None, tmp_path: Path) -> None:
    """An ImageFolder reader, who knows no manifest, must see the same labels; names must not leave the folder."""
    count = 12 if classes is None else 3
    source = ArraySource(
        np.random.default_rng(0).integers(0, 256, (24, 3, 4, 4), dtype=np.uint8), np.arange(24) % count, classes
    )
    overlay = sign(source).apply(source)
    write_release(overlay, np.arange(24), tmp_path / "a" / "r", format="png", commitment=None, statement="")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["r"]
    seen = folder_source(tmp_path / "a" / "r" / "train")
    assert len(seen.classes) == count
    by_pixels = {overlay.pixels(i).tobytes(): int(source.labels[i]) for i in range(24)}
    assert all(by_pixels[seen.pixels(i).tobytes()] == seen.labels[i] for i in range(24))
    assert open_release(tmp_path / "a" / "r").classes == source.classes


def test_release_that_fails_its_check_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Ragged()
    overlay = sign(source).apply(source)
    monkeypatch.setattr(release_module, "encode_png", lambda pixels: encode_png(pixels ^ 1))
    with pytest.raises(TaggantError, match="do not publish"):
        write_release(overlay, ALL, tmp_path / "r", format="png", commitment=None, statement="")
    assert not list(tmp_path.iterdir())


def test_open_release_messages(tmp_path: Path) -> None:
    with pytest.raises(TaggantError, match="is no folder; write the one that `taggant release"):
        open_release(tmp_path / "none")
    source = Ragged()
    write_release(sign(source).apply(source), ALL, tmp_path / "r", format="png", commitment=None, statement="")
    next((tmp_path / "r").rglob("00000003.png")).unlink()
    with pytest.raises(TaggantError, match="00000003.png is missing or has another size"):
        open_release(tmp_path / "r")

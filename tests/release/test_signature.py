"""Signatures: ragged shapes, overlay, damage, additions."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taggant_lightning.data.sources import ArraySource
from taggant_lightning.errors import TaggantError
from taggant_lightning.release.signature import Addition, Signature
from tests.release.signed import Ragged, sign, with_additions


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


def test_additions_are_stored_and_appended(tmp_path: Path) -> None:
    source, signature = Ragged(), with_additions(Ragged())
    again = Signature.load(signature.save(tmp_path / "s"))
    assert json.loads((tmp_path / "s" / "signature.json").read_text())["format"].endswith("/v2")
    overlay = again.apply(source)
    assert len(overlay) == 15
    assert overlay.labels.tolist() == [*source.labels.tolist(), 2, 0, 1]
    for place, addition in enumerate(signature.additions):
        assert np.array_equal(overlay.pixels(12 + place), addition.pixels)
    assert overlay.changed_indices == [1, 4, 7, 12, 13, 14]
    assert overlay.fingerprint not in (source.fingerprint, sign(source).apply(source).fingerprint)
    plain = sign(source).save(tmp_path / "plain")
    assert json.loads((plain / "signature.json").read_text())["format"].endswith("/v1")


def test_additions_lie_among_the_others_at_places_that_nobody_can_tell() -> None:
    signature = with_additions(Ragged())
    used = np.arange(0, 12, 2)
    places = signature.among(used, 12)
    assert sorted(places.tolist()) == [0, 2, 4, 6, 8, 10, 12, 13, 14]
    assert [i for i in places.tolist() if i < 12] == used.tolist()
    assert places[-3:].tolist() != [12, 13, 14]
    assert signature.among(used, 12).tolist() == places.tolist()
    assert sign(Ragged()).among(used, 12) is used


@pytest.mark.parametrize(
    ("change", "said"), [({"label": 3}, "3 channels and label 3"), ({"pixels": 1}, "1 channels and label")]
)
def test_additions_that_do_not_fit(change: dict[str, int], said: str) -> None:
    wrong = Addition(np.zeros((change.get("pixels", 3), 4, 4), np.uint8), change.get("label", 0), 0)
    with pytest.raises(TaggantError, match=f"{said}.* images of this source have 3, and labels 0..2"):
        replace(sign(Ragged()), additions=[wrong]).apply(Ragged())


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

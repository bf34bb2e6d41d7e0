"""Signatures: ragged shapes, overlay, damage, additions."""

import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taggant_lightning.data.sources import ArraySource
from taggant_lightning.errors import TaggantError
from taggant_lightning.release.signature import Signature
from tests.release.signed import Ragged, sign


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

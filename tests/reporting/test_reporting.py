"""Pictures are written, and sentences are honest."""

import math
from pathlib import Path

import numpy as np
import pytest

from taggant_lightning.evidence.record import MEANING
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.reporting.figures import hit_curves, signed_panel
from taggant_lightning.reporting.sentences import finding, meaning, upper_bound, visibility
from taggant_lightning.verdict.verdict import judge


@pytest.mark.parametrize("channels", [1, 3])
def test_panel(tmp_path: Path, channels: int) -> None:
    from PIL import Image

    images = [np.full((channels, 8, 8), 100, np.uint8)] * 3
    signed_panel(images, [i + 5 for i in images], tmp_path / "p.png", bound=5, gain=4)
    assert Image.open(tmp_path / "p.png").size[0] > 300


def test_curves(tmp_path: Path) -> None:
    hit_curves(
        {"a": [(1, 2.0), (2, 4.0)], "b": [(1, 0.0), (2, 1.0)]}, tmp_path / "c.png", num_keys=5, rate=0.1, detected_from=4
    )
    assert (tmp_path / "c.png").stat().st_size > 5000


def test_sentences(keys: KeySet) -> None:
    record = judge(np.array([1, 1, 4, 2, 1]), keys)
    sentence = finding("Bob", record)
    assert "Bob answered 3 of 5 keys" in sentence
    assert "p ≤ 0.21" in sentence  # P[Bin(5, 1/3) >= 3] = 51/243
    assert MEANING in meaning()
    assert upper_bound(-500.0) == "10^-500.0"


@pytest.mark.parametrize("log10_p", [0.0, -0.05, -0.4341, -0.8763, -1.3, -2.999, -3.0, -5.146, -7.888, -16.25, -400.01])
def test_a_bound_never_claims_more_than_was_found(log10_p: float) -> None:
    text = upper_bound(log10_p)
    shown = float(text.removeprefix("10^")) if text.startswith("10^") else math.log10(float(text))
    assert log10_p - 1e-9 <= shown <= log10_p + 0.11


@pytest.mark.parametrize(
    ("steps", "psnr", "word"),
    [(64, 15.0, "plainly visible"), (16, 28.0, "faintly visible"), (16, 20.0, "plainly visible"), (8, 36.0, "hard to see")],
)
def test_visibility_is_not_flattered(steps: int, psnr: float, word: str) -> None:
    assert word in visibility(steps, psnr)

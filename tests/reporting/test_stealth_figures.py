"""Pictures of how well signed images hide."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taggant_lightning.errors import TaggantError
from taggant_lightning.release.signature import OverlaySource
from taggant_lightning.reporting.stealth_figures import roc_figure, signed_examples
from tests.release.signed import Ragged, sign


def test_curves(tmp_path: Path) -> None:
    rates = np.geomspace(1e-3, 1, 20).tolist()
    roc_figure({"knn": (rates, rates), "spectral_signatures": (rates, [r**0.5 for r in rates])}, tmp_path / "roc.png")
    with Image.open(tmp_path / "roc.png") as image:
        assert image.size[0] > 500
        assert "Software" not in image.info


def test_examples(tmp_path: Path) -> None:
    source = Ragged()
    signature = sign(source)  # type: ignore[arg-type]
    signed_examples(OverlaySource(source, signature), tmp_path / "panel.png", count=2)
    assert (tmp_path / "panel.png").stat().st_size > 1000
    nothing = signature.__class__(**{**vars(signature), "steps": [s * 0 for s in signature.steps]})
    with pytest.raises(TaggantError, match="changes no image"):
        signed_examples(OverlaySource(source, nothing), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()

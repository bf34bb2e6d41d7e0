"""LPIPS: the reference pair, small images, gradients, wrong files."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from taggant_lightning.errors import TaggantError
from taggant_lightning.models.perceptual import Perceptual

DATA = os.environ.get("TAGGANT_DATA")


@pytest.mark.skipif(DATA is None, reason="TAGGANT_DATA is not set: no reference pair at hand")
def test_reference_pair() -> None:
    folder = Path(str(DATA)) / "lpips"
    perceptual = Perceptual("alex", str(folder / "alexnet_features.pth"))

    def read(name: str) -> torch.Tensor:
        pixels = np.asarray(Image.open(folder / name).convert("RGB"))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255

    reference = read("ex_ref.png")
    assert perceptual(reference, read("ex_p0.png")).item() == pytest.approx(0.722, abs=5e-4)
    assert perceptual(reference, read("ex_p1.png")).item() == pytest.approx(0.138, abs=5e-4)


@pytest.mark.skipif(DATA is None, reason="TAGGANT_DATA is not set: no trunk at hand")
def test_squeeze_trunk_and_wrong_trunk() -> None:
    folder = Path(str(DATA)) / "lpips"
    squeeze = Perceptual("squeeze", str(folder / "squeezenet1_1_features.pth"))
    assert squeeze(torch.zeros(1, 3, 64, 64), torch.rand(1, 3, 64, 64)).item() > 0
    with pytest.raises(TaggantError, match="belongs to another trunk"):
        Perceptual("squeeze", str(folder / "alexnet_features.pth"))


def test_small_and_grey_images(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    perceptual = Perceptual("squeeze", "random")
    images = torch.rand(2, 1, 8, 8)
    with caplog.at_level(logging.INFO):
        distances = perceptual(images, torch.rand(2, 1, 8, 8))
        perceptual(images, images)
    assert caplog.text.count("images of 8×8 are enlarged to a side of 64") == 1
    assert distances.shape == (2,)
    assert (distances > 0).all()
    assert torch.equal(perceptual(images, images), torch.zeros(2))


def test_differentiable_and_frozen() -> None:
    perceptual = Perceptual("squeeze", "random").double()
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    others = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(perceptual(images, others).sum(), others)
    direction, step = torch.randn_like(others), 1e-6
    with torch.no_grad():
        slope = (perceptual(images, others + step * direction) - perceptual(images, others - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-3)
    assert not any(p.requires_grad for p in perceptual.parameters())
    (zero,) = torch.autograd.grad(perceptual(others, others.detach()).sum(), others)
    assert torch.isfinite(zero).all()


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(TaggantError, match="perceptual_trunk='resnet' is unknown; write one of alex, squeeze, vgg"):
        Perceptual("resnet", "random")
    with pytest.raises(TaggantError, match="perceptual_weights=.*none.pth is no file"):
        Perceptual("squeeze", str(tmp_path / "none.pth"))
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(TaggantError, match="cannot be read"):
        Perceptual("squeeze", str(tmp_path / "bad.pth"))

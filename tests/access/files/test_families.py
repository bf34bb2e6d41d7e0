"""The lists of operators against classifiers of many families, as torch.export, TorchScript and ONNX write them."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

from taggant_lightning.access.files.asking import ask_with_controls
from taggant_lightning.access.files.exported import open_exported
from taggant_lightning.access.files.onnx import open_onnx
from tests.access.files.models import CLASSES, images, same

FAMILIES: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "seresnet18": {},
    "densenet121": {},
    "efficientnet_b0": {},
    "mobilenetv3_small_100": {},
    "regnety_002": {},
    "convnext_atto": {},
    "vit_tiny_patch16_224": {"img_size": 64, "depth": 2},
    "deit_tiny_distilled_patch16_224": {"img_size": 64, "depth": 2},
    "swin_tiny_patch4_window7_224": {"img_size": 56, "depths": (1, 1, 2, 1)},
    "swinv2_tiny_window8_256": {"img_size": 64, "depths": (1, 1, 2, 1)},
    "mixer_s32_224": {"img_size": 64},
    "levit_128s": {"img_size": 224},
    "edgenext_xx_small": {},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    options = FAMILIES[name]
    model = timm.create_model(name, num_classes=CLASSES, **options).eval()
    size = options.get("img_size", 64)
    example, asked = torch.rand(2, 3, size, size), images(3, size)
    with torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch", max=1024)},))
        torch.export.save(program, tmp_path / "program")
        torch.jit.trace(model, example).save(str(tmp_path / "trace"))
        torch.jit.script(model).save(str(tmp_path / "script"))
        with contextlib.suppress(torch.onnx.errors.SymbolicValueError):  # adaptive pooling that ONNX has not
            torch.onnx.export(
                model, (example,), tmp_path / "m.onnx", dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
            )
    for form in ("program", "trace", "script"):
        same(ask_with_controls(open_exported(tmp_path / form, form), asked).answers, model, asked)
    if (tmp_path / "m.onnx").exists():
        same(ask_with_controls(open_onnx(tmp_path / "m.onnx", "onnx"), asked).answers, model, asked)

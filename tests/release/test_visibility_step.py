"""experiments/steps/visibility.py: figures, a panel for its owner alone, messages."""

import importlib.util
import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import taggant_lightning
from taggant_lightning import ImageDataModule
from taggant_lightning.release.signature import Signature
from taggant_lightning.release.visibility import visibility
from tests.conftest import write_tiny
from tests.release.signed import sign


@pytest.fixture(scope="module")
def step() -> Iterator[ModuleType]:
    path = Path(taggant_lightning.__file__).parent.parent / "experiments" / "steps" / "visibility.py"
    spec = importlib.util.spec_from_file_location("visibility_step", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)  # where it finds what steps share
        spec.loader.exec_module(module)
        yield module
    sys.modules.pop("common", None)  # a common name


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    write_tiny(tmp_path / "data.npz", size=12)
    (tmp_path / "data.yaml").write_text(f"data:\n  source: npz\n  root: {tmp_path / 'data.npz'}\n")
    sign(ImageDataModule("npz", str(tmp_path / "data.npz")).train_source).save(tmp_path / "signature")
    return ["--config", str(tmp_path / "data.yaml"), "--signature", str(tmp_path / "signature"), "--out", str(tmp_path / "out")]


def test_figures_and_panel(step: ModuleType, words: list[str], tmp_path: Path) -> None:
    signed = ["--data", "SignedDataModule", "--data.signature", str(tmp_path / "signature")]
    step.main([*words, "--perceptual-weights", "random", "--trunk", "squeeze", *signed])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(metrics) == {"psnr", "psnr_min", "ssim", "lpips"}
    source = ImageDataModule("npz", str(tmp_path / "data.npz")).train_source
    after = Signature.load(tmp_path / "signature").apply(source)
    wanted = visibility((source.pixels(i), after.pixels(i)) for i in (1, 4, 7))
    assert metrics["psnr"] == pytest.approx(wanted["psnr_mean"])
    assert metrics["ssim"] == pytest.approx(wanted["ssim_mean"])
    panel = tmp_path / "out" / "panel.png"
    assert panel.stat().st_size > 1000
    assert stat.S_IMODE(panel.stat().st_mode) == 0o600


def test_without_weights(step: ModuleType, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step.main([*words, "--pairs", "2"])
    assert "lpips" not in json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert "psnr=" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--pairs", "0"], "pairs=0 must be at least 1"),
        (["--perceptual-weights", "random", "--trunk", "oak"], "perceptual_trunk='oak' is unknown"),
        (["--signature", "nowhere"], "signature=nowhere is no folder"),
    ],
)
def test_bad_input(
    step: ModuleType, words: list[str], tmp_path: Path, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        step.main([*words, *more])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

"""`taggant plan`: presets run, files are written, bad input is one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from taggant_lightning.cli import main
from taggant_lightning.planning.request import PRESETS

SMALL = ["plan", "--images", "1000", "--image-size", "16", "--model", "small_cnn", "--images-per-key", "8"]


def test_help_stays_light() -> None:
    code = (
        "import sys\nfrom taggant_lightning.cli import main\ntry:\n    main(['plan', '--help'])\nexcept SystemExit:\n    pass\n"
    )
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "False"
    assert all(name in done.stdout for name in PRESETS)


def test_a_plan_and_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--device", "cpu", "--devices", "2", "1", "--json", str(tmp_path / "plan.json")]) == 0
    shown = capsys.readouterr().out
    for words in (
        "signing: crafting",
        "training one model",
        "detection",
        "memory a device, signing",
        "assumptions",
        "measured",
    ):
        assert words in shown
    figures = json.loads((tmp_path / "plan.json").read_text())
    assert figures["request"]["devices"] == [1, 2]
    assert set(figures["hours"]) == {"1", "2"}
    assert figures["disk"]["dataset"] == 1000 * 3 * 16 * 16


@pytest.mark.parametrize(
    "words",
    [
        ["cifar100-resnet18"],
        ["cifar100-vit-tiny"],
        # The ImageNet ones at a size that a test can count in seconds; the figures are those of docs/scaling.md at 224.
        pytest.param(["imagenet-vit-s", "--image-size", "32"], marks=pytest.mark.slow),
        pytest.param(["imagenet-resnet50", "--image-size", "32", "--derivative", "exact"], marks=pytest.mark.slow),
        pytest.param(["100m-vit-s", "--image-size", "32", "--device", "a100"], marks=pytest.mark.slow),
    ],
)
def test_presets(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--preset", *words]) == 0
    shown = capsys.readouterr().out
    assert "assumed: published peaks" in shown
    assert "64 devices" in shown


def test_what_does_not_fit_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--images", "10000000", "--batch-size", "10000000", "--devices", "1"]) == 0
    assert "! does not fit: write a smaller --batch-size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--epochs", "0"], "epochs=0 must be at least 1"),
        (["--preset", "mnist"], "preset='mnist' is unknown"),
        (["--device", "tpu"], "device='tpu' is unknown"),
        (["--model", "mine"], "model_name='mine' is unknown"),
        (["--model-kwargs", "patch"], "model-kwargs='patch' is no JSON object"),
        (["--image-size", "18"], "image_size=18 does not suit small_cnn"),
        (["--model", "resnet50", "--image-size", "4", "--channels", "2", "--model-kwargs", '{"bad": 1}'], "do not suit"),
        (["--json", "nowhere/plan.json"], "json=nowhere/plan.json lies in no folder that exists"),
    ],
)
def test_bad_input(change: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *change]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1

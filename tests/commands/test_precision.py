"""Lightning's precisions train, sign and test, or are refused before the first epoch."""

from pathlib import Path

import pytest
import torch

from taggant_lightning.cli import main
from taggant_lightning.evidence.record import Detection
from taggant_lightning.release.signature import Signature
from tests.commands.test_cli import NEW, base

DTYPES = {"32-true": torch.float32, "64-true": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}


def signing(keys: Path, out: Path) -> list[str]:
    callback = ["--trainer.callbacks+", "TaggantSigning", "--trainer.callbacks.keys", str(keys), "--trainer.callbacks.out"]
    more = {"images_per_key": "4", "min_images_per_key": "1", "steps": "2", "snapshots": "[]", "derivative": "exact"}
    return [*callback, str(out), *(word for name, value in more.items() for word in (f"--trainer.callbacks.{name}", value))]


@pytest.mark.parametrize("precision", DTYPES)
def test_training_and_the_verdict(precision: str, tiny_npz: Path, tmp_path: Path) -> None:
    run, keys = tmp_path / "run", tmp_path / "keys"
    assert main([*NEW, "--out", str(keys)]) == 0
    words = [*base(tiny_npz, run), "--trainer.precision", precision, "--data.augment", "three_augment"]
    mixed = ["--model.mixup", "0.5", "--model.cutmix", "0.5"]
    average = ["--trainer.callbacks+", "AveragedWeights"]
    assert main(["fit", *words, *mixed, *average]) == 0
    checkpoint = run / "checkpoints" / "last.ckpt"
    detection = ["--trainer.callbacks+", "KeyDetection", "--trainer.callbacks.keys", str(keys)]
    assert main(["test", *words, *detection, "--ckpt_path", "last"]) == 0
    assert Detection.load(run / "detection.json").details["num_keys"] == 4
    student = ["--model", "Distillation", "--model.model_name", "small_mlp", "--model.teacher", str(checkpoint)]
    assert main(["fit", *words, *student, "--trainer.default_root_dir", str(tmp_path / "student")]) == 0
    weights = torch.load(tmp_path / "student" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {DTYPES[precision]}


def test_signing_in_double_precision(tiny_npz: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert main([*NEW, "--out", str(keys)]) == 0
    for precision in ("32-true", "64-true"):
        words = [*base(tiny_npz, tmp_path / precision), "--trainer.precision", precision]
        assert main(["fit", *words, *signing(keys, tmp_path / f"sig-{precision}")]) == 0
    single, double = (Signature.load(tmp_path / f"sig-{precision}") for precision in ("32-true", "64-true"))
    assert set(single.indices.tolist()) == set(double.indices.tolist())
    assert abs(single.facts["cosine_mean"] - double.facts["cosine_mean"]) < 0.05


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_signing_in_half_precision_is_refused_before_the_first_epoch(
    precision: str, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    assert main([*NEW, "--out", str(keys)]) == 0
    words = [*base(tiny_npz, tmp_path / "run"), "--trainer.precision", precision, *signing(keys, tmp_path / "sig")]
    assert main(["fit", *words]) == 2
    assert "the surrogate's weights are in half precision; write --trainer.precision 32-true" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()

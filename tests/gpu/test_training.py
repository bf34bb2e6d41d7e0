"""How a CUDA device trains: without waiting at each step, channels last, in fused steps, resumed from either device.

Skipped where there is none: `python -m pytest tests/gpu` on a machine with a GPU.
"""

import traceback
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.models.averaging import AveragedWeights
from taggant_lightning.reporting.progress import PlainProgress, TimedBar
from taggant_lightning.reporting.throughput import Throughput
from tests.conftest import write_tiny

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(600),
]
SMALL = {"num_classes": 3, "image_size": 8}


class Waits(Callback):
    """Has torch warn of what waits for the device, from the fifth step to the last and from the third batch of a validation."""

    def __init__(self) -> None:
        self._off()

    def _on(self) -> None:
        torch.cuda.set_sync_debug_mode("warn")

    def _off(self) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step > 3:  # what is made at the first steps may wait
            self._on()

    def on_validation_start(self, *_: object) -> None:
        self._off()

    def on_train_epoch_end(self, *_: object) -> None:
        self._off()

    def on_validation_batch_start(self, *arguments: object) -> None:
        if arguments[3] > 1:
            self._on()

    def on_validation_epoch_end(self, *_: object) -> None:
        self._off()


def fit(folder: Path, model: ImageClassifier, epochs: int = 2, *callbacks: Callback, **options: object) -> pl.Trainer:
    start = options.pop("start", None)
    settings = {"accelerator": "gpu", "devices": 1, "logger": False, "num_sanity_val_steps": 0, "enable_model_summary": False}
    settings |= {"enable_progress_bar": False, "enable_checkpointing": False}
    run = pl.Trainer(max_epochs=epochs, default_root_dir=str(folder), callbacks=list(callbacks), **{**settings, **options})
    write_tiny(folder / "tiny.npz")
    data = ImageDataModule("npz", str(folder / "tiny.npz"), image_size=8, batch_size=4)
    run.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
    return run


@pytest.mark.parametrize("name", ["small_cnn", "resnet10t", "small_vit"])
@pytest.mark.parametrize("bar", [PlainProgress, TimedBar])
def test_no_step_waits_for_the_device(name: str, bar: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taggant_lightning.reporting.progress.DRAWN", 1e9)
    monkeypatch.setattr("taggant_lightning.reporting.progress.SECONDS", 1e9)
    model = ImageClassifier(name, optimizer="sgd", mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4], **SMALL)
    places: set[str] = set()

    def note(message: object, *_: object, **__: object) -> None:
        if "called a synchronizing" in str(message):
            places.add(" < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(traceback.extract_stack()[:-1][-9:])))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", note)
        fit(tmp_path, model, 1, Waits(), Throughput(), bar(), enable_progress_bar=True, precision="bf16-mixed")
    torch.cuda.set_sync_debug_mode("default")
    # What is told at the last step of an epoch is read then, and so are the averages of a validation.
    assert not [place for place in sorted(places) if "progress.py" not in place and "evaluation_loop.py" not in place]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_fused_steps_and_clipping(optimizer: str, precision: str, tmp_path: Path) -> None:
    model = ImageClassifier("small_resnet", optimizer=optimizer, lr=0.01, **SMALL)
    run = fit(tmp_path, model, 1, AveragedWeights(0.9), precision=precision, gradient_clip_val=1.0)
    fused = run.optimizers[0].param_groups[0].get("fused")
    assert bool(fused) == (optimizer != "lamb" and precision != "16-mixed")
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
@pytest.mark.parametrize("first", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ["small_cnn", "cifar_resnet50"])
def test_resumed_on_another_device(name: str, first: str, optimizer: str, tmp_path: Path) -> None:
    model = ImageClassifier(name, optimizer=optimizer, lr=0.01, **SMALL)
    run = fit(tmp_path, model, 1, accelerator=first)
    run.save_checkpoint(tmp_path / "a.ckpt")
    for device in ("gpu", "cpu"):
        again = ImageClassifier(name, optimizer=optimizer, lr=0.01, **SMALL)
        run = fit(tmp_path, again, 2, accelerator=device, start=tmp_path / "a.ckpt")
        assert bool(run.optimizers[0].param_groups[0].get("fused")) == (device == "gpu" and optimizer != "lamb")
        assert all(torch.isfinite(parameter).all() for parameter in again.parameters())


def test_channels_last_gives_the_same_answers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ImageClassifier("cifar_resnet18", **SMALL).cuda().eval()
    x = torch.rand(16, 3, 8, 8, device="cuda")
    before = model(x)
    model.lay_out_for("cuda")
    assert model.model.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(model(x), before, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["small_cnn", "cifar_resnet18", "small_vit"])
def test_compiled_steps(name: str, tmp_path: Path) -> None:
    losses = []
    for compile in (False, True):
        pl.seed_everything(1, verbose=False)
        model = ImageClassifier(name, compile=compile, optimizer="sgd", lr=0.01, **SMALL)
        run = fit(tmp_path, model, 1, precision="bf16-mixed")
        losses.append(float(run.callback_metrics["val/loss"]))
    assert losses[0] == pytest.approx(losses[1], abs=0.05)

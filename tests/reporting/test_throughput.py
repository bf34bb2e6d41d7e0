"""Throughput: near the truth for a slow loader, and without effect on training."""

import time
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.reporting.throughput import Throughput, count

READ, STEP, BATCH, BATCHES = 0.03, 0.01, 4, 12


class Sleepy(Dataset[tuple[torch.Tensor, int]]):
    def __len__(self) -> int:
        return BATCH * BATCHES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        time.sleep(READ / BATCH)
        return torch.full((2,), index / 10), index % 2


class Slow(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        time.sleep(STEP)
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        time.sleep(0.02)  # counts for neither

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path: Path, callbacks: list[pl.Callback], **more: object) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    return pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=2, default_root_dir=tmp_path, callbacks=callbacks, **quiet, **more
    )


@pytest.mark.parametrize("more", [{}, {"val_check_interval": 0.25}])
def test_a_slow_loader_shows(tmp_path: Path, more: dict[str, object]) -> None:
    loader = DataLoader(Sleepy(), batch_size=BATCH)
    run = trainer(tmp_path, [Throughput()], num_sanity_val_steps=0, **more)
    run.fit(Slow(), loader, DataLoader(Sleepy(), batch_size=BATCH) if more else None)
    found = {name: float(value) for name, value in run.callback_metrics.items()}
    # The truth is 0.75 and 100 images a second; other work on a busy machine takes its part of both.
    assert 0.6 < found["train/data_wait"] < 0.85
    assert 40 < found["train/images_per_second"] <= BATCH / (READ + STEP)


def test_training_is_bit_identical_without_it(tmp_path: Path, tiny_npz: Path) -> None:
    weights = []
    for callbacks in ([], [Throughput()]):
        pl.seed_everything(3, verbose=False)
        data = ImageDataModule("npz", root=str(tiny_npz), image_size=8, batch_size=8, augment="simple")
        model = ImageClassifier("small_vit", num_classes=3, image_size=8, channels=3, drop_path=0.1)
        trainer(tmp_path, callbacks).fit(model, datamodule=data)
        weights.append((model.state_dict(), torch.rand(4)))
    assert all(torch.equal(weights[0][0][name], weights[1][0][name]) for name in weights[0][0])
    assert torch.equal(weights[0][1], weights[1][1])


def test_images_of_a_batch() -> None:
    assert count((torch.zeros(5, 3, 4, 4), torch.zeros(5))) == 5
    assert count([np.zeros((2, 3)), np.zeros(2)]) == 2
    assert count(torch.zeros(7)) == count((torch.zeros(7),)) == count({"x": 1}) == 0
    assert Throughput().rate == Throughput().wait == 0


@pytest.mark.parametrize(("on_device", "said"), [(False, True), (None, False)])
def test_says_what_bounds_images_that_stream(
    tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_device: bool | None, said: bool
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("taggant_lightning.reporting.throughput.rank_zero_info", lines.append)
    monkeypatch.setattr(Throughput, "wait", 0.6)
    data = ImageDataModule("npz", str(tiny_npz), on_device=on_device)
    model = ImageClassifier("small_mlp", num_classes=3, image_size=data.image_size)
    trainer(tmp_path, [Throughput()]).fit(model, datamodule=data)
    sentence = (
        "taggant: training waits for data 60% of the time; images are decoded by no loader processes, as asked for: write "
        "--data.num_workers N, up to the number of cores, a smaller load_size, or --data.backend ffcv"
    )
    assert lines == ([sentence] if said else [])

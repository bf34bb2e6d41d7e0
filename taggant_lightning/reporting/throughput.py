"""How fast training is, and how much of its time it waits for data."""

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from taggant_lightning.data.datamodule import ImageDataModule

LONG = 0.2  # share of the time that is worth a line


class Throughput(Callback):
    """Logs `train/images_per_second`, over all processes, and `train/data_wait` once an epoch.

    The wait is the share of the time, in [0, 1], between the end of one batch and the start of the next: reading and decoding
    images, the move to the device and augmentation, and logging; not validation. On a GPU the times are those of the process
    that feeds it. It draws no random numbers and touches no tensor of the training. Where training waits long for images that
    do not lie on the device, it says once what bounds them.
    """

    def __init__(self) -> None:
        self._told = False
        self.images, self.waited, self.worked = 0, 0.0, 0.0
        self._mark: float | None = None

    @property
    def rate(self) -> float:
        """Images a second of this process in this epoch; 0 before the first batch is done."""
        return self.images / max(1e-9, self.waited + self.worked)

    @property
    def wait(self) -> float:
        """Share of the time of this epoch, in [0, 1], that this process waited for data."""
        return self.waited / max(1e-9, self.waited + self.worked)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count: a run that resumes within an epoch sees no start of it."""
        self._begin()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._begin()

    def _begin(self) -> None:
        self.images, self.waited, self.worked = 0, 0.0, 0.0
        self._mark = time.perf_counter()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the wait."""
        now = time.perf_counter()
        if self._mark is not None:
            self.waited += now - self._mark
        self._mark = now

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the work and the images."""
        now = time.perf_counter()
        if self._mark is not None:
            self.worked += now - self._mark
        self._mark = now
        self.images += count(batch)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave a validation within an epoch out."""
        self._mark = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log both."""
        if self.images:
            pl_module.log("train/images_per_second", self.rate, reduce_fx="sum", sync_dist=True)
            pl_module.log("train/data_wait", self.wait, sync_dist=True)
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by the data connector
        if isinstance(data, ImageDataModule) and data.slowed_by and self.wait > LONG and not self._told:
            self._told = True
            rank_zero_info(f"taggant: training waits for data {self.wait:.0%} of the time; {data.slowed_by}")


def count(batch: Any) -> int:
    """Return the number of images of a batch (images, labels): that of its labels. 0 for other batches."""
    return len(batch[1]) if isinstance(batch, tuple | list) and len(batch) > 1 and hasattr(batch[1], "__len__") else 0

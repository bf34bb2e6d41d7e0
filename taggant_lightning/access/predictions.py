"""Ranked labels as a CSV file: one row a query, its number and the labels, best first."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BasePredictionWriter

from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import write_atomic


def write_predictions(path: Path, answers: Sequence[Answer]) -> None:
    """Write `query,labels`; labels are separated by spaces, and empty where the model gave no usable answer."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["query", "labels"])
    writer.writerows([a.query, " ".join(map(str, a.labels or ()))] for a in answers)
    write_atomic(path, text.getvalue().encode())


class PredictionWriter(BasePredictionWriter):
    """Writes `predictions.csv` into the run directory at the end of `predict`; queries are numbered in the data's order."""

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse several processes: each sees a part of the queries only.

        Raises:
            TaggantError: If several processes predict.
        """
        super().setup(trainer, pl_module, stage)
        if trainer.world_size > 1:
            raise TaggantError(f"predict runs on {trainer.world_size} processes; write --trainer.devices 1")

    def write_on_epoch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        """Rank the logits and write them."""
        path = Path(trainer.default_root_dir) / "predictions.csv"
        write_predictions(path, rank(torch.cat(list(predictions)).float().cpu().numpy()))
        print(f"taggant: predictions={path}")

"""What `taggant predict` writes: a callback of Lightning around `write_predictions`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BasePredictionWriter

from taggant_lightning.access.answer import rank
from taggant_lightning.access.predictions import write_predictions
from taggant_lightning.errors import TaggantError
from taggant_lightning.outside import say


class PredictionWriter(BasePredictionWriter):
    """Writes `predictions.csv` into the run directory at the end of `predict`.

    Queries from a folder have the names of their files, without suffix; images of the test split are numbered in their order.
    """

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
        answers = rank(torch.cat(list(predictions)).float().cpu().numpy())
        names = getattr(trainer.datamodule, "query_names", None)  # type: ignore[attr-defined]  # set by the data connector
        write_predictions(path, answers, names)
        say(f"taggant: predictions={path}")

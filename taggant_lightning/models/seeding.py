"""Random state by step, so that dropout and stochastic depth do not tell a resumed run from an uninterrupted one."""

import os
import random
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from taggant_lightning.streams import stream


class SeededSteps(Callback):
    """Seeds torch, numpy and random before each training step, from the run's seed, the epoch, the batch and the process.

    A Lightning checkpoint holds no random state; with this, a step's random numbers do not depend on what ran before it.
    `seed_everything` must have been called (the command line does); without a seed it does nothing.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the step."""
        seed = os.environ.get("PL_GLOBAL_SEED")
        if seed is None:
            return
        number = int(stream(int(seed), "step", trainer.current_epoch, batch_idx, trainer.global_rank).integers(2**32))
        torch.manual_seed(number)
        np.random.seed(number)  # noqa: NPY002  # other people's code draws from the global state
        random.seed(number)

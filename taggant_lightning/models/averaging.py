"""AveragedWeights: an exponential moving average of the weights, which validation, test and checkpoints see."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging

from taggant_lightning.errors import TaggantError
from taggant_lightning.models.layout import laid_out_like


class AveragedWeights(EMAWeightAveraging):
    """Keeps an exponential moving average of weights and buffers beside the model in training.

    Validation, KeyDetection, the checkpoint's `state_dict` (hence `test --ckpt_path`, `load_classifier` and the surrogates
    of TaggantSigning) and the model after `fit` have the averaged weights. Training goes on with its own, which the
    checkpoint holds too; TaggantSigning crafts between epochs against these.

    It is Lightning's callback, mended in five places: see the comments.

    Args:
        decay: Weight of the average so far, after each step; about the last 1/(1 - decay) steps count.

    Raises:
        TaggantError: If `decay` lies outside (0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise TaggantError(f"decay={decay} must lie between 0 and 1: the weight of the average so far, such as 0.999")
        super().__init__(decay=decay)
        self._swapped = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Copy the model, onto the device it will train on: at this moment it is still on the CPU."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lay the average out as the model is, now that it is on its device: steps of another layout are slow."""
        if self._average_model is not None:
            for average, own in zip(self._average_model.module.parameters(), pl_module.parameters(), strict=True):
                average.data = laid_out_like(average.data, own.data)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the averaged weights into the model."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._swapped = True

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the averaged weights in: callbacks after this one, such as KeyDetection, still ask the model."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the weights in training back."""
        if self._swapped and self._average_model is not None:
            self._swap_models(pl_module)
        self._swapped = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the weights in training in: other callbacks may still save a checkpoint to go on from, or craft."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the averaged weights in the model."""
        super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save both, each under its name also where a signal asks for it in the middle of a validation."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped and "current_model_state" in checkpoint:
            both = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = both

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take both up in `fit`; in `test`, where there is nothing to take up, say nothing."""
        if trainer.state.fn == "fit":
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

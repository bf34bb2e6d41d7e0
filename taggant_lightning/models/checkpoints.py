"""Checkpoints that are written whole or not at all."""

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import forget_leftovers, write_atomic

if TYPE_CHECKING:
    from taggant_lightning.models.classifier import ImageClassifier

CHECKPOINT_ENTRY = "image_classifier"  # where a checkpoint keeps the constructor's arguments


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place first, and moves it there when it is complete and on disk.

    Lightning's own writes elsewhere and copies: a kill or a full disk can leave half a `last.ckpt` where a whole one was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint; addresses such as s3://… are left to Lightning."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        forget_leftovers(place)
        write_atomic(place, content.getvalue())


class ThriftyCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint whose savings take at most about a tenth of a run's time.

    Where Lightning would save after an epoch or a validation, it saves nothing while less than `REST` times as long has passed
    as the last saving took, unless that was less than `QUICK` seconds. In the last epoch, and where training stops, it saves
    whenever Lightning would.
    """

    REST, QUICK = 9.0, 0.2

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._ended, self._took = -float("inf"), 0.0

    @property
    def state_key(self) -> str:
        """Lightning's own key, under which earlier checkpoints have it."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, if it is time."""
        if self._due(trainer):
            self._timed(lambda: super(ThriftyCheckpoint, self).on_train_epoch_end(trainer, pl_module))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, if it is time."""
        if self._due(trainer):
            self._timed(lambda: super(ThriftyCheckpoint, self).on_validation_end(trainer, pl_module))

    def _due(self, trainer: pl.Trainer) -> bool:
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs or trainer.max_steps > 0
        rested = self._took < self.QUICK or time.monotonic() - self._ended >= self.REST * self._took
        return bool(trainer.strategy.broadcast(last or rested))  # saving is done by all processes together

    def _timed(self, save: Callable[[], None]) -> None:
        before, began = self._last_global_step_saved, time.monotonic()
        save()
        if self._last_global_step_saved != before:
            self._ended, self._took = time.monotonic(), time.monotonic() - began


class ApartCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint beside others of the same settings: its state has a key of its own in a checkpoint."""

    key: str

    @property
    def state_key(self) -> str:
        """The key of its state."""
        return self.key


def keep_apart(callbacks: Sequence[pl.Callback]) -> None:
    """Let several ModelCheckpoints of the same monitor and intervals keep their states side by side, which Lightning refuses.

    The first one keeps Lightning's key, under which earlier checkpoints have it; the others' tells their file names too.

    Args:
        callbacks: Those of a trainer; changed in place. Subclasses of ModelCheckpoint are left as they are.
    """
    taken: set[str] = set()
    for callback in callbacks:
        if not isinstance(callback, ModelCheckpoint) or type(callback) not in (ModelCheckpoint, ThriftyCheckpoint):
            continue
        plain = callback.state_key
        named = f"{plain} {callback.filename}"
        key = next(key for key in (plain, named, *(f"{named} {n}" for n in range(len(callbacks)))) if key not in taken)
        taken.add(key)
        if key != plain:
            callback.__class__ = ApartCheckpoint
            vars(callback)["key"] = key


def write_classifier(model: "ImageClassifier", path: Path) -> None:
    """Write a model as a checkpoint that `taggant test`, `load_classifier` and fine-tuning take, without training to resume.

    Args:
        model: The model; a subclass is written as a plain ImageClassifier.
        path: The file; its folder is made where it is missing.
    """
    checkpoint: dict[str, Any] = {
        # Lightning migrates checkpoints from the version named here, and reads no file without one.
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
        "state_dict": {name: value.detach().cpu().clone() for name, value in model.state_dict().items()},
    }
    model.on_save_checkpoint(checkpoint)
    AtomicCheckpoints().save_checkpoint(checkpoint, path)


def checkpoint_in(folder: str, read: Sequence[str]) -> Path:
    """Return where a step writes its model: `model.ckpt` in a folder.

    Args:
        folder: The folder; need not exist.
        read: Checkpoints that the step reads.

    Raises:
        TaggantError: If the folder is a file, or the step would overwrite what it reads.
    """
    path = Path(folder) / "model.ckpt"
    if Path(folder).exists() and not Path(folder).is_dir():
        raise TaggantError(f"out={folder} is a file; name a folder")
    if path.resolve() in [Path(name).resolve() for name in read]:
        raise TaggantError(f"out={folder} would overwrite the checkpoint {path}, which is read; name another folder")
    return path

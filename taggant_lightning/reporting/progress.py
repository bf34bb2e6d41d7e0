"""Progress in a batch log: whole lines that can be searched, from the first process only."""

import sys
import time
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from taggant_lightning.reporting.throughput import Throughput

SECONDS = 30.0  # between two lines
DRAWN = 0.5  # seconds between two drawings of a bar


def progress_bar() -> ProgressBar:
    """Return a bar where there is a terminal, and lines where there is none."""
    return TimedBar() if sys.stderr.isatty() else PlainProgress()


class TimedBar(TQDMProgressBar):
    """Lightning's bar, drawn at most twice a second, with the loss of the last training step.

    The loss is read from the device only when the bar is drawn, so that the steps between need not wait for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._drawn = 0.0

    def _should_update(self, current: int, total: int | float) -> bool:
        now = time.monotonic()
        if not self.is_enabled or (current != total and now - self._drawn < DRAWN):
            return False
        self._drawn = now
        return True

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands beside the bar."""
        shown = super().get_metrics(trainer, pl_module)
        loss = trainer.callback_metrics.get("train/loss")
        return shown if loss is None else {**shown, "train/loss": float(loss)}


class PlainProgress(ProgressBar):
    """Writes a line now and then, and at the end of each epoch and validation, in place of a bar.

    Args:
        seconds: Between two lines.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        super().__init__()
        self.seconds = seconds
        self._enabled, self._told, self._began, self._first = True, 0.0, 0.0, 0

    def disable(self) -> None:
        """Write nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Write again."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock that the remaining time is reckoned by."""
        self._began = self._told = time.monotonic()
        self._first = trainer.fit_loop.total_batch_idx + 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write epoch, step, loss, images a second, wait for data and remaining time."""
        total = self.total_train_batches
        if not self._due(last=batch_idx + 1 == total):
            return
        words = [f"epoch={trainer.current_epoch + 1}/{_shown(trainer.max_epochs)}", f"step={batch_idx + 1}/{_shown(total)}"]
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor) and loss.numel() == 1:
            words.append(f"loss={float(loss):.4f}")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by the callback connector
            if isinstance(callback, Throughput):
                rate = callback.rate * trainer.world_size  # of its own process, which the others keep step with
                words += [f"images/s={rate:.0f}", f"data_wait={callback.wait:.2f}"]
        self._say(*words, f"left={self._left(trainer)}")

    def on_validation_batch_end(self, trainer: pl.Trainer, *arguments: Any, **named: Any) -> None:
        """Write how far validation is."""
        self._count("validation", trainer.num_val_batches, *arguments, **named)

    def on_test_batch_end(self, trainer: pl.Trainer, *arguments: Any, **named: Any) -> None:
        """Write how far the test is."""
        self._count("test", trainer.num_test_batches, *arguments, **named)

    def on_predict_batch_end(self, trainer: pl.Trainer, *arguments: Any, **named: Any) -> None:
        """Write how far prediction is."""
        self._count("predict", trainer.num_predict_batches, *arguments, **named)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what validation found."""
        if trainer.sanity_checking or not self._enabled:
            return
        found = {name: value for name, value in trainer.callback_metrics.items() if name.startswith(("val/", "keys/"))}
        words = [f"{name}={float(value):.4g}" for name, value in sorted(found.items())]
        self._say("validation", f"epoch={trainer.current_epoch + 1}/{_shown(trainer.max_epochs)}", *words)

    def _count(
        self,
        what: str,
        totals: Any,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._due(last=False):
            total = totals[dataloader_idx] if isinstance(totals, list) else totals
            self._say(what, f"step={batch_idx + 1}/{_shown(total)}")

    def _due(self, *, last: bool) -> bool:
        return self._enabled and (last or time.monotonic() - self._told >= self.seconds)

    def _say(self, *words: str) -> None:
        self._told = time.monotonic()
        self.print("taggant:", *words, flush=True)

    def _left(self, trainer: pl.Trainer) -> str:
        """Return the remaining time at the pace since this process began, crafting and validation included."""
        done = trainer.fit_loop.total_batch_idx + 1
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else float("inf")
        whole = epochs * trainer.num_training_batches
        if trainer.max_steps > 0:
            whole = min(whole, trainer.max_steps * trainer.accumulate_grad_batches)
        if whole == float("inf"):
            return "?"
        pace = (time.monotonic() - self._began) / max(1, done - self._first)
        return str(timedelta(seconds=round(pace * max(0, whole - done))))


def _shown(total: float | None) -> str:
    return str(int(total)) if total is not None and 0 < total < float("inf") else "?"

"""A SLURM job that is told of its end: save where nothing is half-done, ask SLURM to queue the job again, and stop."""

import logging
import os
import signal
import subprocess
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback

from taggant_lightning.commands import slurm
from taggant_lightning.commands.run_directory import REQUEUED
from taggant_lightning.methods.taggants.signing import TaggantSigning
from taggant_lightning.outside import say

log = logging.getLogger(__name__)
AGAIN = 75  # EX_TEMPFAIL: not finished, and not failed


class Requeue(Callback):
    """Answers the signal that SLURM sends before a job's time is up (`#SBATCH --signal=SIGUSR1@90`).

    Lightning's own handler saves wherever the signal finds a process. With several processes these are different places, and
    the collectives of saving meet those of a step; within a step the weights are half updated; and from a checkpoint made
    while a callback crafts, Lightning resumes after the epoch's end and the round is never crafted. So the signal is only
    noted here, and answered where a resumed run equals an uninterrupted one:

    - at the end of a batch, when all processes have heard of it together;
    - while crafting, at once: a checkpoint is made before each round, from which the end of the epoch is done again, and
      crafting keeps its own state on disk;
    - in validate, test and predict at once, without a checkpoint.

    It must be the first of the callbacks, so that its end of an epoch comes before that of TaggantSigning.
    """

    def __init__(self) -> None:
        self._asked, self._at_once, self._rewind = False, False, False
        self._folder = Path()
        self._before: Any = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the signal before Lightning does, which leaves a handler that it finds in place."""
        environment = trainer._accelerator_connector.cluster_environment  # nowhere public
        self._folder = Path(trainer.default_root_dir)
        self._at_once = stage != "fit"
        if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
            return
        if threading.current_thread() is threading.main_thread() and environment.requeue_signal is not None:
            self._before = (environment.requeue_signal, signal.signal(environment.requeue_signal, self._note))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if self._at_once:
            self._leave()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leave between two steps of the optimizer; the end of an epoch has its own place."""
        if self._before is None or trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            self._save(trainer)
            self._leave()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save before a round of crafting, and be ready to leave within it."""
        if self._before is None or not any(
            isinstance(c, TaggantSigning) and c.crafts_after(trainer, trainer.current_epoch + 1)
            for c in trainer.callbacks  # type: ignore[attr-defined]  # set by the callback connector
        ):
            return
        self._rewind = True
        self._save(trainer)
        self._rewind, self._at_once = False, True
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            self._leave()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make of a checkpoint at the end of an epoch one from which validation and the epoch's end are done again."""
        if self._rewind:
            validated = trainer.enable_validation and not (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1)
            rewind(checkpoint["loops"]["fit_loop"], validated=validated)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Crafting is over: from here on leave between steps."""
        self._at_once = False

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the requeue's checkpoint of a finished training: Lightning would take it for whatever runs there next.

        What is crafted from here on is crafted with a training that had ended before: the same command does it again.
        """
        self._at_once = True
        if trainer.is_global_zero and self._before is not None:
            (self._folder / REQUEUED).unlink(missing_ok=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signal back."""
        self._give_back()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signal back."""
        self._give_back()

    def _give_back(self) -> None:
        if self._before is not None:
            signal.signal(*self._before)
            self._before = None

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self._folder / REQUEUED)
        for logger in trainer.loggers:  # a job that is queued again is killed, perhaps before its loggers have ended
            logger.save()

    def _leave(self) -> NoReturn:
        """Have the job queued again, once for all processes, and end this one."""
        self._at_once = False  # a second signal must not strike within
        requeue_once(self._folder)
        raise SystemExit(AGAIN)


def requeue_once(folder: Path) -> None:
    """Run `scontrol requeue` in the first process that comes here.

    While crafting, process 0 may wait for another one and not hear the signal; so any of them may ask, and an exclusive file,
    one for each start of the job, tells which.

    Args:
        folder: The run directory, one for all processes.
    """
    mark = folder / f".requeued-{slurm.job()}-{slurm.restarts()}"
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    try:
        done = subprocess.run(["scontrol", "requeue", slurm.job()], check=False).returncode  # noqa: S603, S607  # SLURM's own
    except FileNotFoundError:
        done = 127
    said = "queued again" if done == 0 else f"NOT queued again (scontrol ended with {done}); sbatch the same script"
    say(f"taggant: run={folder} saved, job {slurm.job()} {said}", flush=True)


def rewind(fit_loop: dict[str, Any], *, validated: bool) -> None:
    """Take a fit loop's state, saved at the end of an epoch, back to where the epoch's batches are done and nothing else.

    Lightning resumes from such a state as from a checkpoint made within validation: no batch is trained again, validation
    runs, and all callbacks see the end of the epoch.

    Args:
        fit_loop: Lightning's state of the loop; changed in place.
        validated: Whether the epoch ends with a validation.
    """
    for name in ("current", "total"):
        fit_loop["epoch_progress"][name]["processed"] -= 1
    if validated:
        begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        progress = fit_loop["epoch_loop.val_loop.batch_progress"]
        progress["total"] |= begun
        progress["current"] |= dict.fromkeys(begun, 0)
        progress["is_last_batch"] = False
        fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # counted again after the validation

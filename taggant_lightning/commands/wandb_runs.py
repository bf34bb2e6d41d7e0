"""Weights & Biases: one W&B run a run directory, whether resumed, tested or offline. wandb is imported only on request."""

import importlib.util
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import write_atomic

RUN_ID = "wandb-run-id"


def settle(loggers: Any, folder: Path) -> None:
    """Put a WandbLogger into the run directory, and have it go on with the run that was begun there.

    Args:
        loggers: `trainer.logger` of the configuration: one, several or none.
        folder: The run directory.

    Raises:
        TaggantError: If a WandbLogger is asked for and wandb is not installed.
    """
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if not str(getattr(logger, "class_path", "")).endswith("WandbLogger"):
            continue
        if importlib.util.find_spec("wandb") is None:
            raise TaggantError(
                "logger=WandbLogger needs the package wandb, which is not installed; run pip install "
                "'taggant-lightning[wandb]', or leave the logger out and read metrics.csv"
            )
        arguments = logger.init_args
        if arguments.get("save_dir") in (None, ".") and arguments.get("dir") is None:
            arguments["save_dir"] = str(folder)
            folder.mkdir(parents=True, exist_ok=True)  # wandb falls back on a temporary folder where there is none
        # The command line fills in wandb.init's own default, None, which begins a run of the same number anew.
        if arguments.get("resume") is None:
            arguments["resume"] = "allow"
        # Processes other than the first have no run of their own.
        named = any(arguments.get(name) is not None for name in ("id", "version", "experiment"))
        if not named and getattr(rank_zero_only, "rank", 0) == 0:
            arguments["id"] = run_id(folder)


def run_id(folder: Path) -> str:
    """Return the W&B run of a run directory, and keep it there. An id that W&B's own agent has set comes first."""
    path = folder / RUN_ID
    given = os.environ.get("WANDB_RUN_ID")
    if given is None and path.is_file():
        return path.read_text().strip()
    chosen = given or secrets.token_hex(4)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, f"{chosen}\n".encode())
    return chosen


def push(trainer: pl.Trainer, config: dict[str, Any]) -> None:
    """Write a resolved configuration into the run's config; call it in the first process only.

    Args:
        trainer: Its loggers are looked through.
        config: Nested, plain values.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.config.update(config, allow_val_change=True)


def running() -> bool:
    """Say whether a W&B run is in progress in this process."""
    return getattr(sys.modules.get("wandb"), "run", None) is not None


def finish(status: int) -> None:
    """End the W&B run in progress, if there is one: what is in its files then is all there is.

    Args:
        status: 0 for a run that has done its work.
    """
    if running():
        sys.modules["wandb"].finish(exit_code=status)

"""One run directory a run: which it is, what of an earlier run is kept in it, and which checkpoint a run goes on from."""

import os
import time
from pathlib import Path
from typing import Any

from taggant_lightning.commands import slurm
from taggant_lightning.errors import TaggantError

RUN_DIRECTORY = "TAGGANT_RUN_DIRECTORY"  # processes that Lightning starts inherit it, and so share one directory
# Lightning looks for hpc_ckpt_N.ckpt under SLURM by itself; one file is enough, as it is replaced whole.
REQUEUED = "hpc_ckpt_1.ckpt"


def default_directory(subcommand: str) -> str:
    """Return the run directory of a run that names none.

    The tasks that srun starts inherit nothing from each other, and a requeued job has to find its own run: under SLURM the
    name is the job's. Agents of a W&B sweep give each trial a number of its own.
    """
    inherited = os.environ.get(RUN_DIRECTORY)
    if inherited:
        return inherited
    if slurm.in_use():
        return f"runs/slurm-{slurm.job()}-{subcommand}"
    if "WANDB_SWEEP_ID" in os.environ and "WANDB_RUN_ID" in os.environ:
        return f"runs/{os.environ['WANDB_SWEEP_ID']}-{os.environ['WANDB_RUN_ID']}-{subcommand}"
    return f"runs/{time.strftime('%Y%m%d-%H%M%S')}-{subcommand}"


def resume_from(chosen: Any, folder: Path) -> Any:
    """Return the checkpoint that a `fit` under SLURM goes on from, or what was chosen where there is nothing to add.

    A job that was requeued after our own checkpoint, or restarted by SLURM when a node failed, goes on from the newest
    checkpoint of its run directory. Lightning alone would take the requeue's checkpoint although a later one lies beside it,
    and begin anew where there is none.

    Args:
        chosen: What `--ckpt_path` says; a file named by the user stands, until the job is restarted.
        folder: The run directory.
    """
    if not slurm.in_use() or (chosen not in (None, "last") and not slurm.restarts()):
        return chosen
    requeued, last = folder / REQUEUED, folder / "checkpoints" / "last.ckpt"
    wanted = [requeued] if chosen is None and not slurm.restarts() else [requeued, last]
    found = [path for path in wanted if path.is_file()]
    return str(max(found, key=lambda path: path.stat().st_mtime_ns)) if found else chosen


def require_weights(config: Any, folder: Path) -> None:
    """Refuse to judge a model that nobody trained: Lightning would quietly test its random weights.

    Raises:
        TaggantError: If an ImageClassifier has neither a checkpoint nor weights, or `last` names none.
    """
    path = config.get("ckpt_path")
    last = folder / "checkpoints" / "last.ckpt"
    if path == "last" and not last.is_file():
        raise TaggantError(f"ckpt_path=last, and {last} does not exist; write --ckpt_path FILE")
    own = str(config.get("model.class_path")).endswith("ImageClassifier")
    if path is None and own and config.get("model.init_args.weights") is None:
        raise TaggantError("ckpt_path is not given, and an untrained model has nothing to tell; write --ckpt_path FILE or last")


def keep_metrics(folder: Path) -> None:
    """Set an earlier metrics.csv aside: CSVLogger deletes it, and a resumed run would lose its first part."""
    path = folder / "metrics.csv"
    if path.exists():
        number = next(n for n in range(1, 10_000) if not (folder / f"metrics-{n}.csv").exists())
        path.rename(folder / f"metrics-{number}.csv")

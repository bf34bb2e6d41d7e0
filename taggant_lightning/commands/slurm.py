"""SLURM: is Lightning going to use it, do its tasks and the trainer's processes agree, and what is this job called."""

import os
from typing import Any

from taggant_lightning.errors import TaggantError


def in_use() -> bool:
    """Say whether Lightning takes this process for one of SLURM's tasks: not in interactive jobs, nor under torchrun."""
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # the rule of SLURMEnvironment.detect
    if "SLURM_NTASKS" not in os.environ or interactive:
        return False
    # Not before it is needed: Lightning takes seconds, and commands that need none of it ask for their run directory too.
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    return not TorchElasticEnvironment.detect()


def job() -> str:
    """Return the job's number as `scontrol` takes it; an element of an array has two, joined by an underscore."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID", "unknown")


def restarts() -> int:
    """Return how often SLURM has restarted this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def check_tasks(trainer: Any) -> None:
    """Refuse a number of tasks that is not the trainer's number of processes: such a job hangs, or leaves GPUs idle.

    Args:
        trainer: The configuration's section; `devices`, `num_nodes`, `accelerator` and `plugins` are read.

    Raises:
        TaggantError: If SLURM's nodes or its tasks a node differ from the trainer's.
    """
    if not in_use() or trainer.plugins:  # a plugin may be an environment of the user's own
        return
    tasks, devices, num_nodes = int(os.environ["SLURM_NTASKS"]), count(trainer.devices, trainer.accelerator), trainer.num_nodes
    nodes = int(os.environ.get("SLURM_NNODES") or os.environ.get("SLURM_JOB_NUM_NODES") or num_nodes)
    if nodes != num_nodes:
        raise TaggantError(
            f"num_nodes={num_nodes}, and SLURM gave SLURM_NNODES={nodes}; write --trainer.num_nodes {nodes}, or "
            f"#SBATCH --nodes={num_nodes}"
        )
    stated = int(os.environ.get("SLURM_NTASKS_PER_NODE") or 0)
    name, per_node = ("SLURM_NTASKS_PER_NODE", stated) if stated else ("SLURM_NTASKS", tasks / nodes)
    if tasks == devices * num_nodes and stated in (0, devices):
        return
    if stated == devices:
        raise TaggantError(
            f"devices={devices} on num_nodes={num_nodes} make {devices * num_nodes} processes, and SLURM started SLURM_NTASKS="
            f"{tasks} tasks; write #SBATCH --ntasks-per-node={devices} and no --ntasks"
        )
    wanted = f"--trainer.devices {per_node:g}, or " if per_node == int(per_node) else ""
    shown = f"{name}={stated}" if stated else f"{name}={tasks} (nodes: {nodes})"
    raise TaggantError(
        f"devices={devices}, and SLURM gave {shown}, one task a device is needed; write {wanted}#SBATCH "
        f"--ntasks-per-node={devices}"
    )


def count(devices: Any, accelerator: Any) -> int:
    """Return the processes a node that Lightning would make of `--trainer.devices`.

    Args:
        devices: A number, a list, text such as `0,1`, or `auto` or -1 for all.
        accelerator: What `--trainer.accelerator` says.
    """
    if isinstance(devices, list):
        return len(devices)
    words = str(devices).strip()
    if "," in words:
        return len([word for word in words.split(",") if word.strip()])
    if words not in ("auto", "-1"):
        return int(words)
    import torch

    found = torch.cuda.device_count() if accelerator in ("gpu", "cuda", "auto") else 0
    return max(1, found)

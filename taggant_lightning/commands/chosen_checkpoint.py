"""What is written after `--ckpt_path`, looked at before data are opened or anything is built."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from packaging.version import InvalidVersion, Version
from torch import Tensor

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_path

WORDS = ("best", "hpc")  # Lightning's own, besides `last`
SHARDED = (".metadata", "meta.pt", "latest")  # files by which a folder is a checkpoint of FSDP or DeepSpeed
# What Lightning needs to go on with a training, and its type.
TRAINING = {"loops": Mapping, "optimizer_states": list, "lr_schedulers": list, "epoch": int, "global_step": int}


def checked(chosen: Any, folder: Path, *, resume: bool) -> Any:
    """Return the checkpoint that a run begins with, its path filled in.

    Args:
        chosen: What `--ckpt_path` says, or None.
        folder: The run directory.
        resume: Whether a training goes on from it.

    Raises:
        TaggantError: If it is none that this command can begin with.
    """
    if chosen is None:
        return None
    if chosen in WORDS or str(chosen).startswith("registry"):
        there = f", such as {folder / 'checkpoints' / 'last.ckpt'}" if (folder / "checkpoints").is_dir() else ""
        raise TaggantError(f"ckpt_path={chosen} names no file in a new run; write --ckpt_path FILE{there}, or last")
    if str(chosen).startswith(("http://", "https://")):
        raise TaggantError(f"ckpt_path={chosen} is an address, and nothing is fetched; download it and write --ckpt_path FILE")
    if "://" in str(chosen):  # s3://… and the like, which Lightning reads, without unpickling code
        return chosen
    if chosen == "last":
        path = folder / "checkpoints" / "last.ckpt"
        if path.is_file():  # where a callback of the user's keeps its own elsewhere, Lightning finds it
            check_content(path, resume=resume)
        return chosen
    path = given_path(chosen, "ckpt_path")
    if path.is_dir():
        if any((path / name).is_file() for name in SHARDED):
            return str(path)
        found = sorted(file.relative_to(path) for pattern in ("*.ckpt", "checkpoints/*.ckpt") for file in path.glob(pattern))
        hint = f"write --ckpt_path {path / found[-1]}" if found else "name a .ckpt file that `taggant fit` wrote"
        raise TaggantError(f"ckpt_path={path} is a folder; {hint}")
    if not path.is_file():
        raise TaggantError(f"ckpt_path={path} is no file; name a .ckpt file that `taggant fit` wrote, or last")
    check_content(path, resume=resume)
    return str(path)


def check_content(path: Path, *, resume: bool) -> None:
    """Refuse a file that is no checkpoint of Lightning's, or holds none of what a training goes on from.

    Tensors are mapped and not read. Nothing in the file is unpickled but tensors and plain values.

    Raises:
        TaggantError: If it is damaged, of another kind, or would run code when read.
    """
    what = f"ckpt_path={path}"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise TaggantError(f"{what} cannot be read ({error.strerror or error}); check the file and its permissions") from None
    except Exception as error:  # torch raises many types for a file it cannot read
        raise TaggantError(
            f"{what} cannot be read without running code in it ({type(error).__name__}): it is cut off, or no checkpoint of"
            " `taggant fit`; name another"
        ) from None
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        tensors = isinstance(content, Mapping) and any(isinstance(value, Tensor) for value in content.values())
        hint = f"to start from them write --model.weights {path}" if tensors else "name a .ckpt file that `taggant fit` wrote"
        raise TaggantError(f"{what} holds {'weights alone' if tensors else 'no checkpoint of Lightning'}; {hint}")
    try:
        Version(content["pytorch-lightning_version"])
    except (KeyError, TypeError, InvalidVersion):
        raise TaggantError(
            f"{what} does not say which Lightning wrote it; name a .ckpt file that `taggant fit` wrote"
        ) from None
    lacking = [name for name, kind in TRAINING.items() if not isinstance(content.get(name), kind)] if resume else []
    if lacking:
        raise TaggantError(
            f"{what} holds a model and no training to go on with (no {lacking[0]}); to start from its weights write "
            f"--model.weights {path}"
        )
    if not all(isinstance(name, str) for name in content["state_dict"]):
        raise TaggantError(f"{what} is damaged: weights without a name; restore it from a copy")

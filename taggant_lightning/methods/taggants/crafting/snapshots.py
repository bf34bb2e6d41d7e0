"""A surrogate's weights of other moments, in files of their own: earlier epochs, and the start of each round of crafting."""

import copy
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import write_secret


def after(epoch: int) -> str:
    """Return the name of the weights after an epoch, counted from 1."""
    return f"epoch-{epoch:04d}"


class Snapshots:
    """Named weights of one module, so that a resumed run finds them.

    Args:
        directory: Secret folder.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.pt"

    def has(self, name: str) -> bool:
        """Say whether weights of this name are kept."""
        return self._path(name).is_file()

    def keep(self, module: nn.Module, name: str) -> None:
        """Write a module's weights and buffers, atomically."""
        content = io.BytesIO()
        torch.save({key: value.detach().cpu() for key, value in module.state_dict().items()}, content)
        write_secret(self._path(name), content.getvalue())

    def forget(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def twin(self, module: nn.Module, name: str) -> nn.Module:
        """Return a copy of a module, on its device and in evaluation mode, with kept weights.

        Raises:
            TaggantError: If they were not kept, or belong to another module.
        """
        twin = copy.deepcopy(module)
        try:
            twin.load_state_dict(torch.load(self._path(name), map_location="cpu", weights_only=True))
        except Exception as error:  # torch raises many types for a file it cannot read
            raise TaggantError(
                f"{self.directory} does not hold the surrogate's weights {name} ({type(error).__name__}); start "
                "anew in a new folder, or write --trainer.callbacks.snapshots []"
            ) from None
        return twin.eval()


def begun_with(snapshots: Snapshots, module: pl.LightningModule, name: str, trainer: pl.Trainer) -> nn.Module:
    """Return the module that a round of crafting was begun with.

    A run that was killed while crafting trains its last epoch again. A GPU may come out with slightly other weights, and
    finished keys must not be lost for that: the round goes on with the weights that it was begun with.

    Args:
        snapshots: Where weights are kept.
        module: The module as it is now; it is kept when the round begins, and returned.
        name: Of the round, and of the training that it belongs to.
        trainer: The trainer; its first process decides.
    """
    # Processes of an unseeded run begin with weights, and so with a name, of their own.
    found, name = trainer.strategy.broadcast((snapshots.has(name), name))
    if found:
        return snapshots.twin(module, name)
    if trainer.is_global_zero:
        snapshots.keep(module, name)
    trainer.strategy.barrier("taggant-round")
    return module


def training_digest(module: pl.LightningModule, facts: Any) -> str:
    """Digest what a training follows from: a module's first weights, its constructor's arguments, and further facts.

    Args:
        module: Before training, and before a checkpoint is restored into it.
        facts: JSON.
    """
    arguments = getattr(module, "arguments", None) or dict(module.hparams)
    named = {"module": type(module).__qualname__, "arguments": arguments, "facts": facts}
    digest = hashlib.sha256(json.dumps(named, sort_keys=True, default=str).encode())
    digest.update(weights_digest(module))
    return digest.hexdigest()


def weights_digest(module: nn.Module) -> bytes:
    """Return the SHA-256 of a module's weights and buffers, in order."""
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.digest()

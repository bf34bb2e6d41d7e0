"""A surrogate's weights of earlier epochs: further surrogates that cost no further training."""

import copy
import io
import shutil
from pathlib import Path

import torch
from torch import nn

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import write_secret


class Snapshots:
    """Weights after some epochs, in files of their own, so that a resumed run finds them.

    Args:
        directory: Secret folder.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def _path(self, epoch: int) -> Path:
        return self.directory / f"epoch-{epoch:04d}.pt"

    def keep(self, module: nn.Module, epoch: int) -> None:
        """Write a module's weights and buffers after an epoch, atomically."""
        content = io.BytesIO()
        torch.save({name: value.detach().cpu() for name, value in module.state_dict().items()}, content)
        write_secret(self._path(epoch), content.getvalue())

    def forget(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def twin(self, module: nn.Module, epoch: int) -> nn.Module:
        """Return a copy of a module, on its device and in evaluation mode, with the weights that it had after an epoch.

        Raises:
            TaggantError: If they were not kept, or belong to another module.
        """
        twin = copy.deepcopy(module)
        try:
            twin.load_state_dict(torch.load(self._path(epoch), map_location="cpu", weights_only=True))
        except Exception as error:  # torch raises many types for a file it cannot read
            raise TaggantError(
                f"{self.directory} does not hold the surrogate's weights after epoch {epoch} ({type(error).__name__}); start "
                "anew in a new folder, or write --trainer.callbacks.snapshots []"
            ) from None
        return twin.eval()

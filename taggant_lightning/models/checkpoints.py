"""Checkpoints that are written whole or not at all."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from taggant_lightning.files import forget_leftovers, write_atomic


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

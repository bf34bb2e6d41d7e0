"""The torch Dataset between a source and a DataLoader: whole batches at once, resized."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from taggant_lightning.data.resize import fit
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError

DECODED = 256  # images at a time, where all of them are
Batch = tuple[Tensor, Tensor, Tensor]


def to_float(pixels: NDArray[np.uint8]) -> Tensor:
    """Turn uint8 pixels (…, C, H, W) into float32 in [0, 1]."""
    return torch.from_numpy(pixels.astype(np.float32)) / 255


def to_bytes(images: Tensor) -> Tensor:
    """Round float images in [0, 1] to uint8, as they lie in memory and in files."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Failed:
    """What a loader process hands over in place of a batch: torch would put its own traceback around the sentence."""

    error: TaggantError


def told(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield batches, and raise in this process what a loader process could not read.

    Raises:
        TaggantError: The loader process's own.
    """
    for batch in batches:
        if isinstance(batch, Failed):
            raise batch.error
        yield batch


class ResizedImages(Dataset[Batch]):
    """Positions of a subset become batches of resized images, labels and positions.

    Images are bytes until they reach their device: a quarter of the memory and of the transfer, and what a decoder that
    resizes hands over anyway.

    Args:
        source: The images.
        indices: (N,) source indices of the subset, in order.
        size: Side of the images in pixels.
    """

    def __init__(self, source: ImageSource, indices: NDArray[np.int64], size: int) -> None:
        self.source, self.indices, self.size = source, indices, size
        self.labels = torch.from_numpy(source.labels[indices])

    @property
    def bytes(self) -> int:
        """Bytes that all images take, resized."""
        return len(self) * self.image(0).numel()

    def whole(self, device: torch.device, workers: int = 0) -> Tensor:
        """Return all images on a device, channels last, (N, S, S, C) uint8; decoded by loader processes, or here for none."""
        images = torch.empty((len(self), self.size, self.size, len(self.image(0))), dtype=torch.uint8, device=device)
        loader = DataLoader(self, batch_size=DECODED, collate_fn=as_is, num_workers=workers)
        for batch, _, positions in told(iter(loader)):
            first = int(positions[0])
            images[first : first + len(batch)] = batch.to(device).permute(0, 2, 3, 1)
        return images

    def image(self, position: int) -> Tensor:
        """Return one image, (C, S, S) uint8."""
        pixels = self.source.pixels(int(self.indices[position]))
        if pixels.shape[1:] == (self.size, self.size):
            return torch.from_numpy(pixels.copy())
        return to_bytes(fit(to_float(pixels)[None], self.size)[0])

    def __len__(self) -> int:
        """N, the number of positions."""
        return len(self.indices)

    def __getitem__(self, position: int) -> Batch:
        """Return a batch of one."""
        return self.batch([position])

    def __getitems__(self, positions: Sequence[int]) -> Batch | Failed:
        """Return a batch, or in a loader process what kept it from being read."""
        try:
            return self.batch(positions)
        except TaggantError as error:
            if get_worker_info() is None:
                raise
            return Failed(error)

    def batch(self, positions: Sequence[int]) -> Batch:
        """Return images (B, C, S, S) uint8, labels (B,) int64 and positions (B,) int64.

        Raises:
            TaggantError: If an image cannot be read.
        """
        where = torch.as_tensor(positions, dtype=torch.int64)
        return torch.stack([self.image(position) for position in positions]), self.labels[where], where


def as_is(batch: Any) -> Any:
    """Collate nothing: the dataset hands over whole batches."""
    return batch

"""Images that lie where they are used: whole splits as bytes on the device, and batches that cost a few operations there."""

from collections.abc import Iterator

import torch
from torch import Tensor

from taggant_lightning.data.dataset import Batch, ResizedImages
from taggant_lightning.data.sampler import SeededSampler
from taggant_lightning.errors import TaggantError

IN_MEMORY_BYTES = 1 << 30
SHARE = 0.25  # of an accelerator's free memory that the images of one split may take


def allowance(device: torch.device) -> int:
    """Return the bytes that one split may take on a device: a share of what is free on a GPU, 1 GiB elsewhere."""
    if device.type != "cuda":
        return IN_MEMORY_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return int(SHARE * free)


class Resident:
    """The images and labels of one split on one device.

    Args:
        data: The images; all of them are decoded now.
        device: Where they go.
        workers: Processes that decode.

    Raises:
        TaggantError: If the device has no room for them.
    """

    def __init__(self, data: ResizedImages, device: torch.device, workers: int = 0) -> None:
        self.device, self.labels = device, data.labels.to(device)
        try:
            pixels = data.whole(device, workers)
        except torch.OutOfMemoryError:
            raise TaggantError(
                f"on_device=True: {device} has no room for {data.bytes / 2**30:.1f} GiB of images; write --data.on_device "
                "false, or a smaller load_size"
            ) from None
        # A row an image: whole rows are taken fastest.
        self._shape, self._rows = pixels.shape[1:], pixels.flatten(1)

    def take(self, positions: Tensor) -> Batch:
        """Return the batch of some positions, (B,) int64 on the device: images (B, C, L, L) uint8, labels, positions."""
        images = self._rows.index_select(0, positions).view(-1, *self._shape)
        return images.permute(0, 3, 1, 2), self.labels.index_select(0, positions), positions


class ResidentLoader:
    """Batches of images that lie on the device, in a sampler's order, which is made there too; no step waits for the host.

    Args:
        resident: The images.
        batch_size: Images a batch.
        sampler: Order of the positions; asked when the first batch is wanted.
    """

    def __init__(self, resident: Resident, *, batch_size: int, sampler: SeededSampler) -> None:
        self.resident, self.batch_size = resident, batch_size
        self._order = sampler  # Lightning takes a loader with a `sampler` for a DataLoader

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._order) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield images (B, C, L, L) uint8, labels (B,) int64 and positions (B,) int64, all on the device."""
        for positions in torch.split(self._order.positions(self.resident.device), self.batch_size):
            yield self.resident.take(positions)

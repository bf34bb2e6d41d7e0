"""Order, numbers and augmentation on a CUDA device: those of the CPU, and batches that lie on the device.

Skipped where there is none: `python -m pytest tests/gpu` on a machine with a GPU.
"""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.data.augment import NUMBERS, augment_bytes
from taggant_lightning.streams import lattice, permutation, uniforms
from tests.conftest import write_tiny

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(300),
]


def test_numbers_and_orders_are_those_of_the_cpu() -> None:
    ids = torch.tensor([0, 1, 5, 49_999, 2**32 - 1])
    assert torch.equal(uniforms(7, "a", ids.cuda(), 9, 3, 1).cpu(), uniforms(7, "a", ids, 9, 3, 1))
    assert torch.equal(permutation(7, "a", 50_000, 3, device="cuda").cpu(), permutation(7, "a", 50_000, 3))
    starts = uniforms(7, "a", torch.arange(1000), 8)
    for step in (0, 1, 99):
        assert torch.equal(lattice(starts.cuda(), step).cpu(), lattice(starts, step))


@pytest.mark.parametrize("recipe", NUMBERS)
def test_augmented_bytes_are_those_of_the_cpu(recipe: str) -> None:
    images = torch.randint(0, 256, (64, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    numbers = uniforms(1, "augment", torch.arange(64), max(1, NUMBERS[recipe]))
    mine, other = augment_bytes(images.cuda(), numbers.cuda(), recipe, 32).cpu(), augment_bytes(images, numbers, recipe, 32)
    if recipe in ("none", "simple", "cutout", "auto_augment"):
        assert torch.equal(mine, other)
    else:  # sums and powers round otherwise
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-5)


@pytest.mark.parametrize("on_device", [None, False])
def test_batches_are_those_of_the_cpu(tmp_path: Path, on_device: bool | None) -> None:
    write_tiny(tmp_path / "x.npz", size=8)
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {"cpu": [], "gpu": []}

    class Recorder(pl.Callback):
        def on_train_batch_start(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: tuple, batch_idx: int
        ) -> None:
            assert batch[0].device == pl_module.device
            seen[accelerator].append(tuple(t.cpu().clone() for t in batch))

    for accelerator in seen:
        data = ImageDataModule("npz", str(tmp_path / "x.npz"), batch_size=16, augment="simple", seed=5, on_device=on_device)
        model = ImageClassifier("small_mlp", num_classes=3, image_size=8)
        pl.Trainer(
            max_epochs=2, accelerator=accelerator, devices=1, logger=False, enable_checkpointing=False,
            default_root_dir=str(tmp_path), callbacks=[Recorder()], enable_progress_bar=False,
        ).fit(model, datamodule=data)  # fmt: skip
    for mine, other in zip(seen["gpu"], seen["cpu"], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))

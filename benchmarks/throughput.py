"""Images a second of `taggant fit` beside a plain PyTorch loop written here, in one run, in turns; and what feeding costs.

    python benchmarks/throughput.py --json docs/results/throughput.json                 # a small CNN on a CPU
    python benchmarks/throughput.py --device cuda --json docs/results/throughput_gpu.json

Random images of 32×32 pixels, 50,000 of them on a GPU. Both sides train the same model with the same batch, precision, memory
format and optimizer, on bytes that lie on the device; the plain loop draws its order and augmentation from torch's own
generator there. `fit` is a Trainer with what the command `taggant fit` brings: progress, seeds, throughput. A turn is the best
of its epochs after a first one. Feeding is what the training process does for a batch with a model that does nothing: order,
numbers, taking the images, bytes to float, augmentation.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from common import write_figures
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.data.augment import three_augment
from taggant_lightning.data.npz import write_npz
from taggant_lightning.reporting.progress import progress_bar
from taggant_lightning.reporting.throughput import Throughput

CLASSES, SIDE, BORDER = 100, 32, 4
RECIPES: dict[str, dict[str, Any]] = {
    "cifar_resnet18": {"optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4},
    "vit_tiny_patch16_224": {"lr": 1e-3, "weight_decay": 0.05, "model_kwargs": {"patch_size": 4}},
    "small_cnn": {"lr": 1e-3},
}


class Rates(Callback):
    """Keeps each epoch's images a second and wait, of `Throughput`, which comes before it."""

    def __init__(self, throughput: Throughput) -> None:
        self.throughput = throughput
        self.found: list[tuple[float, float]] = []
        self._began = 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        """Start the clock."""
        _wait()
        self._began = time.perf_counter()

    def on_train_epoch_end(self, *_: object) -> None:
        """Keep the epoch's figures."""
        _wait()  # the device may be behind the process that feeds it
        self.found.append((self.throughput.images / (time.perf_counter() - self._began), self.throughput.wait))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def classifier(name: str) -> ImageClassifier:
    """Return an untrained model."""
    torch.manual_seed(0)
    return ImageClassifier(name, num_classes=CLASSES, image_size=SIDE, **RECIPES[name])


def fit(name: str, path: Path, batch: int, augment: str, device: str, epochs: int) -> tuple[float, float]:
    """Return the best epoch's images a second, and its wait."""
    pl.seed_everything(1, verbose=False)
    throughput = Throughput()
    rates = Rates(throughput)
    data = ImageDataModule("npz", str(path), batch_size=batch, augment=augment, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="gpu" if device == "cuda" else "cpu", devices=1, default_root_dir=folder,
            precision="bf16-mixed" if device == "cuda" else "32-true", logger=False, enable_checkpointing=False,
            enable_model_summary=False, limit_val_batches=0, num_sanity_val_steps=0,
            callbacks=[throughput, rates, progress_bar()],
        )  # fmt: skip
        trainer.fit(classifier(name), datamodule=data)
    return max(rates.found[1:])


def crop_flip(images: Tensor) -> Tensor:
    """Shift each image by up to an eighth, and mirror half of them."""
    count = len(images)
    padded = F.pad(images, (BORDER,) * 4, mode="reflect")
    rows = torch.randint(2 * BORDER + 1, (count, 1), device=images.device) + torch.arange(SIDE, device=images.device)
    columns = torch.randint(2 * BORDER + 1, (count, 1), device=images.device) + torch.arange(SIDE, device=images.device)
    columns = torch.where(torch.rand(count, 1, device=images.device) < 0.5, columns.flip(1), columns)
    item = torch.arange(count, device=images.device)[:, None, None]
    return padded[item, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def plain(name: str, pixels: np.ndarray, labels: np.ndarray, batch: int, augment: str, device: str, epochs: int) -> float:
    """Return the best epoch's images a second of a loop without any framework."""
    model = classifier(name).to(device).train()
    model.lay_out_for(device)
    options = {"fused": True} if device == "cuda" else {}
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, **options)
        if RECIPES[name].get("optimizer") == "sgd"
        else torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05, **options)
    )
    everything, targets = torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device)
    rates = []
    for _ in range(epochs):
        _wait()
        started = time.perf_counter()
        for where in torch.randperm(len(everything), device=device).split(batch):
            images = everything[where].float() / 255
            if augment != "none":
                images = crop_flip(images)
            if augment == "three_augment":
                images = three_augment(images, torch.rand(len(images), 5, device=device))
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = F.cross_entropy(model(images), targets[where])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        _wait()
        rates.append(len(everything) / (time.perf_counter() - started))
    return max(rates[1:])


def feeding(path: Path, batch: int, augment: str, device: str, rounds: int = 5) -> float:
    """Return microseconds an image of the training process, the least of some epochs, for one that does nothing with them."""
    data = ImageDataModule("npz", str(path), batch_size=batch, augment=augment)

    class Nothing(pl.LightningModule):
        """Asks for batches as our convolutional networks do, and computes nothing; an epoch is timed from its first request."""

        takes_channels_last = True

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.seconds: list[float] = []

        def on_train_epoch_start(self) -> None:
            _wait()
            self._began = time.process_time() if device == "cpu" else time.perf_counter()

        def training_step(self, batch: Any, batch_idx: int) -> None:
            """Do nothing."""

        def on_train_epoch_end(self) -> None:
            _wait()
            self.seconds.append((time.process_time() if device == "cpu" else time.perf_counter()) - self._began)

        def configure_optimizers(self) -> None:
            """None is needed."""

    model = Nothing()
    pl.Trainer(
        max_epochs=rounds, accelerator="gpu" if device == "cuda" else "cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False, limit_val_batches=0,
        num_sanity_val_steps=0,
    ).fit(model, datamodule=data)  # fmt: skip
    return 1e6 * min(model.seconds) / len(data.train_data)


def main() -> None:
    """Measure each model and augmentation in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--models", nargs="+", choices=RECIPES, help="default: small_cnn, or cifar_resnet18 on a GPU")
    parser.add_argument("--images", type=int, help="default: 10000, or 50000 on a GPU")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=3, help="an epoch of warm-up included (default: 3)")
    parser.add_argument("--turns", type=int, default=2, help="of each side (default: 2)")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    device, gpu = arguments.device, arguments.device == "cuda"
    count = arguments.images or (50000 if gpu else 10000)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, count)
    labels[:CLASSES] = np.arange(CLASSES)
    rows: list[dict[str, Any]] = []
    fed: list[dict[str, Any]] = []

    def keep() -> None:
        if arguments.json:
            write_figures(arguments.json, {"device": device, "batch": arguments.batch, "training": rows, "feeding": fed})

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        write_npz(path, pixels, labels, pixels[:CLASSES], labels[:CLASSES], [str(i) for i in range(CLASSES)])
        for augment in ("none", "simple", "three_augment"):
            cost = feeding(path, arguments.batch, augment, device)
            fed.append({"augment": augment, "us_an_image": cost})
            print(f"feeding, {augment}: {cost:.2f} µs an image", flush=True)
            keep()
        for name in arguments.models or ["cifar_resnet18" if gpu else "small_cnn"]:
            for augment in ("none", "simple", "three_augment"):
                ours, theirs = [], []
                for _ in range(arguments.turns):
                    ours.append(fit(name, path, arguments.batch, augment, device, arguments.epochs))
                    theirs.append(plain(name, pixels, labels, arguments.batch, augment, device, arguments.epochs))
                rate, wait = max(ours)
                rows.append({
                    "model": name, "augment": augment, "fit": rate, "plain": max(theirs), "share": rate / max(theirs),
                    "data_wait": wait, "turns_fit": [each for each, _ in ours], "turns_plain": theirs,
                })  # fmt: skip
                print(
                    f"{name}, {augment}: fit {rate:.0f} images/s, plain {max(theirs):.0f}, share {rate / max(theirs):.2f}, "
                    f"data_wait {wait:.3f}",
                    flush=True,
                )
                keep()


if __name__ == "__main__":
    main()

"""What several benchmarks share: CIFAR-100 at a CPU's scale, training one model in this process, writing figures."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from taggant_lightning import ImageClassifier, ImageDataModule, SignedDataModule
from taggant_lightning.evidence.provenance import provenance

EPOCHS, SIZE = 8, 16


@dataclass(frozen=True)
class Subject:
    """A model whose speed is measured on random images, untrained.

    Attributes:
        name: model_name of ImageClassifier.
        side: Of its input, in pixels.
        options: timm's further arguments.
        batch: Images of a training step.
        images: Signing images of a key.
    """

    name: str
    side: int = 32
    options: dict[str, Any] | None = None
    batch: int = 0
    images: int = 0


CIFAR: dict[str, Any] = {
    "source": "zip",
    "root": os.path.expandvars("$TAGGANT_DATA/cifar-100"),
    "image_size": SIZE,
    "train_subset": 20000,
    "batch_size": 128,
}
RECIPES: dict[str, dict[str, Any]] = {
    "small_cnn": {"lr": 1e-3},
    "small_vit": {"lr": 1e-3, "weight_decay": 0.05},
    "small_resnet": {"lr": 2e-3, "weight_decay": 0.05},
    "small_mlp": {"lr": 1e-3},
    "small_cnn+small_vit": {"lr": 1e-3, "weight_decay": 0.05},
}


def train(
    name: str, seed: int, data: ImageDataModule, *callbacks: pl.Callback, epochs: int = EPOCHS, **recipe: Any
) -> ImageClassifier:
    """Train one model by its recipe, or by another, and return it in evaluation mode."""
    pl.seed_everything(seed, workers=True, verbose=False)
    shape = {"num_classes": data.num_classes, "image_size": data.image_size, "channels": data.channels}
    model = ImageClassifier(name, **shape, **(recipe or RECIPES[name]))
    trainer = _trainer(epochs, *callbacks)
    trainer.fit(model, datamodule=data)
    return model.eval()


def accuracy(model: ImageClassifier, data: ImageDataModule) -> float:
    """Return a model's accuracy on the data's test split."""
    return float(_trainer(1).test(model, datamodule=data, verbose=False)[0]["test/acc"])


def _trainer(epochs: int, *callbacks: pl.Callback) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
    )


def kept(name: str, path: Path) -> ImageClassifier:
    """Read a model of CIFAR-100 at this scale, whose weights another benchmark has kept, in evaluation mode."""
    model = ImageClassifier(name, num_classes=100, image_size=SIZE, channels=3, **RECIPES[name])
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def share_source(data: ImageDataModule, original: ImageDataModule) -> ImageDataModule:
    """Let one DataModule read the splits that another has opened and decoded."""
    data.__dict__["test_source"] = original.test_source
    if not isinstance(data, SignedDataModule):
        data.__dict__["train_source"] = original.train_source
    return data


def subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Return a figure and its axes, an array of two dimensions, without a display."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_plot(figure: Any, stem: Path) -> None:
    """Write a plot as PNG (128 colours, a third of the size) and as SVG, the same bytes for the same figures."""
    import matplotlib.pyplot as plt
    from PIL import Image

    with plt.rc_context({"svg.hashsalt": stem.name, "svg.fonttype": "none"}):
        figure.savefig(stem.with_suffix(".png"), dpi=100, metadata={"Software": None})
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
    plt.close(figure)
    with Image.open(stem.with_suffix(".png")) as picture:
        small = picture.convert("RGB").quantize(128)
    small.save(stem.with_suffix(".png"), optimize=True)


def write_figures(path: str, figures: dict[str, Any]) -> None:
    """Write figures with versions, commit and hardware."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps({**figures, **provenance()}, indent=1) + "\n")

"""Pixel mean and deviation: checked, applied inside the model, and found for weights that come with their own."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from taggant_lightning.errors import TaggantError
from taggant_lightning.models.checkpoints import CHECKPOINT_ENTRY
from taggant_lightning.outside.documents import parse_json, read_bounded

Numbers = float | list[float]
MEAN, STD = 0.5, 0.25  # where neither the user nor a file says otherwise
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # beside which the Hugging Face hub keeps a config.json


class Normalisation(nn.Module):
    """Subtracts a mean and divides by a deviation.

    One number is a constant of the computation. Several are buffers, which follow the model to its device; they are not part of
    its state, so that a checkpoint is the same for one number and for several.

    Args:
        mean: Pixel mean, one number or one a channel.
        std: Pixel deviation, likewise.
    """

    mean: Tensor | float
    std: Tensor | float

    def __init__(self, mean: Numbers, std: Numbers) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            if isinstance(value, list):
                self.register_buffer(name, torch.tensor(value, dtype=torch.float32).view(-1, 1, 1), persistent=False)
            else:
                setattr(self, name, value)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, S, S) in [0, 1] to what the model was trained on."""
        normalised: Tensor = (images - self.mean) / self.std
        return normalised


class Statistics(NamedTuple):
    """Mean and deviation that a file or timm names.

    Attributes:
        mean: One number a channel of the stored model.
        std: Likewise.
        source: Where they are named.
    """

    mean: list[float]
    std: list[float]
    source: str


def checked(name: str, given: Numbers, channels: int) -> Numbers:
    """Return a mean or deviation as plain numbers: one, where all channels have the same.

    Args:
        name: `mean` or `std`.
        given: What was asked for.
        channels: Image channels.

    Raises:
        TaggantError: If there are not as many numbers as channels, or one lies outside its range.
    """
    values = [float(value) for value in given] if isinstance(given, list | tuple) else [float(given)]
    if len(values) not in (1, channels):
        raise TaggantError(
            f"{name}={given} has {len(values)} numbers and the images {channels} channels; write 1 or {channels}"
        )
    for value in values:
        if name == "std" and not 0 < value < math.inf:
            raise TaggantError(f"std={given} must be positive; write the deviation of pixels in [0, 1], such as {STD}")
        if name == "mean" and not 0 <= value <= 1:
            remedy = "divide by 255" if value > 1 else f"write the mean of pixels in [0, 1], such as {MEAN}"
            raise TaggantError(f"mean={given} must lie in [0, 1], as pixels do; {remedy}")
    return values[0] if len(set(values)) == 1 else values


def statistics_of(path: Path, model: nn.Module) -> Statistics | None:
    """Return the mean and deviation that stored weights were trained with.

    Args:
        path: The weights, as `read_weights` takes them.
        model: The model that they are for.

    Returns:
        What a `config.json` of the Hugging Face hub beside them says, else a checkpoint of ImageClassifier, else timm of a
        model of this name, where the file holds plain weights; None where nothing says.
    """
    file = path / _HUB_FILES[0] if path.is_dir() else path
    if file.name in _HUB_FILES and (found := _of_config(file.parent / "config.json")):
        return found
    if file.suffix != ".safetensors":
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except Exception:  # torch raises many types; a file too old for mmap may be timm's all the same
            content = None
        if isinstance(content, dict) and {"pytorch-lightning_version", CHECKPOINT_ENTRY} & content.keys():
            return _of(content.get(CHECKPOINT_ENTRY, {}), str(file))
    settings = getattr(model, "pretrained_cfg", None)
    if not isinstance(settings, dict):
        return None
    name = ".".join(str(settings[part]) for part in ("architecture", "tag") if settings.get(part))
    return _of(settings, f"timm's {name}")


def _of_config(path: Path) -> Statistics | None:
    try:
        content = parse_json(read_bounded(path))
    except (OSError, ValueError):
        return None
    settings = content.get("pretrained_cfg", content) if isinstance(content, dict) else None  # older files have no inner part
    return _of(settings, str(path)) if isinstance(settings, dict) else None


def _of(settings: dict[str, Any], source: str) -> Statistics | None:
    """Return what a configuration says, if it says both in numbers."""
    found = []
    for name in ("mean", "std"):
        values = settings.get(name)
        values = list(values) if isinstance(values, list | tuple) else [values]
        if not values or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            return None
        found.append([float(value) for value in values])
    return Statistics(found[0], found[1], source)


def suiting(values: list[float], channels: int) -> Numbers:
    """Return numbers of a stored model for images of so many channels: their average where the numbers of channels differ."""
    if len(values) in (1, channels):
        return values
    return math.fsum(values) / len(values)

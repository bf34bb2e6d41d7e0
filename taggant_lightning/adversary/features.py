"""What a trained model shows of its training images: the features before its last layer, its answers, its losses."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.data.resize import centre
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.classifier import ImageClassifier
from taggant_lightning.models.ensemble import Ensemble
from taggant_lightning.release.writing import Progress, quiet


class Activations(NamedTuple):
    """What a model shows of N images, in the order of `train_indices`.

    Attributes:
        features: (N, D) float32, what the last layer is given.
        logits: (N, C) float32.
        losses: (N,) float64, the cross-entropy of each image's label.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    losses: NDArray[np.float64]


def penultimate(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a model's last layer is given, and what it answers.

    Args:
        model: A timm model, a sequence of layers, or an ensemble, whose features are those of its members side by side.
        images: (N, C, S, S), normalised.

    Returns:
        (N, D) features and (N, classes) logits.

    Raises:
        TaggantError: If the model is of another kind.
    """
    if isinstance(model, Ensemble):
        pairs = [penultimate(member, images) for member in model.models]
        answers = torch.stack([logits.log_softmax(dim=1) for _, logits in pairs]).mean(dim=0)
        return torch.cat([features for features, _ in pairs], dim=1), answers
    if isinstance(model, nn.Sequential):
        features = model[:-1](images)
        return features.flatten(1), model[-1](features)
    show, answer = getattr(model, "forward_features", None), getattr(model, "forward_head", None)
    if callable(show) and callable(answer):
        maps = show(images)
        return answer(maps, pre_logits=True).flatten(1), answer(maps)
    raise TaggantError(f"model {type(model).__name__} shows no features before its last layer; use a timm model or a small one")


@torch.no_grad()
def activations(
    model: ImageClassifier, data: ImageDataModule, *, batch_size: int = 256, device: str = "cpu", progress: Progress = quiet
) -> Activations:
    """Show a model its training images as evaluation would, without augmentation.

    Args:
        model: The model; it is put into evaluation mode and onto the device.
        data: The data; its training images in use are shown.
        batch_size: Images at a time.
        device: Where to compute.
        progress: Called with what is being done, the number of finished images and of all.

    Raises:
        TaggantError: If model and data do not fit, or the model's answers are no finite numbers.
    """
    for name, wanted in (("image_size", data.image_size), ("channels", data.channels), ("num_classes", data.num_classes)):
        has = model.arguments[name]
        if has != wanted:
            raise TaggantError(
                f"{name}={wanted} of the data, and the model was trained with {has}; use the data of its training"
            )
    model = model.eval().to(device)
    images, total = data.train_data, len(data.train_data)
    found: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]] = []
    for start in range(0, total, batch_size):
        batch, labels, _ = images.batch(range(start, min(start + batch_size, total)))
        pixels = centre(batch.to(device).float() / 255, data.image_size)
        features, logits = penultimate(model.model, model.normalise(pixels))
        losses = F.cross_entropy(logits.double(), labels.to(device), reduction="none")
        found.append((features.float().cpu().numpy(), logits.float().cpu().numpy(), losses.cpu().numpy()))
        progress("features", start + len(labels), total)
    shown = Activations(*(np.concatenate(column) for column in zip(*found, strict=True)))
    if not (np.isfinite(shown.features).all() and np.isfinite(shown.losses).all()):
        raise TaggantError(
            "the model's answers to its training images are not finite; inspect with a checkpoint that trained well"
        )
    return shown

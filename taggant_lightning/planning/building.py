"""Builds the model that a plan is about."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from taggant_lightning.errors import TaggantError
from taggant_lightning.models.classifier import ImageClassifier


def build_model(name: str, *, image_size: int, channels: int, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """Build an untrained model that maps images in [0, 1] to logits.

    Args:
        name: As `model_name` of ImageClassifier.
        image_size: Side S of the input in pixels.
        channels: Image channels.
        num_classes: C.
        options: Further arguments of timm's model, such as {"patch_size": 4}.

    Raises:
        TaggantError: If the name is unknown, or the model does not take the size or the options.
    """
    try:
        return ImageClassifier(name, num_classes, image_size, channels, model_kwargs=dict(options) or None)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:  # timm's, of many kinds
        if isinstance(error, TaggantError):
            raise
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TaggantError(
            f"model={name} cannot be built for image-size={image_size} ({said}); write a size that it takes"
        ) from None

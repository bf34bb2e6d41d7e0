"""Builds the model that a plan is about."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from taggant_lightning.errors import TaggantError
from taggant_lightning.models.classifier import ImageClassifier
from taggant_lightning.models.ensemble import Normalised
from taggant_lightning.models.small import SMALL_MODELS


def build_model(
    name: str, *, image_size: int, channels: int, num_classes: int, options: Mapping[str, Any], small_stem: bool
) -> nn.Module:
    """Build an untrained model that maps images in [0, 1] to logits.

    Args:
        name: A small model or one of timm.
        image_size: Side S of the input in pixels.
        channels: Image channels.
        num_classes: C.
        options: Further arguments of timm's model, such as {"patch_size": 4}.
        small_stem: For images of about 32 pixels: the ResNet's first convolution becomes 3×3 of stride 1, without pooling.

    Returns:
        The model, with normalisation inside.

    Raises:
        TaggantError: If the name is unknown, or the model does not take the size, the options or the stem.
    """
    if options and name in SMALL_MODELS:
        raise TaggantError(f"model-kwargs={dict(options)} with model={name}: the small models take none; leave it out")
    try:
        model: nn.Module = ImageClassifier(
            "small_mlp" if options else name, num_classes=num_classes, image_size=image_size, channels=channels
        )
        if options:
            model = _with_options(name, image_size, channels, num_classes, options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:  # timm's, of many kinds
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TaggantError(
            f"model={name} cannot be built for image-size={image_size} and model-kwargs={dict(options)} ({said}); "
            "write a size and options that it takes"
        ) from None
    return _with_small_stem(name, model, channels) if small_stem else model


def _with_options(name: str, image_size: int, channels: int, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    import timm

    if not timm.is_model(name):
        ImageClassifier(name)  # raises with names that are near
    arguments = {"num_classes": num_classes, "in_chans": channels, **options}
    try:
        model: nn.Module = timm.create_model(name, img_size=image_size, **arguments)
    except TypeError:  # convolutional networks take any size and no img_size
        model = timm.create_model(name, **arguments)
    return Normalised(model, 0.5, 0.25)


def _with_small_stem(name: str, model: nn.Module, channels: int) -> nn.Module:
    inner = getattr(model, "model", model)
    first = getattr(inner, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not isinstance(getattr(inner, "maxpool", None), nn.Module):
        raise TaggantError(f"small-stem does not suit model={name}: it is for ResNets with a pooled stem; leave it out")
    inner.conv1 = nn.Conv2d(channels, first.out_channels, 3, padding=1, bias=False)
    inner.maxpool = nn.Identity()
    return model

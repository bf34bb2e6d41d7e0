"""What a plan is asked for, checked, and the presets."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from taggant_lightning.errors import TaggantError
from taggant_lightning.outside.documents import parse_json

# TaggantSigning's words, written again: importing them would import torch, and `taggant plan --help` must not.
Selection = Literal["gradient_norm", "random"]
Derivative = Literal["auto", "exact", "difference"]


@dataclass(frozen=True)
class Request:
    """A dataset, a model and how to sign and train.

    Attributes:
        images: Of the dataset, N.
        image_size: Side in pixels, as stored and as the model sees it.
        channels: Of an image.
        num_classes: C.
        model: A small model or one of timm.
        model_kwargs: Further arguments of timm's model.
        num_keys: K.
        images_per_key: Signing images of a key.
        steps: Crafting steps a key and restart.
        restarts: Of crafting.
        surrogates: Crafted against: the model in training and snapshots of it.
        micro_batch: Signing images a chunk; None for TaggantSigning's default.
        selection: How signing images are chosen.
        derivative: How crafting takes its derivative.
        epochs: Of training.
        batch_size: Of training, over all devices.
        device: Kind of device.
        devices: Numbers of devices to plan for.
    """

    images: int = 50_000
    image_size: int = 32
    channels: int = 3
    num_classes: int = 100
    model: str = "small_cnn"
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    num_keys: int = 10
    images_per_key: int = 100
    steps: int = 100
    restarts: int = 1
    surrogates: int = 3
    micro_batch: int | None = None
    selection: Selection = "gradient_norm"
    derivative: Derivative = "auto"
    epochs: int = 100
    batch_size: int = 128
    device: str = "h100"
    devices: tuple[int, ...] = (1, 8, 64)

    def __post_init__(self) -> None:
        """Check every number.

        Raises:
            TaggantError: If one lies outside its range.
        """
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise TaggantError(f"{_flag(entry.name)}={value} must be at least 1; write a whole number such as 10")
        if self.num_classes < 2:
            raise TaggantError(f"num-classes={self.num_classes} must be at least 2; write the dataset's number of classes")
        if not self.devices or min(self.devices) < 1:
            raise TaggantError(
                f"devices={list(self.devices)} must be whole numbers from 1; write, for instance, --devices 1 8 64"
            )
        if max(self.devices) > self.batch_size:
            raise TaggantError(
                f"batch-size={self.batch_size} gives {max(self.devices)} devices less than an image each; "
                "write a larger batch (it is the batch of all devices together) or fewer devices"
            )
        if self.num_keys * self.images_per_key > self.images:
            raise TaggantError(
                f"num-keys={self.num_keys} times images-per-key={self.images_per_key} is more than images={self.images}; "
                "write fewer keys or fewer images a key"
            )
        for name, kind in (("selection", Selection), ("derivative", Derivative)):
            if getattr(self, name) not in get_args(kind):
                raise TaggantError(f"{name}={getattr(self, name)!r} is unknown; write one of {', '.join(get_args(kind))}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, S, S) of an image."""
        return self.channels, self.image_size, self.image_size


_CIFAR = {"images": 50_000, "image_size": 32, "num_classes": 100, "epochs": 200, "batch_size": 128}
# 1,280 signing images, 0.1 % of ImageNet-1k.
_IMAGENET = {"images": 1_281_167, "image_size": 224, "num_classes": 1000, "images_per_key": 128, "batch_size": 1024}
_DEIT_S = "deit3_small_patch16_224"
PRESETS: dict[str, dict[str, Any]] = {
    "cifar100-resnet18": {**_CIFAR, "model": "cifar_resnet18"},
    "cifar100-vit-tiny": {**_CIFAR, "model": "vit_tiny_patch16_224", "model_kwargs": {"patch_size": 4}},
    "imagenet-vit-s": {**_IMAGENET, "model": _DEIT_S, "epochs": 300},
    "imagenet-resnet50": {**_IMAGENET, "model": "resnet50", "epochs": 100},
    # 100,000 signing images, 0.1 % again.
    "100m-vit-s": {
        **_IMAGENET, "images": 100_000_000, "num_classes": 10_000, "model": _DEIT_S, "num_keys": 100, "images_per_key": 1000,
        "epochs": 10, "batch_size": 4096,
    },
}  # fmt: skip


def request_of(preset: str | None, given: dict[str, Any]) -> Request:
    """Return a preset with what was given in place of its own values.

    Args:
        preset: Its name, or None for Request's defaults.
        given: Values by Request's names.

    Raises:
        TaggantError: If the preset is unknown or a value lies outside its range.
    """
    if preset is not None and preset not in PRESETS:
        raise TaggantError(f"preset={preset!r} is unknown; write one of {', '.join(PRESETS)}")
    start = PRESETS[preset] if preset is not None else {}
    if "model" in given and given["model"] != start.get("model"):  # options of another model do not belong to this one
        start = {name: value for name, value in start.items() if name != "model_kwargs"}
    return Request(**{**start, **given})


def parse_options(text: str) -> dict[str, Any]:
    """Read the options of a model.

    Raises:
        TaggantError: If the text is no JSON object.
    """
    try:
        options = parse_json(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise TaggantError(f"model-kwargs={text!r} is no JSON object; write, for instance, '{{\"patch_size\": 4}}'")
    return options


def _flag(name: str) -> str:
    return name.replace("_", "-")

"""Models by name: the small ones, timm's, timm's made for 32×32, and several joined by `+`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from taggant_lightning.errors import TaggantError
from taggant_lightning.models.ensemble import Ensemble
from taggant_lightning.models.small import SMALL_MODELS, create_small

# timm's ResNets halve the side twice before the first block, which leaves little of 32×32 pixels.
CIFAR_MODELS = {f"cifar_{name}": name for name in ("resnet18", "resnet26", "resnet34", "resnet50")}
OWN_MODELS = (*SMALL_MODELS, *CIFAR_MODELS)
CONVOLUTIONAL = ("small_cnn", "small_resnet", *CIFAR_MODELS)  # of them
# What timm calls our own arguments, and what would reach for the internet whenever a checkpoint is opened.
_OURS = {
    "num_classes": "num_classes",
    "in_chans": "channels",
    "img_size": "image_size",
    "drop_path_rate": "drop_path",
    "pretrained": "weights",
    "checkpoint_path": "weights",
    "pretrained_cfg": "weights",
    "pretrained_cfg_overlay": "weights",
}


@dataclass(frozen=True)
class Architecture:
    """A model that can be built.

    Attributes:
        name: A small model, `cifar_resnet18`, 26, 34 or 50 (timm's with a 3×3 stem of stride 1 and no pooling), a timm model,
            or several of them joined by `+`.
        num_classes: C.
        image_size: S, the side of the input in pixels.
        channels: Image channels.
        drop_path: Stochastic depth of timm models.
        model_kwargs: Further arguments of timm models; of an ensemble, for each member.
    """

    name: str
    num_classes: int
    image_size: int
    channels: int
    drop_path: float = 0.0
    model_kwargs: Mapping[str, Any] | None = None

    def build(self, stored: Mapping[str, Tensor] | None = None) -> nn.Module:
        """Build the model.

        Args:
            stored: Weights of a timm model that timm fits to this one, all but the head.

        Returns:
            A module that maps (N, channels, S, S) to logits (N, C).

        Raises:
            TaggantError: For an unknown name, or arguments that the model does not take.
        """
        if "+" in self.name:
            return Ensemble([replace(self, name=part).build() for part in self.name.split("+")])
        given = dict(self.model_kwargs or {})
        if self.name in SMALL_MODELS:
            if given:
                raise TaggantError(f"model_kwargs={given} are for timm models, and {self.name} is not one; leave them out")
            return create_small(self.name, num_classes=self.num_classes, image_size=self.image_size, channels=self.channels)
        for theirs in sorted(_OURS.keys() & given):
            raise TaggantError(f"model_kwargs holds {theirs}={given[theirs]!r}; write the model's own argument {_OURS[theirs]}")
        options = {"num_classes": self.num_classes, "in_chans": self.channels, **given}
        if self.drop_path:
            options["drop_path_rate"] = self.drop_path
        if stored is not None:
            # A pretrained model of as many classes as asked for keeps its head; of -1 classes, timm drops it.
            overlay = {"state_dict": dict(stored), "num_classes": -1}
            options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
        try:
            model = _create_timm(CIFAR_MODELS.get(self.name, self.name), self.image_size, options)
        except TaggantError:
            raise
        except Exception as error:  # timm raises many types for arguments that it cannot use
            if not given or stored is not None:
                raise
            said = str(error).partition("\n")[0] or type(error).__name__
            raise TaggantError(f"model_kwargs={given} do not suit {self.name}: {said}; see timm's {self.name}") from None
        if self.name in CIFAR_MODELS:
            stem = nn.Conv2d(self.channels, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")  # as timm begins its convolutions
            model.conv1, model.maxpool = stem, nn.Identity()
        return model


def _create_timm(name: str, image_size: int, options: Mapping[str, Any]) -> nn.Module:
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:4]
        hint = f"timm has {', '.join(near)} …" if near else "see timm.list_models()"
        raise TaggantError(f"model_name={name!r} is unknown; write one of {', '.join(OWN_MODELS)} or a timm model ({hint})")
    try:
        model: nn.Module = timm.create_model(name, img_size=image_size, **options)
    except TypeError:  # convolutional networks take any size and no img_size
        model = timm.create_model(name, **options)
    return model


def head_names(model: nn.Module) -> list[str]:
    """Return the names of the entries of a timm model's head, which belong to its classes; none of other models."""
    layers = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    return [name for name in model.state_dict() if name.startswith(tuple(f"{layer}." for layer in layers))] if layers else []

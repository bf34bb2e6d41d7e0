"""Data taggants for PyTorch Lightning: sign an image dataset, and test with an exact p-value who trained on it."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from taggant_lightning.data.datamodule import ImageDataModule
    from taggant_lightning.data.signed import SignedDataModule
    from taggant_lightning.models.classifier import ImageClassifier
    from taggant_lightning.taggants.detection import KeyDetection
    from taggant_lightning.taggants.keys import KeySet
    from taggant_lightning.taggants.signing import TaggantSigning

__all__ = ["ImageClassifier", "ImageDataModule", "KeyDetection", "KeySet", "SignedDataModule", "TaggantSigning"]

# Importing the package costs nothing: torch and Lightning come with the first name that needs them.
_HOMES = {
    "ImageClassifier": "models.classifier",
    "ImageDataModule": "data.datamodule",
    "KeyDetection": "taggants.detection",
    "KeySet": "taggants.keys",
    "SignedDataModule": "data.signed",
    "TaggantSigning": "taggants.signing",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

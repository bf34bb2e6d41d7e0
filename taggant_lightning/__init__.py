"""Data taggants for PyTorch Lightning: sign an image dataset, and test with an exact p-value who trained on it."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from taggant_lightning.data.datamodule import ImageDataModule
    from taggant_lightning.methods.taggants.keys import KeySet
    from taggant_lightning.methods.taggants.signing import TaggantSigning
    from taggant_lightning.models.classifier import ImageClassifier
    from taggant_lightning.release.signed import SignedDataModule
    from taggant_lightning.verdict.detecting import detect
    from taggant_lightning.verdict.key_detection import KeyDetection

__all__ = ["ImageClassifier", "ImageDataModule", "KeyDetection", "KeySet", "SignedDataModule", "TaggantSigning", "detect"]

# Importing the package costs nothing: torch and Lightning come with the first name that needs them.
_HOMES = {
    "ImageClassifier": "models.classifier",
    "ImageDataModule": "data.datamodule",
    "KeyDetection": "verdict.key_detection",
    "KeySet": "methods.taggants.keys",
    "SignedDataModule": "release.signed",
    "TaggantSigning": "methods.taggants.signing",
    "detect": "verdict.detecting",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

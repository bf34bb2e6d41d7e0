"""Several models in one module, trained side by side, and the models that a module consists of."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Models that answer together with the mean of their log-probabilities.

    Args:
        models: Each maps (N, C, S, S) to logits over the same classes.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, classes), usable as logits."""
        return torch.stack([m(images).log_softmax(dim=1) for m in self.models]).mean(dim=0)


class Normalised(nn.Module):
    """A model behind its normalisation.

    Args:
        model: Maps normalised images to logits.
        normalise: Maps images in [0, 1] to normalised ones.
    """

    def __init__(self, model: nn.Module, normalise: nn.Module) -> None:
        super().__init__()
        self.model, self.normalise = model, normalise

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, S, S) in [0, 1] to logits."""
        logits: Tensor = self.model(self.normalise(images))
        return logits


def members(module: nn.Module) -> list[nn.Module]:
    """Return the models that a module consists of: its `members`, where that is a list of modules, else itself."""
    named = getattr(module, "members", None)
    if isinstance(named, list) and named and all(isinstance(member, nn.Module) for member in named):
        return named
    return [module]

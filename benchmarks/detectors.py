"""What a Bob could put before his model to find queries that are no ordinary images. A higher score is more suspicious.

Each detector is fitted on what Bob has: his training images and his model; `knows the method` also on keys that he draws
himself.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from taggant_lightning import ImageClassifier

Scores = NDArray[np.float64]
Detector = Callable[[Tensor], Scores]


def features(model: ImageClassifier, images: Tensor) -> Tensor:
    """Return what the small CNN's head sees, (N, D)."""
    assert isinstance(model.model, nn.Sequential)  # noqa: S101  # a benchmark's own model
    with torch.no_grad():
        return torch.cat([model.model[:-1](model.normalise(part)) for part in images.split(1024)])


def _variation(images: Tensor) -> Scores:
    across = (images[..., 1:] - images[..., :-1]).abs().mean(dim=(1, 2, 3))
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean(dim=(1, 2, 3))
    return (across + down).double().numpy()


def total_variation(train: Tensor) -> Detector:
    """How far the logarithm of the total variation lies from the training images' mean, on either side."""
    logs = np.log(_variation(train) + 1e-4)
    middle, spread = logs.mean(), logs.std()
    return lambda images: np.abs(np.log(_variation(images) + 1e-4) - middle) / spread


def mahalanobis(train: Tensor, see: Callable[[Tensor], Tensor]) -> Detector:
    """Mahalanobis distance of the model's features from those of the training images, one Gaussian."""
    seen = see(train).double()
    middle = seen.mean(dim=0)
    covariance = torch.cov((seen - middle).T)
    # A little of the identity keeps directions that the training images hardly use from deciding alone.
    precision = torch.linalg.inv(covariance + 1e-3 * covariance.diagonal().mean() * torch.eye(len(covariance)))

    def score(images: Tensor) -> Scores:
        apart = see(images).double() - middle
        return torch.einsum("nd,de,ne->n", apart, precision, apart).numpy()

    return score


def low_confidence(answer: Callable[[Tensor], Tensor]) -> Detector:
    """One minus the largest softmax probability."""
    return lambda images: 1 - answer(images).softmax(dim=1).max(dim=1).values.double().numpy()


def near_revealed(revealed: Tensor, train: Tensor, see: Callable[[Tensor], Tensor]) -> Detector:
    """Largest cosine between the features of an image and those of keys that were revealed."""
    middle = see(train).mean(dim=0)
    known = nn.functional.normalize(see(revealed) - middle, dim=1)
    return lambda images: (nn.functional.normalize(see(images) - middle, dim=1) @ known.T).max(dim=1).values.double().numpy()


def knows_the_method(own_keys: Tensor, train: Tensor, see: Callable[[Tensor], Tensor]) -> Detector:
    """A logistic regression on the model's features, between training images and keys of the kind that Bob drew himself."""
    from sklearn.linear_model import LogisticRegression

    def inputs(images: Tensor) -> NDArray[np.float32]:
        variation = torch.from_numpy(np.log(_variation(images) + 1e-4)).float()[:, None]
        return torch.cat([see(images), variation], dim=1).numpy()

    both = np.concatenate([inputs(train), inputs(own_keys)])
    middle, spread = both.mean(axis=0), both.std(axis=0) + 1e-6
    told = LogisticRegression(C=0.01, max_iter=300).fit(
        (both - middle) / spread, np.repeat([0, 1], [len(train), len(own_keys)])
    )
    return lambda images: np.asarray(told.decision_function((inputs(images) - middle) / spread), dtype=np.float64)

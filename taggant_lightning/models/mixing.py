"""Mixed batches (mixup, CutMix), and the losses that take mixed labels."""

from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from taggant_lightning.errors import TaggantError

Loss = Literal["cross_entropy", "bce"]


class Mixing:
    """Mixes each batch with itself, by mixup or by CutMix; of both, each batch takes one with equal chance.

    An image is mixed with the one before it in the batch, which is shuffled. The random numbers are torch's, which
    `SeededSteps` seeds before each training step; each process draws its own.

    Args:
        mixup: Parameter of mixup's Beta distribution; 0 leaves mixup out.
        cutmix: Parameter of CutMix's Beta distribution; 0 leaves CutMix out.
        num_classes: C.

    Raises:
        TaggantError: If a parameter is negative or no number.
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int) -> None:
        for name, value in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= value < float("inf"):
                raise TaggantError(f"{name}={value} must be at least 0: the parameter of a Beta distribution, 0 for none")
        self._mix: Any = None
        if mixup or cutmix:
            from torchvision.transforms import v2

            found = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
            found += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
            self._mix = v2.RandomChoice(found)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: (N, C, S, S) float in [0, 1].
            labels: (N,) int64.

        Returns:
            Images of the same shape in [0, 1], and targets (N, classes) float that sum to 1; both as they were without
            mixing.
        """
        if self._mix is None:
            return images, labels
        images, labels = self._mix(images, labels)
        return images, labels


def check_loss(loss: str, label_smoothing: float) -> None:
    """Check a loss and its smoothing.

    Raises:
        TaggantError: If the loss is unknown, or the smoothing lies outside [0, 1).
    """
    if loss not in get_args(Loss):
        raise TaggantError(f"loss={loss!r} is unknown; write one of {', '.join(get_args(Loss))}")
    if not 0 <= label_smoothing < 1:
        raise TaggantError(f"label_smoothing={label_smoothing} must lie in [0, 1): the share that all classes have in a label")


def training_loss(logits: Tensor, targets: Tensor, loss: str, label_smoothing: float) -> Tensor:
    """Return the mean loss of a batch.

    Args:
        logits: (N, classes).
        targets: (N,) int64, or (N, classes) float that sum to 1.
        loss: `cross_entropy`; or `bce`, binary cross-entropy of each class, its mean over classes and images, as timm's.
        label_smoothing: Share of a label that all classes have alike.
    """
    if loss == "cross_entropy":
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    from timm.loss import BinaryCrossEntropy

    if targets.ndim > 1:  # timm leaves the smoothing of mixed labels to what mixes
        targets = targets * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    result: Tensor = BinaryCrossEntropy(smoothing=label_smoothing)(logits.float(), targets)
    return result

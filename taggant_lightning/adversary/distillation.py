"""Distillation: a student of any architecture that learns from a teacher's soft answers and sees no label."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from taggant_lightning.errors import TaggantError
from taggant_lightning.models.classifier import ImageClassifier, load_classifier

_SHARED = ("num_classes", "image_size", "channels")


class Distillation(ImageClassifier):
    """Trains a student on a teacher's answers: the divergence of both softened distributions, times temperature².

    The teacher sees the same augmented and mixed images as the student. It is no part of the student's checkpoint, which a
    plain ImageClassifier loads.

    Args:
        teacher: Checkpoint of the ImageClassifier to learn from.
        temperature: Softens both models' answers; above 0.
        arguments: Those of ImageClassifier, of the student; the loss and its label smoothing are not used.

    Raises:
        TaggantError: If the teacher cannot be read or has another shape, or an argument lies outside its range.
    """

    def __init__(self, teacher: str, temperature: float = 2.0, **arguments: Any) -> None:
        if not 0 < temperature < float("inf"):
            raise TaggantError(f"temperature={temperature} must be above 0; write a number such as 2")
        super().__init__(**arguments)
        model = load_classifier(teacher)
        for name in _SHARED:
            if model.arguments[name] != self.arguments[name]:
                theirs, ours = model.arguments[name], self.arguments[name]
                raise TaggantError(f"teacher={teacher} has {name}={theirs} and the data {ours}; use the data it was trained on")
        self.temperature = temperature
        # Within a list, the teacher is no submodule: neither trained, nor saved, nor put into training mode.
        self._teacher = [model.requires_grad_(requires_grad=False)]

    def on_fit_start(self) -> None:
        """Bring the teacher to the student's device."""
        self._teacher[0].to(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch of images in [0, 1]; its labels are not used."""
        images, _ = self.mixing(*batch)
        with torch.no_grad():
            wanted = self._teacher[0](images.float()).to(images.dtype)  # whatever precision the student trains in
        losses = [soft_loss(logits, wanted, self.temperature) for logits in self.answers(images)]
        loss = torch.stack(losses).sum()  # as ImageClassifier sums its members'
        self.log_loss(loss / len(losses), len(images))
        return loss


def soft_loss(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Return the mean over images of temperature² · KL(softmax(wanted / temperature) ‖ softmax(logits / temperature)).

    Args:
        logits: (N, classes), of the student.
        wanted: (N, classes), of the teacher.
        temperature: Softens both; the square keeps the gradient's size.
    """
    student, teacher = (values.div(temperature).log_softmax(dim=1) for values in (logits, wanted))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2

"""A model in a file, asked in a process of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import digest_of
from taggant_lightning.verdict.suspects.base import QueryOutcome, Suspect, Task, found, notes_on

MOST_PIXELS = 2048  # of a model's input: what no image classifier exceeds


class ModelFile(Suspect):
    """An ONNX file, or a torch.export or TorchScript file.

    Args:
        way: `onnx` or `exported`.
        path: The file.
        image_size: Side that keys are resized to; None for their own.
        mean: What the model wants subtracted from [0, 1], a number a channel; None for nothing.
        std: What it wants divided by.
        layout: `NCHW` or `NHWC`, where the file leaves that open.
        patience: Seconds for a pass; None for the default.
    """

    def __init__(
        self,
        way: Literal["onnx", "exported"],
        path: str | Path,
        *,
        image_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        layout: str | None = None,
        patience: float | None = None,
    ) -> None:
        self.way, self.path = way, Path(path)
        self.image_size, self.mean, self.std = image_size, mean, std
        self.layout, self.patience = layout, patience

    @property
    def name(self) -> str:
        """The file's."""
        return self.path.name

    def settings(self) -> dict[str, Any]:
        """Return size, scale and layout."""
        return {"image_size": self.image_size, "mean": self.mean, "std": self.std, "layout": self.layout}

    def identity(self) -> dict[str, Any]:
        """Return the file's digest."""
        return {"file_sha256": digest_of(self.path)}

    def ask(self, task: Task) -> QueryOutcome:
        """Ask the keys at the model's input size, in key order."""
        from taggant_lightning.access.files.process import ask_file
        from taggant_lightning.data.dataset import to_float
        from taggant_lightning.data.resize import fit

        digest = digest_of(self.path)
        images = to_float(task.keys.images[task.keys.numbers(task.batches)])
        if self.image_size is not None:
            if not 1 <= self.image_size <= MOST_PIXELS:
                raise TaggantError(
                    f"image-size={self.image_size} must be at least 1 and at most {MOST_PIXELS}, the side of the model's input"
                )
            images = fit(images, self.image_size)
        asked = ask_file(
            self.way,
            str(self.path),
            images.numpy(),
            mean=self.mean,
            std=self.std,
            layout=self.layout,
            classes=len(task.table.ours),
            patience=self.patience,
        )
        asked.check_reach(f"{self.way}={self.path}")
        answers = task.table.apply(asked.answers, asked.classes)
        failed = sum(answer.labels is None for answer in answers)
        missed = {"the file failed, or gave another number of scores or one that is no number": failed} if failed else {}
        unlisted = task.table.unlisted(a.labels for a in asked.answers) if task.table.where is not None else (0, "")
        return QueryOutcome(
            answers, {"file_sha256": digest, **found(missed, asked.checks)}, notes_on(missed, unlisted, task.table)
        )

"""Asking a model in a file of torch: an exported program (.pt2) or TorchScript (.pt, .ts). Nothing is unpickled but tensors."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.files.inputs import InputShape, ask_in_blocks, check_images, normalise
from taggant_lightning.errors import TaggantError

Forward = Callable[[NDArray[np.float32]], list[Any]]


def exported_input(path: str | Path) -> InputShape:
    """Return what an exported file takes, so that images can be brought to it; TorchScript does not say.

    Args:
        path: The file.

    Raises:
        TaggantError: If the file is missing, damaged, in no accepted format, or would do more than compute.
    """
    return _open(Path(path))[0]


def ask_exported(
    path: str | Path,
    images: NDArray[np.float32],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[list[Answer], int]:
    """Ask a file of torch.export.save or torch.jit.save for its rankings, on the CPU.

    An exported program with a fixed batch of 1 is asked one image at a time. Of several outputs, the first with a row of
    floating-point scores an image counts.

    Args:
        path: The file.
        images: (N, C, S, S) float32 in [0, 1].
        mean: Mean a channel to subtract, where the file wants normalised images; None for 0.
        std: Standard deviation a channel to divide by; None for 1.

    Returns:
        N answers that rank the file's output numbers 0..B−1, numbered as the images, and B.

    Raises:
        TaggantError: As `exported_input`; or if the images do not suit the file, or it fails or answers other shapes.
    """
    what = f"exported={path}"
    shape, model = _open(Path(path))
    check_images(what, shape, images)

    def forward(block: NDArray[np.float32]) -> NDArray[np.floating]:
        import torch

        try:
            outputs = model(block)
        except TaggantError:
            raise
        except Exception as error:  # of any operator of torch, or of the TorchScript interpreter
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            size = "×".join(map(str, block.shape[1:]))
            known = "export the model again" if shape.size else "write --image-size with the size that the model was trained on"
            raise TaggantError(f"{what} fails on {size} images ({lines[-1][:200]}); {known}") from None
        for scores in outputs:
            if isinstance(scores, torch.Tensor) and scores.ndim == 2 and scores.is_floating_point():
                found: NDArray[np.floating] = scores.float().cpu().numpy()
                return found
        shapes = ", ".join("×".join(map(str, getattr(o, "shape", ("no tensor",)))) for o in outputs)
        raise TaggantError(f"{what} answers {shapes}; export a model with an output of class scores, (N, classes) in float")

    return ask_in_blocks(what, shape, normalise(images, mean, std), forward)


def _open(path: Path) -> tuple[InputShape, Forward]:
    """Tell the formats apart by what the archive holds; its name does not count."""
    from taggant_lightning.access.files.archive import Archive
    from taggant_lightning.access.files.program import MODEL, OLD_MODEL, Program
    from taggant_lightning.access.files.torchscript import load_script

    archive = Archive(path, f"exported={path}")
    if any(MODEL.fullmatch(name) or name == OLD_MODEL for name in archive.names):
        program = Program(archive)
        return program.shape, program
    if "constants.pkl" in archive and "data.pkl" in archive:
        return InputShape(), load_script(archive)
    if "data.pkl" in archive:
        raise TaggantError(
            f"{archive.what} holds pickled weights or a pickled module and no program; write the model as ONNX, with "
            "torch.export.save or with torch.jit.save"
        )
    raise TaggantError(
        f"{archive.what} holds no program that can be run without running its code (a compiled one?); write the model as ONNX, "
        "with torch.export.save or with torch.jit.save"
    )

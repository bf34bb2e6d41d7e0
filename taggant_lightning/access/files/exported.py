"""A model in a file of torch: an exported program (.pt2) or TorchScript (.pt, .ts). Nothing is unpickled but tensors."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.files.inputs import InputShape
from taggant_lightning.access.files.opened import OpenModel, check_memory, choose_scores
from taggant_lightning.errors import TaggantError

if TYPE_CHECKING:
    from taggant_lightning.access.answer import Answer

Forward = Callable[[NDArray[np.float32]], list[Any]]


def exported_input(path: str | Path) -> InputShape:
    """Return what an exported file takes, so that images can be brought to it; TorchScript does not say.

    Args:
        path: The file.

    Raises:
        TaggantError: If the file is missing, damaged, in no accepted format, or would do more than compute.
    """
    return open_exported(path, f"exported={path}").shape


def ask_exported(
    path: str | Path,
    images: NDArray[np.float32],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[list["Answer"], int]:
    """Ask a file of torch.export.save or torch.jit.save for its rankings, on the CPU and in this process.

    A stranger's file is safer in a process of its own, with limits: `process.ask_file`, which `taggant detect` uses.

    An exported program with a fixed batch of 1 is asked one image at a time. An output counts that has a row of floating-point
    scores an image.

    Args:
        path: The file.
        images: (N, C, S, S) float32 in [0, 1].
        mean: Mean a channel to subtract, where the file wants normalised images; None for 0.
        std: Standard deviation a channel to divide by; None for 1.

    Returns:
        N answers that rank the file's output numbers 0..B−1, numbered as the images, and B.

    Raises:
        TaggantError: As `exported_input` and `asking.ask_plain`.
    """
    from taggant_lightning.access.files.asking import ask_plain

    return ask_plain(open_exported(path, f"exported={path}"), images, mean=mean, std=std)


def open_exported(path: str | Path, what: str, classes: int | None = None) -> OpenModel:
    """Open a file in this process.

    Args:
        path: The file.
        what: The argument and its file, for messages.
        classes: How many classes the model should have, if known.

    Raises:
        TaggantError: As `exported_input`.
    """
    shape, model = _open(Path(path), what)

    def forward(block: NDArray[np.float32]) -> NDArray[np.floating]:
        try:
            outputs = [_array(output) for output in model(block)]
        except TaggantError:
            raise
        except Exception as error:  # of any operator of torch, or of the TorchScript interpreter
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            check_memory(what, f"{type(error).__name__}: {lines[-1]}")
            size = "×".join(map(str, block.shape[1:]))
            known = (
                "export the model again"
                if shape.size
                else "write --image-size with the size that the model was trained on, or --layout NHWC if channels come last"
            )
            raise TaggantError(f"{what} fails on {size} images ({lines[-1][:200]}); {known}") from None
        return choose_scores(what, outputs, classes)

    return OpenModel(what, shape, forward)


def _array(output: Any) -> Any:
    """Return a tensor of float as float32, so that numpy can hold half precision, and anything else as it is."""
    import torch

    return output.float().cpu().numpy() if isinstance(output, torch.Tensor) and output.is_floating_point() else output


def _open(path: Path, what: str) -> tuple[InputShape, Forward]:
    """Tell the formats apart by what the archive holds; its name does not count."""
    from taggant_lightning.access.files.archive import Archive
    from taggant_lightning.access.files.program import MODEL, OLD_MODEL, Program
    from taggant_lightning.access.files.torchscript import load_script

    archive = Archive(path, what)
    if any(MODEL.fullmatch(name) or name == OLD_MODEL for name in archive.names):
        program = Program(archive)
        return program.shape, program
    if "constants.pkl" in archive and "data.pkl" in archive:
        return load_script(archive)
    if "data.pkl" in archive:
        raise TaggantError(
            f"{archive.what} holds pickled weights or a pickled module and no program; write the model as ONNX, with "
            "torch.export.save or with torch.jit.save"
        )
    raise TaggantError(
        f"{archive.what} holds no program that can be run without running its code (a compiled one?); write the model as ONNX, "
        "with torch.export.save or with torch.jit.save"
    )

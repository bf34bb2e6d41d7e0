"""A model in an ONNX file, run on the CPU and with ONNX's own operators only."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.files.inputs import InputShape
from taggant_lightning.access.files.opened import OpenModel, check_memory, choose_scores
from taggant_lightning.errors import TaggantError

if TYPE_CHECKING:
    from taggant_lightning.access.answer import Answer

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def onnx_input(path: str | Path) -> InputShape:
    """Return what an ONNX file takes, so that images can be brought to it.

    Args:
        path: The file.

    Raises:
        TaggantError: If the file is missing or no ONNX model, takes other than one float input of rank 4, reads files outside
            of its folder, needs operators that image classifiers do without, is in training mode, or onnxruntime is not
            installed.
    """
    return open_onnx(path, f"onnx={path}").shape


def ask_onnx(
    path: str | Path,
    images: NDArray[np.float32],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[list["Answer"], int]:
    """Ask an ONNX file for its rankings, in this process.

    A stranger's file is safer in a process of its own, with limits: `process.ask_file`, which `taggant detect` uses.

    A file with a fixed batch of 1 is asked one image at a time. An output counts that has a row of floating-point scores an
    image.

    Args:
        path: The file.
        images: (N, C, S, S) float32 in [0, 1].
        mean: Mean a channel to subtract, where the file wants normalised images; None for 0.
        std: Standard deviation a channel to divide by; None for 1.

    Returns:
        N answers that rank the file's output numbers 0..B−1, numbered as the images, and B.

    Raises:
        TaggantError: As `onnx_input` and `asking.ask_plain`.
    """
    from taggant_lightning.access.files.asking import ask_plain

    return ask_plain(open_onnx(path, f"onnx={path}"), images, mean=mean, std=std)


def import_runtime(what: str) -> tuple[Any, Any]:
    """Return the modules onnx and onnxruntime.

    Args:
        what: The argument and its file, for messages.

    Raises:
        TaggantError: If they are not installed.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise TaggantError(f"{what} needs onnxruntime; run pip install 'taggant-lightning[onnx]'") from None
    return onnx, onnxruntime


def open_onnx(path: str | Path, what: str, classes: int | None = None) -> OpenModel:
    """Open a file in this process.

    Args:
        path: The file.
        what: The argument and its file, for messages.
        classes: How many classes the model should have, if known.

    Raises:
        TaggantError: As `onnx_input`.
    """
    session = _session(Path(path), what)
    takes = session.get_inputs()[0]
    shape = InputShape(*(d if isinstance(d, int) and d > 0 else None for d in takes.shape))

    def forward(block: NDArray[np.float32]) -> NDArray[np.floating]:
        try:
            outputs = session.run(None, {takes.name: block.astype(FLOATS[takes.type])})
        except Exception as error:  # onnxruntime raises types of its own, straight from Exception
            check_memory(what, _first_line(error))
            raise TaggantError(f"{what} fails on {shape} images ({_first_line(error)}); export the model again") from None
        return choose_scores(what, outputs, classes)

    return OpenModel(what, shape, forward)


def _session(path: Path, what: str) -> Any:
    """Open a session once the file is known to name no file outside of its folder and no operator outside of the list."""
    from taggant_lightning.access.files.onnx_checks import check_model

    onnx, onnxruntime = import_runtime(what)
    if not path.is_file():
        raise TaggantError(f"{what} is no file; name the ONNX file of the model")
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except Exception:  # protobuf's own error, or an OSError of a strange file
        raise TaggantError(f"{what} is no ONNX file; export the model with torch.onnx.export") from None
    check_model(what, model, path.resolve().parent)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it would print, the message below tells
    try:
        session = onnxruntime.InferenceSession(str(path.resolve()), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises types of its own, straight from Exception
        check_memory(what, _first_line(error))
        raise TaggantError(f"{what} cannot be loaded ({_first_line(error)}); export the model again") from None
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(i.name for i in inputs) or "none"
        raise TaggantError(f"{what} has {len(inputs)} inputs ({names}); export a model that takes images and nothing else")
    if inputs[0].type not in FLOATS:
        raise TaggantError(f"{what} takes {inputs[0].type}; export a model that takes float images in [0, 1]")
    if len(inputs[0].shape) != 4:
        raise TaggantError(f"{what} takes an input of rank {len(inputs[0].shape)}; export a model that takes (N, C, H, W)")
    return session


def _threads() -> int:
    """Return the threads that OMP_NUM_THREADS allows, as it does torch's; 0 leaves the choice to onnxruntime."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdigit() else 0


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]

"""Asking a model in an ONNX file, on the CPU and with ONNX's own operators only."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.files.inputs import InputShape, ask_in_blocks, check_images, normalise
from taggant_lightning.errors import TaggantError

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def onnx_input(path: str | Path) -> InputShape:
    """Return what an ONNX file takes, so that images can be brought to it.

    Args:
        path: The file.

    Raises:
        TaggantError: If the file is missing or no ONNX model, takes other than one float input of rank 4, reads files outside
            of its folder, or onnxruntime is not installed.
    """
    return _shape(_open(Path(path)))


def ask_onnx(
    path: str | Path,
    images: NDArray[np.float32],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[list[Answer], int]:
    """Ask an ONNX file for its rankings.

    A file with a fixed batch of 1 is asked one image at a time. Of several outputs, the first with a row of floating-point
    scores an image counts.

    Args:
        path: The file.
        images: (N, C, S, S) float32 in [0, 1].
        mean: Mean a channel to subtract, where the file wants normalised images; None for 0.
        std: Standard deviation a channel to divide by; None for 1.

    Returns:
        N answers that rank the file's output numbers 0..B−1, numbered as the images, and B.

    Raises:
        TaggantError: As `onnx_input`; or if the images do not suit the file, or it fails or answers other shapes.
    """
    what, session = f"onnx={path}", _open(Path(path))
    shape, takes = _shape(session), session.get_inputs()[0]
    check_images(what, shape, images)

    def forward(block: NDArray[np.float32]) -> NDArray[np.floating]:
        try:
            outputs = session.run(None, {takes.name: block.astype(FLOATS[takes.type])})
        except Exception as error:  # onnxruntime raises types of its own, straight from Exception
            raise TaggantError(f"{what} fails on {shape} images ({_first_line(error)}); export the model again") from None
        for scores in outputs:
            if isinstance(scores, np.ndarray) and scores.ndim == 2 and np.issubdtype(scores.dtype, np.floating):
                return scores
        shapes = ", ".join("×".join(map(str, getattr(o, "shape", ("no tensor",)))) for o in outputs)
        raise TaggantError(f"{what} answers {shapes}; export a model with an output of class scores, (N, classes) in float")

    return ask_in_blocks(what, shape, normalise(images, mean, std), forward)


def _open(path: Path) -> Any:
    """Open a session once the file is known to name no file outside of its folder."""
    what = f"onnx={path}"
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise TaggantError(f"{what} needs onnxruntime; run pip install 'taggant-lightning[onnx]'") from None
    if not path.is_file():
        raise TaggantError(f"{what} is no file; name the ONNX file of the model")
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except Exception:  # protobuf's own error, or an OSError of a strange file
        raise TaggantError(f"{what} is no ONNX file; export the model with torch.onnx.export") from None
    folder = path.resolve().parent
    for location in _external(model):
        # Recent versions of onnxruntime refuse these themselves; older ones read whatever is named.
        if not (folder / location).resolve().is_relative_to(folder):
            raise TaggantError(f"{what} reads its weights from {location!r}, outside of its folder; put them beside the file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it would print, the message below tells
    try:
        session = onnxruntime.InferenceSession(str(path.resolve()), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises types of its own, straight from Exception
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


def _shape(session: Any) -> InputShape:
    return InputShape(*(d if isinstance(d, int) and d > 0 else None for d in session.get_inputs()[0].shape))


def _threads() -> int:
    """Return the threads that OMP_NUM_THREADS allows, as it does torch's; 0 leaves the choice to onnxruntime."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdigit() else 0


def _external(message: Any) -> Iterator[str]:
    """Yield the files that any tensor in a protobuf message names, subgraphs and functions included."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield from (entry.value for entry in message.external_data if entry.key == "location")
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if hasattr(value, "DESCRIPTOR") else value:
            if hasattr(inner, "ListFields"):
                yield from _external(inner)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]

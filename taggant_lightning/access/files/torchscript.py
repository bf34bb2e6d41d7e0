"""Running a TorchScript file once it is known to touch no file and to run nothing while it loads.

TorchScript runs no Python, but its language has operators that write and map files (`torch.save`, `torch.from_file`), loading
evaluates default arguments and calls `__setstate__`, and every library in the process adds operators (torchvision's read and
write files). So the code's text is checked before it is loaded, and the compiled graph before it runs.
"""

import io
import re
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from taggant_lightning.access.files.archive import Archive
from taggant_lightning.errors import TaggantError

KEPT = re.compile(r"code/.*\.py|(data|constants)\.pkl|(data|constants)/\d+|version|byteorder|\.data/\w+", re.ASCII)
FILES = {"save", "from_file"}
FORBIDDEN = re.compile(r"(?<!\w)(save|from_file|classes|__setstate__)(?!\w)")
# What may stay of `ops` and `getattr` once their harmless uses are taken away: nothing.
HARMLESS_OPS = re.compile(r"(?<!\w)ops\.(prim|aten)\.\w+")
HARMLESS_GETATTR = re.compile(r"(?<!\w)getattr\([\w.]+, \"[\w.]+\"\)")
LEFT = re.compile(r"(?<!\w)(ops|getattr)(?!\w)")
# Escapes that spell no letter, so that a name in a text cannot be written otherwise.
ESCAPE = re.compile(r"\\[^nrt\"'\\]")
CLASSES = re.compile(rb"torch[.\n]classes")
PRIM = {
    "Constant", "GetAttr", "If", "Loop", "ListConstruct", "ListUnpack", "TupleConstruct", "TupleUnpack", "TupleIndex",
    "TupleSlice", "DictConstruct", "NumToTensor", "ImplicitTensorToNum", "RaiseException", "Uninitialized", "unchecked_cast",
    "unchecked_unwrap_optional", "isinstance", "min", "max", "abs", "data", "device", "dtype", "layout", "shape", "is_cuda",
    "requires_grad", "StringIndex", "ceil", "floor",
}  # fmt: skip


def load_script(archive: Archive) -> Callable[[NDArray[np.float32]], list[Any]]:
    """Load a TorchScript file.

    Args:
        archive: The file.

    Returns:
        A function from (n, C, H, W) float32 to the model's outputs.

    Raises:
        TaggantError: If the file could touch files or run something while it loads, or is damaged.
    """
    kept = {name: archive.read(name) for name in archive.names if KEPT.fullmatch(name)}
    for name, content in kept.items():
        _check(archive.what, name, content)
    # Written anew, so that what is loaded is what was checked, whichever way two readers understand an archive.
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as copy:
        for name, content in kept.items():
            copy.writestr(f"model/{name}", content)
    packed.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch 2.14 tells authors, not askers, that TorchScript is deprecated
            module = torch.jit.load(packed, map_location="cpu")  # type: ignore[no-untyped-call]  # torch leaves load untyped
            module.eval()
            graph = module.inlined_graph
    except Exception as error:  # RuntimeError and whatever the compiler raises
        raise TaggantError(f"{archive.what} cannot be loaded ({_last_line(error)}); export the model again") from None
    _check_graph(archive.what, graph)
    inputs = list(graph.inputs())[1:]
    if len(inputs) != 1 and not (inputs and all(str(i.type()).startswith("Optional") for i in inputs[1:])):
        raise TaggantError(f"{archive.what} takes {len(inputs)} inputs; export a model that takes images and nothing else")
    floating = {p.dtype for p in module.parameters() if p.is_floating_point()}
    dtype = floating.pop() if len(floating) == 1 else torch.float32  # a model in half precision takes images in it
    method = module._c._get_method("forward")

    def forward(images: NDArray[np.float32]) -> list[Any]:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = method(torch.from_numpy(images).to(dtype))
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]

    return forward


def _check(what: str, name: str, content: bytes) -> None:
    """Refuse a member whose text, or whose pickled types, could do more than compute."""
    harm = None
    if name.endswith(".py"):
        text = content.decode("latin-1")
        if not text.isascii():
            harm = "letters beyond ASCII"
        elif found := FORBIDDEN.search(text) or ESCAPE.search(text):
            harm = repr(found[0])
        else:
            text = HARMLESS_OPS.sub("0", text)
            while (fewer := HARMLESS_GETATTR.sub("x", text)) != text:
                text = fewer
            harm = repr(found[0]) if (found := LEFT.search(text)) else None
    elif name.endswith(".pkl") and CLASSES.search(content):
        harm = "a class of a library"
    if harm is not None:
        raise TaggantError(
            f"{what} has {harm} in {name}, with which TorchScript can reach files or run something while it loads; "
            "write the model as ONNX"
        )


def _check_graph(what: str, graph: Any) -> None:
    """Refuse a graph with a node that does more than compute."""
    for node in graph.nodes():
        kind = node.kind()
        space, _, name = kind.partition("::")
        if not (space == "prim" and name in PRIM) and not (space == "aten" and name not in {*FILES, "_print"}):
            raise TaggantError(f"{what} needs {kind}, which is not run from a file; write the model as ONNX")
        for block in node.blocks():
            _check_graph(what, block)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]

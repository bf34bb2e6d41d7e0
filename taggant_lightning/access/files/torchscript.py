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
from taggant_lightning.access.files.inputs import InputShape
from taggant_lightning.access.files.opened import check_memory
from taggant_lightning.access.files.operators import PRIM, SCRIPT_ATEN, draws_at_random, is_allowed, not_allowed
from taggant_lightning.access.files.training import check_script_graph
from taggant_lightning.errors import TaggantError

KEPT = re.compile(r"code/.*\.py|(data|constants)\.pkl|(data|constants)/\d+|version|byteorder|\.data/\w+", re.ASCII)
FORBIDDEN = re.compile(r"(?<!\w)(save|from_file|classes|__setstate__)(?!\w)")
# What may stay of `ops` and `getattr` once their harmless uses are taken away: nothing.
HARMLESS_OPS = re.compile(r"(?<!\w)ops\.(prim|aten)\.\w+")
HARMLESS_GETATTR = re.compile(r"(?<!\w)getattr\([\w.]+, \"[\w.]+\"\)")
LEFT = re.compile(r"(?<!\w)(ops|getattr)(?!\w)")
# Escapes that spell no letter, so that a name in a text cannot be written otherwise.
ESCAPE = re.compile(r"\\[^nrt\"'\\]")
CLASSES = re.compile(rb"torch[.\n]classes")
MOST_ROUNDS = 10**9


def load_script(archive: Archive) -> tuple[InputShape, Callable[[NDArray[np.float32]], list[Any]]]:
    """Load a TorchScript file.

    Args:
        archive: The file.

    Returns:
        What is known of its input, which TorchScript does not declare; and a function from (n, C, H, W) float32 to the outputs.

    Raises:
        TaggantError: If the file could touch files, run something while it loads or never end, is in training mode, or damaged.
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
        check_memory(archive.what, _last_line(error))
        raise TaggantError(f"{archive.what} cannot be loaded ({_last_line(error)}); export the model again") from None
    _check_graph(archive.what, graph)
    method = module._c._get_method("forward")
    inputs = method.schema.arguments[1:]
    if not inputs or not all(i.has_default_value() or str(i.type).startswith("Optional") for i in inputs[1:]):
        raise TaggantError(f"{archive.what} takes {len(inputs)} inputs; export a model that takes images and nothing else")
    _check_mode(archive.what, module)
    floating = {p.dtype for p in module.parameters() if p.is_floating_point()}
    dtype = floating.pop() if len(floating) == 1 else torch.float32  # a model in half precision takes images in it

    def forward(images: NDArray[np.float32]) -> list[Any]:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = method(torch.from_numpy(images).to(dtype))
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]

    return InputShape(declared=False, channels_last=_channels_come_last(graph)), forward


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
    """Refuse a graph with a node that does more than compute, or a loop whose end depends on what it computes."""
    for node in graph.nodes():
        kind = node.kind()
        space, _, name = kind.partition("::")
        # What draws at random may stand in a branch for training; `check_script_graph` looks whether it is still taken.
        aten = space == "aten" and (is_allowed(name) or name in SCRIPT_ATEN or draws_at_random(name))
        if not aten and not (space == "prim" and name in PRIM):
            raise not_allowed(what, kind)
        if kind == "prim::Loop" and _is_endless(node):
            raise not_allowed(what, "a while loop, which may never end")
        for block in node.blocks():
            _check_graph(what, block)


def _is_endless(loop: Any) -> bool:
    """Return whether nothing but what a loop computes ends it: a `while`, which is a loop over the largest whole number.

    A loop over a list or a range that may be left before is written to a file as a `while` too: one that counts by ones up to a
    number from outside of it, and so ends.
    """
    rounds = next(iter(loop.inputs())).toIValue()
    return isinstance(rounds, int) and rounds > MOST_ROUNDS and not _counts_up(next(loop.blocks()))


def _counts_up(body: Any) -> bool:
    takes, gives = list(body.inputs())[1:], list(body.outputs())
    own = {value.debugName() for value in [*body.inputs(), *(out for node in body.nodes() for out in node.outputs())]}
    condition = gives[0].node()
    parts = list(condition.inputs()) if condition.kind() == "aten::__and__" else [gives[0]]
    for less in (part.node() for part in parts if part.node().kind() == "aten::lt"):
        counted, bound = less.inputs()
        step = list(counted.node().inputs()) if counted.node().kind() == "aten::add" else []
        places = [place for place, value in enumerate(takes) if step and value.debugName() == step[0].debugName()]
        carried = bool(places) and gives[1 + places[0]].debugName() == counted.debugName()
        if carried and step[1].toIValue() == 1 and bound.debugName() not in own:
            return True
    return False


def _check_mode(what: str, module: Any) -> None:
    """Refuse a module in which dropout or batch statistics are left once its evaluation mode is folded in."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            folded = torch.jit.freeze(module, optimize_numerics=False).graph
    except Exception:  # not every module can be folded; asking twice finds what is left
        return
    check_script_graph(what, folded)


def _channels_come_last(graph: Any) -> bool:
    """Return whether the first thing that a graph does to its images is to move their last dimension to the channels' place."""
    users = [use.user for use in list(graph.inputs())[1].uses() if use.user.kind() != "aten::size"]
    return bool(users) and all(_moves_last_to_second(user) for user in users)


def _constant(value: Any) -> Any:
    """Return a constant, or a list of constants; None for what is computed."""
    node = value.node()
    return [inner.toIValue() for inner in node.inputs()] if node.kind() == "prim::ListConstruct" else value.toIValue()


def _moves_last_to_second(node: Any) -> bool:
    values = [_constant(value) for value in list(node.inputs())[1:]]
    kind = node.kind()
    if kind == "aten::permute":
        return isinstance(values[0], list) and len(values[0]) == 4 and values[0][1] in (3, -1)
    if kind in ("aten::transpose", "aten::swapaxes", "aten::swapdims"):
        return all(isinstance(value, int) for value in values) and {value % 4 for value in values} == {1, 3}
    if kind in ("aten::movedim", "aten::moveaxis"):
        ends = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
        return all(isinstance(end, int) for end in ends) and [end % 4 for end in ends] == [3, 1]
    return False


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]

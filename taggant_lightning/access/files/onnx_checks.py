"""What is looked at in an ONNX file before onnxruntime opens it: operators, training, and the files that it names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taggant_lightning.access.files.operators import ONNX, ONNX_RANDOM, not_allowed
from taggant_lightning.access.files.training import check_onnx_node
from taggant_lightning.errors import TaggantError

OWN = ("", "ai.onnx")


def check_model(what: str, model: Any, folder: Path) -> None:
    """Refuse a model that reads files outside of its folder, needs other operators, or is in training mode.

    Args:
        what: The argument and its file, for messages.
        model: The ModelProto, without its external data.
        folder: The file's folder.

    Raises:
        TaggantError: As said.
    """
    for location in external_files(model):
        # Recent versions of onnxruntime refuse these themselves; older ones read whatever is named.
        place = (folder / location).resolve()
        if not place.is_relative_to(folder):
            raise TaggantError(f"{what} reads its weights from {location!r}, outside of its folder; put them beside the file")
        if place.exists() and not place.is_file():
            raise TaggantError(f"{what} reads its weights from {location!r}, which is no file; put them beside the file")
    opset = max((entry.version for entry in model.opset_import if entry.domain in OWN), default=1)
    local = {(function.domain, function.name) for function in model.functions}
    for nodes, constants in _graphs(model):
        for node in nodes:
            if (node.domain, node.op_type) in local:
                continue
            name = f"{node.domain}::{node.op_type}" if node.domain not in OWN else node.op_type
            if node.domain not in OWN or node.op_type not in ONNX | ONNX_RANDOM:
                raise not_allowed(f"{what} cannot be loaded: it", repr(name))
            check_onnx_node(what, node, constants, opset)


def external_files(message: Any) -> Iterator[str]:
    """Yield the files that any tensor in a protobuf message names, subgraphs and functions included."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield from (entry.value for entry in message.external_data if entry.key == "location")
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if hasattr(value, "DESCRIPTOR") else value:
            if hasattr(inner, "ListFields"):
                yield from external_files(inner)


def _graphs(model: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the nodes of every graph, graphs within graphs and functions included, with the constants that they see."""
    yield from _nested(model.graph, {})
    for function in model.functions:
        yield from _nested(function, {})


def _nested(graph: Any, outer: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    constants = {**outer, **{tensor.name: tensor for tensor in getattr(graph, "initializer", ())}}
    for node in graph.node:
        if node.op_type == "Constant":
            constants |= dict.fromkeys(node.output, next((a.t for a in node.attribute if a.name == "value"), None))
    yield graph.node, constants
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _nested(inner, constants)

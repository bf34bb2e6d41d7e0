"""What shows that a file was exported in training mode: dropout that is on, batch norm with the statistics of the batch.

Nobody called `.eval()`, and the file says so: exported programs and ONNX in an argument of the operator, TorchScript in the
graph once the module's mode is folded into it. What no list foresees is found by asking twice (`asking.py`).
"""

from typing import Any

import numpy as np

from taggant_lightning.access.files.operators import ONNX_RANDOM, draws_at_random, in_training

FLAGS = {"train", "training"}  # arguments of ATen's operators; instance norm's use_input_stats concerns one image alone


def check_program_node(what: str, name: str, arguments: list[tuple[str, dict[str, Any]]]) -> None:
    """Refuse a node of an exported program that is in training mode.

    Args:
        what: The argument and its file, for messages.
        name: ATen's operator.
        arguments: Names and values, as the file's JSON has them.

    Raises:
        TaggantError: If it draws at random, drops out, or takes the statistics of the batch.
    """
    if draws_at_random(name):
        raise in_training(what, f"it draws random numbers with {name}")
    for argument, value in arguments:
        _check(what, name, argument, value.get("as_bool", value.get("as_float", value.get("as_int"))))


def check_script_graph(what: str, graph: Any) -> None:
    """Refuse a TorchScript graph, frozen in evaluation mode, in which dropout or the statistics of the batch are left.

    Args:
        what: The argument and its file, for messages.
        graph: Its graph; constants are folded.

    Raises:
        TaggantError: As `check_program_node`.
    """
    for node in graph.nodes():
        space, _, name = node.kind().partition("::")
        if space == "aten":
            if draws_at_random(name):
                raise in_training(what, f"it draws random numbers with {name}")
            for argument, value in zip(_argument_names(node), node.inputs(), strict=False):
                if argument in FLAGS or argument == "dropout_p":
                    _check(what, name, argument, value.toIValue())
        for block in node.blocks():
            check_script_graph(what, block)


def _argument_names(node: Any) -> list[str]:
    import torch

    schema = torch._C.parse_schema(node.schema()) if node.schema() != "(no schema)" else None
    return [] if schema is None else [argument.name for argument in schema.arguments]


def check_onnx_node(what: str, node: Any, constants: dict[str, Any], opset: int) -> None:
    """Refuse a node of an ONNX graph that is in training mode.

    Args:
        what: The argument and its file, for messages.
        node: Its NodeProto.
        constants: Values of the graph's initializers and constants by name, as TensorProto.
        opset: Version of ONNX's own operators.

    Raises:
        TaggantError: As `check_program_node`.
    """
    from onnx import numpy_helper

    if node.op_type in ONNX_RANDOM:
        raise in_training(what, f"it draws random numbers with {node.op_type}")
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type in ("BatchNormalization", "Dropout") and opset < 7 and not flags.get("is_test", 0):
        raise in_training(what, f"{node.op_type} without is_test")
    if node.op_type == "BatchNormalization" and (flags.get("training_mode", 0) or (opset < 14 and len(node.output) > 1)):
        raise in_training(what, "batch norm with the statistics of the batch")
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
        mode = constants.get(node.input[2])
        if mode is None or bool(np.any(numpy_helper.to_array(mode))):
            raise in_training(what, "dropout that is switched on")


def _check(what: str, name: str, argument: str, value: Any) -> None:
    """Refuse a flag that is on, or attention that drops out."""
    if argument == "dropout_p" and isinstance(value, int | float) and value > 0:
        raise in_training(what, "attention that drops out")
    if argument in FLAGS and value is True:
        batch = "norm" in name
        raise in_training(what, "batch norm with the statistics of the batch" if batch else "dropout that is switched on")

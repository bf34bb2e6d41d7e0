"""A small classifier, and the files in which it is asked."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from taggant_lightning.access.answer import Answer

SIZE, CLASSES = 6, 4


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, CLASSES)]
    model = nn.Sequential(*layers)
    model(torch.rand(8, 3, SIZE, SIZE))  # running statistics other than 0 and 1
    return model.eval()


def images(count: int = 5, size: int = SIZE, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).random((count, channels, size, size), dtype=np.float32)


def same(found: list[Answer], model: nn.Module, asked: np.ndarray) -> None:
    """Compare answers with the module's own."""
    with torch.no_grad():
        scores = model(torch.from_numpy(asked)).numpy()
    assert [a.query for a in found] == list(range(len(asked)))
    for answer, row in zip(found, scores, strict=True):
        assert answer.labels == tuple(np.argsort(-row, kind="stable").tolist())
        np.testing.assert_allclose(answer.scores, np.sort(row)[::-1], rtol=1e-4, atol=1e-5)


def write_onnx(path: Path, batch: Any = "N", kind: str = "FLOAT", weights: str | None = None, outputs: int = 1) -> None:
    """Write `network()` with onnx.helper; `weights` is a file for the last layer's, `outputs` adds others first."""
    from onnx import TensorProto, helper, numpy_helper

    model, code = network(), getattr(TensorProto, kind)
    dtype = {"FLOAT": np.float32, "FLOAT16": np.float16, "DOUBLE": np.float64}[kind]
    conv, norm, last = model[0], model[1], model[4]
    values = {"w": conv.weight, "b": conv.bias, "scale": norm.weight, "shift": norm.bias}
    values |= {"mean": norm.running_mean, "var": norm.running_var, "v": last.weight, "c": last.bias}
    tensors = {name: numpy_helper.from_array(v.detach().numpy().astype(dtype), name) for name, v in values.items()}
    if weights is not None:
        data = tensors["v"].raw_data
        tensors["v"].ClearField("raw_data")
        tensors["v"].data_location = TensorProto.EXTERNAL
        for key, value in (("location", weights), ("offset", "0"), ("length", str(len(data)))):
            entry = tensors["v"].external_data.add()
            entry.key, entry.value = key, value
        if not Path(weights).is_absolute():
            (path.parent / weights).write_bytes(data)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "c"], ["y"], transB=1),
        helper.make_node("ArgMax", ["y"], ["top"], axis=1, keepdims=1),
    ]
    shapes = {"a": [batch, 5, 4, 4], "y": [batch, CLASSES]}
    last_outputs = [helper.make_tensor_value_info("y", code, shapes["y"])]
    if outputs > 1:  # features of rank 4, and a ranking of whole numbers
        first = [helper.make_tensor_value_info("a", code, shapes["a"])]
        last_outputs = [*first, helper.make_tensor_value_info("top", TensorProto.INT64, [batch, 1]), *last_outputs]
    takes = [helper.make_tensor_value_info("x", code, [batch, 3, SIZE, SIZE])]
    graph = helper.make_graph(nodes, "g", takes, last_outputs, list(tensors.values()))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())


def write_graph(path: Path, node: Any, takes: list[Any], gives: list[Any]) -> None:
    """Write a graph of one node."""
    from onnx import helper

    made = helper.make_model(
        helper.make_graph([node], "g", takes, gives), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    path.write_bytes(made.SerializeToString())

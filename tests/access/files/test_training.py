"""Files in training mode, of every format, and files whose answers are not their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from taggant_lightning.access.files.asking import Asked, OpenModel, ask_with_controls, control_images
from taggant_lightning.access.files.exported import open_exported
from taggant_lightning.access.files.inputs import InputShape
from taggant_lightning.access.files.onnx import open_onnx
from taggant_lightning.errors import TaggantError
from tests.access.files.models import SIZE, images, network

pytestmark = pytest.mark.filterwarnings("ignore")
DYNAMIC = ({0: torch.export.Dim("batch", max=1024)},)
FLAT = 3 * SIZE * SIZE


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.flatten(2)
        return nn.functional.scaled_dot_product_attention(y, y, y, dropout_p=0.5 if self.training else 0.0).flatten(1)


class StochasticDepth(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return x * torch.empty([x.shape[0], 1, 1, 1]).bernoulli_(0.5)
        return x


def model_with(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(FLAT, 4))


LAYERS = {
    "dropout": nn.Dropout(0.5),
    "dropout2d": nn.Dropout2d(0.5),
    "alpha": nn.AlphaDropout(0.5),
    "batch norm": nn.BatchNorm2d(3),
    "statistics never kept": nn.BatchNorm2d(3, track_running_stats=False),
    "attention": nn.Sequential(Attention(), nn.Unflatten(1, (3, SIZE, SIZE))),
    "depth": StochasticDepth(),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("way", ["program", "trace", "script"])
def test_training_mode_is_refused_and_evaluation_mode_is_not(name: str, way: str, tmp_path: Path) -> None:
    path, example = tmp_path / "m.pt2", torch.rand(2, 3, SIZE, SIZE)
    kept = name == "statistics never kept"  # the statistics of the batch in evaluation mode too
    for training in (False, True):
        model = model_with(LAYERS[name]).train(training)
        if way == "program":
            torch.export.save(torch.export.export(model, (example,), dynamic_shapes=DYNAMIC), path)
        elif way == "trace":
            torch.jit.trace(model, example, check_trace=False).save(str(path))
        else:
            torch.jit.script(model).save(str(path))
        scripted = way == "script"  # carries its mode, which is set when it is loaded
        if (training and not scripted) or kept:
            with pytest.raises(TaggantError, match=r"is in training mode \(.*call model.eval\(\) and export the model again"):
                open_exported(path, "exported=m")
        else:
            ask_with_controls(open_exported(path, "exported=m"), images())


def test_onnx_in_training_mode(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    def graph(nodes: list[object], constants: dict[str, np.ndarray], opset: int = 17) -> Path:
        takes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])]
        gives = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", FLAT])]
        tensors = [numpy_helper.from_array(value, key) for key, value in constants.items()]
        last = helper.make_node("Flatten", ["a"], ["y"])
        made = helper.make_model(
            helper.make_graph([*nodes, last], "g", takes, gives, tensors),
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=8,
        )
        path = tmp_path / "m.onnx"
        path.write_bytes(made.SerializeToString())
        return path

    ones = {key: np.ones(3, dtype=np.float32) for key in ("s", "b", "m", "v")}
    norm = ["x", "s", "b", "m", "v"]
    on, off = {"r": np.float32(0.5), "t": np.bool_(True)}, {"r": np.float32(0.5), "t": np.bool_(False)}
    constant = helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(np.bool_(True)))
    computed = helper.make_node("Not", ["f"], ["t"])
    good = [
        ([helper.make_node("Dropout", ["x", "r", "t"], ["a"])], off),
        ([helper.make_node("Dropout", ["x"], ["a"])], {}),
        ([helper.make_node("BatchNormalization", norm, ["a"])], ones),
    ]
    for nodes, constants in good:
        ask_with_controls(open_onnx(graph(nodes, constants), "onnx=m"), images())
    bad = [
        ([helper.make_node("Dropout", ["x", "r", "t"], ["a"])], on, "dropout that is switched on"),
        ([constant, helper.make_node("Dropout", ["x", "r", "t"], ["a"])], {"r": on["r"]}, "dropout that is switched on"),
        ([computed, helper.make_node("Dropout", ["x", "r", "t"], ["a"])], {"r": on["r"], "f": np.bool_(False)}, "dropout"),
        ([helper.make_node("BatchNormalization", norm, ["a", "mm", "vv"], training_mode=1)], ones, "batch norm with"),
        ([helper.make_node("RandomNormalLike", ["x"], ["a"])], {}, "draws random numbers with RandomNormalLike"),
        ([helper.make_node("RandomUniformLike", ["x"], ["z"]), helper.make_node("Add", ["x", "z"], ["a"])], {}, "draws random"),
    ]
    for nodes, constants, message in bad:
        with pytest.raises(TaggantError, match=rf"is in training mode \(.*{message}"):
            open_onnx(graph(nodes, constants), "onnx=m")


def opened(forward: object) -> OpenModel:
    return OpenModel("onnx=m", InputShape(None, 3, SIZE, SIZE), forward)  # type: ignore[arg-type]


def scores(block: np.ndarray) -> np.ndarray:
    return block.reshape(len(block), -1)[:, ::5].astype(np.float32)


def test_answers_that_are_not_the_models_own() -> None:
    """Whatever the cause: the second answer to the same images, and the answer in other company, must be the first."""
    random = np.random.default_rng(0)
    with pytest.raises(TaggantError, match="answers the same images otherwise when asked again"):
        ask_with_controls(opened(lambda block: scores(block) + random.normal(0, 1e-3, (len(block), 1))), images())
    with pytest.raises(TaggantError, match="otherwise when others share the pass"):
        ask_with_controls(opened(lambda block: scores(block - block.mean(0))), images())
    with pytest.raises(TaggantError, match="otherwise when others share the pass"):
        ask_with_controls(opened(lambda block: scores(block) + np.linspace(0, 1, 22) * block.std()), images())
    # Sums in another order, an answer that is NaN each time, and infinities are no such thing.
    ask_with_controls(opened(lambda block: scores(block) * np.float32(1 + 1e-6 * len(block))), images())
    ask_with_controls(opened(lambda block: np.where(scores(block) > 0.5, np.nan, -np.inf)), images())
    one = OpenModel("onnx=m", InputShape(1, 3, SIZE, SIZE), lambda block: scores(block - block.mean()))
    assert ask_with_controls(one, images()).checks["in_other_company"] == 0


def test_controls() -> None:
    for channels, size in ((1, 1), (1, 3), (3, 2), (3, 32), (5, 33)):
        found = control_images(channels, size)
        assert found.shape == (8, channels, size, size)
        assert found.dtype == np.float32
        assert 0 <= found.min() <= found.max() <= 1
        np.testing.assert_array_equal(found, control_images(channels, size))
    assert len({image.tobytes() for image in control_images(3, 8)}) == 8


def test_queries_that_do_not_reach_the_model() -> None:
    """A model that sees next to nothing of its images answers one class; one that sees them does not."""
    torch.manual_seed(1)
    model = network()

    def far(block: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy((block - 123.7) / 58.4).float()).numpy()

    def near(block: np.ndarray) -> np.ndarray:
        return scores(block)

    asked = ask_with_controls(opened(far), images())
    with pytest.raises(TaggantError, match=r"the queries do not reach this model, which answers all 5 keys and 8 controls"):
        asked.check_reach("onnx=m")
    ask_with_controls(opened(near), images()).check_reach("onnx=m")
    Asked([], 4, asked.controls).check_reach("onnx=m")  # without keys there is nothing to say


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (lambda x: x.permute(0, 3, 1, 2), True),
        (lambda x: x.permute(0, -1, 1, 2), True),
        (lambda x: x.movedim(-1, 1), True),
        (lambda x: x.transpose(1, 3), True),
        (lambda x: x.permute(0, 2, 3, 1), False),  # channels come first, and are put last
        (lambda x: x.transpose(2, 3), False),
        (lambda x: x, False),
    ],
)
def test_torchscript_that_begins_with_channels_last(first: Any, last: bool, tmp_path: Path) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return first(x).flatten(1)

    torch.jit.trace(Model(), torch.rand(2, 6, 6, 3)).save(str(tmp_path / "m.pt"))
    model = open_exported(tmp_path / "m.pt", "exported=m")
    if last:
        with pytest.raises(TaggantError, match="does not say in which order .* write --layout NHWC"):
            ask_with_controls(model, images())
        ask_with_controls(model, images(), layout="NHWC")
    else:
        ask_with_controls(model, images())


def test_several_outputs(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    class Two(nn.Module):
        def __init__(self, first: int) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(FLAT, first), nn.Linear(FLAT, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.second(x.flatten(1))
            return self.first(x.flatten(1)) if self.first.out_features > 1 else y.softmax(1), y

    def ask(first: int, classes: int | None) -> int:
        program = torch.export.export(Two(first).eval(), (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=DYNAMIC)
        torch.export.save(program, tmp_path / "m.pt2")
        return ask_with_controls(open_exported(tmp_path / "m.pt2", "exported=m", classes), images()).classes

    assert ask(1, None) == 4  # probabilities and logits rank alike
    assert ask(7, 4) == 4  # features, and as many scores as there are classes
    for first, classes in ((7, None), (4, 4)):
        with pytest.raises(TaggantError, match="has 2 outputs that may be class scores .* and rank them differently"):
            ask(first, classes)

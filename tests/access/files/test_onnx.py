"""ONNX files as black boxes: the module's own answers, and one sentence for each file that does not suit."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from taggant_lightning.access.files.inputs import InputShape
from taggant_lightning.access.files.onnx import ask_onnx, onnx_input
from taggant_lightning.errors import TaggantError
from tests.access.files.models import CLASSES, SIZE, images, network, same, write_graph, write_onnx

pytest.importorskip("onnx", reason="needs the extra `onnx`")
pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")


@pytest.mark.parametrize(("batch", "declared"), [("N", None), (1, 1), (None, None), (-1, None)])
def test_answers_are_the_modules(batch: int | str | None, declared: int | None, tmp_path: Path) -> None:
    write_onnx(tmp_path / "m.onnx", batch)
    assert onnx_input(tmp_path / "m.onnx") == InputShape(declared, 3, SIZE, SIZE)
    asked = images(35)  # more than two blocks
    answers, classes = ask_onnx(tmp_path / "m.onnx", asked)
    assert classes == CLASSES
    same(answers, network(), asked)


def test_half_precision(tmp_path: Path) -> None:
    write_onnx(tmp_path / "m.onnx", kind="FLOAT16")
    asked = images()
    answers, _ = ask_onnx(tmp_path / "m.onnx", asked)
    with torch.no_grad():
        wanted = network()(torch.from_numpy(asked)).numpy()
    for answer, row in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(answer.scores, row[list(answer.labels)], atol=5e-3)


def test_double_precision_and_equal_scores(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    takes = [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ("N", 3, 2, 2))]
    gives = [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ("N", 12))]
    write_graph(tmp_path / "m.onnx", helper.make_node("Flatten", ["x"], ["y"]), takes, gives)
    asked = np.zeros((2, 3, 2, 2), dtype=np.float32)
    asked[0, 2, 1, 1] = 1
    asked[1, 0, 0, 0] = np.nan
    answers, classes = ask_onnx(tmp_path / "m.onnx", asked)
    assert classes == 12
    assert answers[0].labels == (11, *range(11))  # ties by the lowest class
    assert answers[1].labels is None


def test_the_first_scores_of_several_outputs_count(tmp_path: Path) -> None:
    write_onnx(tmp_path / "m.onnx", outputs=3)
    answers, classes = ask_onnx(tmp_path / "m.onnx", images())
    assert classes == CLASSES
    same(answers, network(), images())


def test_normalisation(tmp_path: Path) -> None:
    write_onnx(tmp_path / "m.onnx")
    mean, std, asked = [0.5, 0.25, 0.0], [0.2, 0.5, 1.0], images()
    answers, _ = ask_onnx(tmp_path / "m.onnx", asked, mean=mean, std=std)
    by_hand = ((asked - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))).astype(np.float32)
    same(answers, network(), by_hand)
    for change, message in (
        ({"mean": [0.5]}, r"mean=\[0.5\] has 1 numbers and the images have 3 channels"),
        ({"std": [1, 0, 1]}, r"std=\[1, 0, 1\] must hold finite numbers above 0"),
        ({"mean": [float("nan"), 0, 0]}, "must hold finite numbers, on the scale"),
    ):
        with pytest.raises(TaggantError, match=message):
            ask_onnx(tmp_path / "m.onnx", asked, **change)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 4, 4), "takes 3×6×6 images and the keys are 3×4×4; write --image-size 6 to have them resized"),
        ((2, 1, 6, 6), "takes 3×6×6 images and the keys are 1×6×6; put the change of channels into the model"),
        ((0, 3, 6, 6), "was asked nothing"),
    ],
)
def test_other_images(shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    write_onnx(tmp_path / "m.onnx")
    with pytest.raises(TaggantError, match=message):
        ask_onnx(tmp_path / "m.onnx", np.zeros(shape, dtype=np.float32))


def test_nothing_fills_a_batch_up(tmp_path: Path) -> None:
    write_onnx(tmp_path / "m.onnx", 8)
    with pytest.raises(TaggantError, match="takes 8 images at once; export it with a batch of 1 or of any size"):
        ask_onnx(tmp_path / "m.onnx", images(8))


def test_weights_lie_beside_the_file_or_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_onnx(folder / "m.onnx", weights="m.bin")
    same(ask_onnx(folder / "m.onnx", images())[0], network(), images())
    (tmp_path / "out.bin").write_bytes((folder / "m.bin").read_bytes())
    (folder / "link.bin").symlink_to(tmp_path / "out.bin")
    for location in ("../out.bin", str(tmp_path / "out.bin"), "link.bin"):
        write_onnx(folder / "m.onnx", weights=location)
        with pytest.raises(TaggantError, match="outside of its folder; put them beside the file"):
            ask_onnx(folder / "m.onnx", images())
    (folder / "m.bin").unlink()
    write_onnx(folder / "m.onnx", weights="m.bin")
    (folder / "m.bin").unlink()
    with pytest.raises(TaggantError, match="cannot be loaded"):
        ask_onnx(folder / "m.onnx", images())


def test_other_graphs(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    def info(name: str, code: int = TensorProto.FLOAT, shape: tuple[object, ...] = ("N", 3, SIZE, SIZE)) -> object:
        return helper.make_tensor_value_info(name, code, shape)

    path = tmp_path / "m.onnx"
    flat = ("N", 3 * SIZE * SIZE)
    write_graph(path, helper.make_node("Add", ["x", "z"], ["y"]), [info("x"), info("z")], [info("y")])
    with pytest.raises(TaggantError, match=r"has 2 inputs \(x, z\)"):
        onnx_input(path)
    write_graph(path, helper.make_node("Relu", ["x"], ["y"]), [info("x", shape=flat)], [info("y", shape=flat)])
    with pytest.raises(TaggantError, match="takes an input of rank 2"):
        onnx_input(path)
    codes = TensorProto.UINT8
    write_graph(path, helper.make_node("Identity", ["x"], ["y"]), [info("x", codes)], [info("y", codes)])
    with pytest.raises(TaggantError, match=r"takes tensor\(uint8\); export a model that takes float images"):
        onnx_input(path)
    write_graph(path, helper.make_node("Relu", ["x"], ["y"]), [info("x")], [info("y")])
    with pytest.raises(TaggantError, match="answers 5×3×6×6; export a model with an output of class scores"):
        ask_onnx(path, images())
    reshape = helper.make_node("Flatten", ["x"], ["y"], axis=2)  # rows are channels of images, not images
    write_graph(path, reshape, [info("x")], [info("y", shape=("M", SIZE * SIZE))])
    with pytest.raises(TaggantError, match="answers 15×36 to 5 images"):
        ask_onnx(path, images())
    write_graph(path, helper.make_node("Foo", ["x"], ["y"], domain="my.ops"), [info("x")], [info("y")])
    with pytest.raises(TaggantError, match="cannot be loaded"):
        onnx_input(path)


def test_no_onnx_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TaggantError, match="is no file; name the ONNX file"):
        onnx_input(tmp_path / "none.onnx")
    (tmp_path / "m.onnx").write_bytes(b"\x00no model")
    with pytest.raises(TaggantError, match="is no ONNX file"):
        onnx_input(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(TaggantError, match="onnx=.*m.onnx"):
        onnx_input(tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TaggantError, match=r"needs onnxruntime; run pip install 'taggant-lightning\[onnx\]'"):
        onnx_input(tmp_path / "m.onnx")


@pytest.mark.slow
def test_what_torch_exports(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnxscript")
    model: nn.Module = network()
    shapes = ({0: torch.export.Dim("batch", max=1024)},)
    torch.onnx.export(model, (torch.rand(2, 3, SIZE, SIZE),), tmp_path / "m.onnx", dynamic_shapes=shapes, verbose=False)
    assert onnx_input(tmp_path / "m.onnx").size == SIZE
    same(ask_onnx(tmp_path / "m.onnx", images())[0], model, images())

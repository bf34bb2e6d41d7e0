"""Operators that trust their indices, loops without end and archives that grow: each is refused by name before it runs."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from taggant_lightning.access.files.archive import GROWTH, TEXT, Archive
from taggant_lightning.access.files.exported import open_exported
from taggant_lightning.access.files.onnx import open_onnx
from taggant_lightning.access.files.operators import ATEN, ATEN_INTERNAL, ATEN_RANDOM, ONNX, is_allowed
from taggant_lightning.errors import TaggantError
from tests.access.files.models import SIZE, images, network, write_graph

pytestmark = pytest.mark.filterwarnings("ignore")
FAR = 10**12


class Far(nn.Module):
    """An operator with an index far beyond memory."""

    def __init__(self, operator: str) -> None:
        super().__init__()
        self.operator = operator
        self.register_buffer("index", torch.full((1, 1, 2, 2), FAR))
        self.register_buffer("offsets", torch.tensor([0, FAR]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = x.flatten()[:16].reshape(1, 1, 4, 4)
        if self.operator == "max_pool2d_with_indices_backward":
            found = torch.ops.aten.max_pool2d_with_indices_backward(
                z[:, :, :2, :2], z, [2, 2], [2, 2], [0, 0], [1, 1], False, self.index
            )
        elif self.operator == "adaptive_max_pool2d_backward":
            found = torch.ops.aten.adaptive_max_pool2d_backward(z[:, :, :2, :2], z, self.index)
        elif self.operator == "max_unpool2d":
            found = torch.ops.aten.max_unpool2d(z[:, :, :2, :2], self.index, [4, 4])
        else:
            found = torch.ops.aten.segment_reduce(z.flatten(), "sum", offsets=self.offsets)
        return x.flatten(1) + found.sum() * 0


@pytest.mark.parametrize(
    "operator", ["max_pool2d_with_indices_backward", "adaptive_max_pool2d_backward", "max_unpool2d", "segment_reduce"]
)
def test_operators_that_trust_their_indices(operator: str, tmp_path: Path) -> None:
    program = torch.export.export(Far(operator), (torch.rand(2, 3, SIZE, SIZE),), strict=False)
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(TaggantError, match=rf"needs 'torch.ops.aten.{operator}\.\w+', which is not run from a file"):
        open_exported(tmp_path / "m.pt2", "exported=m")


def test_torchscript_that_trusts_its_indices(tmp_path: Path) -> None:
    class Write(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            index = torch.full([1, 1, 2, 2], 1000000000000)
            z = x.flatten()[:16].reshape(1, 1, 4, 4)
            return x.flatten(1) + torch.ops.aten.max_unpool2d(z[:, :, :2, :2], index, [4, 4]).sum()

    torch.jit.script(Write()).save(str(tmp_path / "m.pt"))
    with pytest.raises(TaggantError, match="needs aten::max_unpool2d, which is not run from a file"):
        open_exported(tmp_path / "m.pt", "exported=m")


def test_indices_on_the_list_are_checked(tmp_path: Path) -> None:
    """Operators that classifiers need and that take indices end in an error and touch nothing."""

    class Index(nn.Module):
        def __init__(self, kind: str) -> None:
            super().__init__()
            self.kind = kind
            self.register_buffer("index", torch.tensor([FAR]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.flatten(1)
            if self.kind == "index":
                return y[:, self.index]
            if self.kind == "index_select":
                return y.index_select(1, self.index)
            if self.kind == "gather":
                return y.gather(1, self.index[None].expand(y.shape[0], 1))
            if self.kind == "scatter":
                return y.scatter(1, self.index[None].expand(y.shape[0], 1), y[:, :1])
            if self.kind == "embedding":
                return nn.functional.embedding(self.index, y).flatten(1)
            return torch.as_strided(y, [y.shape[0], 2], [1, 1], 1000000000000)

    for kind in ("index", "index_select", "gather", "scatter", "embedding", "as_strided"):
        torch.jit.script(Index(kind)).save(str(tmp_path / "m.pt"))
        with pytest.raises(TaggantError, match="fails on 3×6×6 images"):
            open_exported(tmp_path / "m.pt", "exported=m").forward(images())


def test_short_running_statistics(tmp_path: Path) -> None:
    """Batch norm as decomposed programs have it reads as many statistics as there are channels, there or not."""
    shapes = ({0: torch.export.Dim("n", max=64)},)
    program = torch.export.export(network(), (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=shapes).run_decompositions()
    torch.export.save(program, tmp_path / "m.pt2")
    with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if not any(b"_native_batch_norm_legit_no_training" in content for content in members.values()):
        pytest.skip("this torch decomposes batch norm further")
    assert open_exported(tmp_path / "m.pt2", "exported=m").forward(images()).shape == (5, 4)
    (config,) = (name for name in members if name.endswith("model_weights_config.json"))
    content = json.loads(members[config])
    content["config"]["1.running_mean"]["tensor_meta"]["sizes"] = [{"as_int": 2}]
    members[config] = json.dumps(content).encode()
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(TaggantError, match="is damaged .*batch norm of 5 channels has running_mean of another length"):
        open_exported(tmp_path / "m.pt2", "exported=m").forward(images())


def test_while_loops_and_loops_over_lists(tmp_path: Path) -> None:
    class Forever(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            i = 0
            while i < 1 or bool(x.sum() == x.sum()):
                i = i + 1
            return x.flatten(1) + i

    class Some(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for power in [1.0, 2.0]:
                x = x * power
            for i in range(x.shape[1]):
                if i > 1:
                    break
                x = x + 1
            return x.flatten(1)

    class Moving(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            i, end = 0, 1
            while i < end:
                i, end = i + 1, end + 1
            return x.flatten(1) + i

    class Standing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            i = 0
            while i + 1 < 5:
                i = i * 1
            return x.flatten(1) + i

    for endless in (Forever(), Moving(), Standing()):
        torch.jit.script(endless).save(str(tmp_path / "m.pt"))
        with pytest.raises(TaggantError, match="needs a while loop, which may never end, which is not run from a file"):
            open_exported(tmp_path / "m.pt", "exported=m")
    torch.jit.script(Some()).save(str(tmp_path / "m.pt"))
    assert open_exported(tmp_path / "m.pt", "exported=m").forward(images()).shape == (5, 3 * SIZE * SIZE)


def test_onnx_operators(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    takes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, SIZE, SIZE))]
    gives = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    for node, name in (
        (helper.make_node("FusedConv", ["x"], ["y"], domain="com.microsoft"), "com.microsoft::FusedConv"),
        (helper.make_node("NonZero", ["x"], ["y"]), "NonZero"),
        (helper.make_node("StringNormalizer", ["x"], ["y"]), "StringNormalizer"),
    ):
        write_graph(tmp_path / "m.onnx", node, takes, gives)
        with pytest.raises(TaggantError, match=f"cannot be loaded: it needs '{name}', which is not run from a file"):
            open_onnx(tmp_path / "m.onnx", "onnx=m")
    # In a graph within the graph too.
    inner = helper.make_graph([helper.make_node("NonZero", ["x"], ["z"])], "inner", [], [gives[0]])
    condition = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    write_graph(tmp_path / "m.onnx", condition, takes, gives)
    with pytest.raises(TaggantError, match="it needs 'NonZero'"):
        open_onnx(tmp_path / "m.onnx", "onnx=m")


def test_weights_beside_an_onnx_file_are_files(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    import os

    from tests.access.files.models import write_onnx

    write_onnx(tmp_path / "m.onnx", weights="w.bin")
    (tmp_path / "w.bin").unlink()
    os.mkfifo(tmp_path / "w.bin")  # whoever opens it waits for ever
    with pytest.raises(TaggantError, match=r"reads its weights from 'w.bin', which is no file"):
        open_onnx(tmp_path / "m.onnx", "onnx=m")


def test_archives_that_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TEXT <= GROWTH
    monkeypatch.setattr("taggant_lightning.access.files.archive.GROWTH", 2**22)
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("m/models/model.json", "w") as member:
        for _ in range(6):
            member.write(b" " * 2**20)
    with pytest.raises(TaggantError, match=r"has \d+ bytes and would unpack to \d+ in 1 members, as no exporter writes"):
        open_exported(path, "exported=m")
    # What is said of sizes is what is read: a member that says less than it holds is damaged.
    data = bytearray()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/version", b" " * 100_000)
    data += path.read_bytes()
    place = data.rindex((100_000).to_bytes(4, "little"))  # of the directory at the end
    data[place : place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(TaggantError, match="is damaged"):
        Archive(path, "exported=m").read("version")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/models/model.json", b" " * 2**21)
    monkeypatch.setattr("taggant_lightning.access.files.archive.TEXT", 2**20)
    with pytest.raises(TaggantError, match="holds 'models/model.json' of 2097152 bytes, where 1048576 are plenty"):
        Archive(path, "exported=m").read("models/model.json")


def test_no_operator_of_two_lists() -> None:
    assert not ATEN_RANDOM & (ATEN | ATEN_INTERNAL)
    assert not {name for name in ATEN if name.startswith("_")}
    assert is_allowed("relu_")
    assert is_allowed("relu")
    assert is_allowed("_softmax")
    for name in ("save", "from_file", "set_", "_print", "segment_reduce", "max_unpool2d", "_ctc_loss", "__getitem__"):
        assert not is_allowed(name)
    assert not {"Loop", "Scan", "NonMaxSuppression"} & ONNX

"""Exported programs and TorchScript as black boxes: the module's own answers, and files that would do more than compute."""

import contextlib
import copy
import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from taggant_lightning.access.files.exported import ask_exported, exported_input
from taggant_lightning.access.files.inputs import InputShape
from taggant_lightning.errors import TaggantError
from tests.access.files.models import CLASSES, SIZE, images, network, same

DYNAMIC = ({0: torch.export.Dim("batch", max=1024)},)
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")


def export(path: Path, model: nn.Module, batch: int = 2, *, dynamic: bool = True, dtype: torch.dtype = torch.float32) -> None:
    example = (torch.rand(batch, 3, SIZE, SIZE, dtype=dtype),)
    program = torch.export.export(model, example, dynamic_shapes=DYNAMIC if dynamic else None)
    torch.export.save(program, path)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "m.pt2"
    export(path, network())
    if "m/models/model.json" not in zipfile.ZipFile(path).namelist():
        pytest.skip(f"torch {torch.__version__} writes the older layout, which other tests read")
    return path


def rewrite(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Copy an archive with other members."""
    with zipfile.ZipFile(source) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"m/{name}", content)
    return target


def edit_json(member: str, change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def edit(members: dict[str, bytes]) -> None:
        content = json.loads(members[member])
        change(content)
        members[member] = json.dumps(content).encode()

    return edit


class Planted:
    """Pickled, it creates a file when somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_answers_are_the_modules(program: Path) -> None:
    assert exported_input(program) == InputShape(None, 3, SIZE, SIZE)
    asked = images(35)
    answers, classes = ask_exported(program, asked)
    assert classes == CLASSES
    same(answers, network(), asked)
    normalised, _ = ask_exported(program, asked, mean=[0.5] * 3, std=[0.25] * 3)
    same(normalised, network(), (asked - np.float32(0.5)) / np.float32(0.25))


def test_fixed_batches(tmp_path: Path) -> None:
    export(tmp_path / "one.pt2", network(), 1, dynamic=False)
    assert exported_input(tmp_path / "one.pt2").batch == 1
    same(ask_exported(tmp_path / "one.pt2", images())[0], network(), images())
    export(tmp_path / "four.pt2", network(), 4, dynamic=False)
    with pytest.raises(TaggantError, match="takes 4 images at once"):
        ask_exported(tmp_path / "four.pt2", images(4))
    with pytest.raises(TaggantError, match="takes 3×6×6 images and the keys are 3×4×4; write --image-size 6"):
        ask_exported(tmp_path / "one.pt2", images(size=4))


class Odd(nn.Module):
    """Shapes that are computed, a graph within the graph, lists, optional arguments, views of one weight, a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.tied = nn.Linear(CLASSES, CLASSES)
        self.again = nn.Linear(CLASSES, CLASSES)
        self.again.weight = self.tied.weight
        self.register_buffer("lost", torch.tensor([1.0, float("inf")]), persistent=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n, c, h, w = x.shape
        with torch.no_grad():
            y = x.reshape(n * c, h * w).clamp(min=-float("inf"), max=2.0).reshape(n, c, h, w)
        left, right = y.chunk(2, dim=2)
        y = torch.cat([left, right], dim=2)[:, :, torch.tensor([0, 1, 2, 3, 4, 5])]
        features = self.body(y)
        half = torch.arange(n * 2, device=x.device)[:n].to(x.dtype) * 0
        return y.mean(dim=(1, 2, 3)), self.again(self.tied(features)).softmax(-1) + half[:, None] * self.lost[0]


@pytest.mark.usefixtures("program")  # older versions cannot write these graphs
def test_odd_graphs(tmp_path: Path) -> None:
    model = Odd().eval()
    export(tmp_path / "m.pt2", model)
    with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
        assert any(b"wrap_with_set_grad_enabled" in archive.read(n) for n in archive.namelist() if n.endswith(".json"))
    answers, classes = ask_exported(tmp_path / "m.pt2", images())
    assert classes == CLASSES

    class Second(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return model(x)[1]

    same(answers, Second(), images())


def test_half_precision(tmp_path: Path) -> None:
    export(tmp_path / "m.pt2", network().to(torch.bfloat16), dtype=torch.bfloat16)
    answers, _ = ask_exported(tmp_path / "m.pt2", images())
    with torch.no_grad():
        wanted = network()(torch.from_numpy(images())).numpy()
    for answer, row in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(answer.scores, row[list(answer.labels)], atol=0.05)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_100", "convnext_atto"])
@pytest.mark.slow
def test_models_of_timm(name: str, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8} if "vit" in name else {}
    model = timm.create_model(name, num_classes=CLASSES, **size).eval()
    shapes = ({0: torch.export.Dim("batch", max=1024)},)
    torch.export.save(torch.export.export(model, (torch.rand(2, 3, 32, 32),), dynamic_shapes=shapes), tmp_path / "m.pt2")
    asked = images(3, 32)
    same(ask_exported(tmp_path / "m.pt2", asked)[0], model, asked)


def old_layout(path: Path, model: nn.Module, plant: Any = None) -> None:
    """Write what torch.export.save wrote before 2.8: JSON, and torch.save files of the weights."""
    from torch._export.serde.serialize import serialize

    made = serialize(torch.export.export(model, (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=DYNAMIC))
    state = io.BytesIO()
    torch.save({**model.state_dict(), **({"plant": plant} if plant is not None else {})}, state)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.2")
        archive.writestr("serialized_exported_program.json", made.exported_program)
        archive.writestr("serialized_state_dict.pt", state.getvalue())
        archive.writestr("serialized_constants.pt", made.constants)
        archive.writestr("serialized_example_inputs.pt", pickle.dumps(plant))


def test_layouts_of_older_versions(program: Path, tmp_path: Path) -> None:
    old_layout(tmp_path / "old.pt2", network())
    same(ask_exported(tmp_path / "old.pt2", images())[0], network(), images())

    def weights_in_one_file(members: dict[str, bytes]) -> None:
        state, constants = io.BytesIO(), io.BytesIO()
        torch.save(network().state_dict(), state)
        torch.save({}, constants)
        members["data/weights/model.pt"], members["data/constants/model.pt"] = state.getvalue(), constants.getvalue()
        del members["data/weights/model_weights_config.json"], members["data/constants/model_constants_config.json"]

    same(ask_exported(rewrite(program, tmp_path / "m.pt2", weights_in_one_file), images())[0], network(), images())


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_planted_pickles_are_not_read(program: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    plant = Planted(planted)
    saved = io.BytesIO()
    torch.save(plant, saved)
    config = "data/weights/model_weights_config.json"

    def pickled_weight(members: dict[str, bytes]) -> None:
        edit_json(config, lambda c: c["config"]["0.weight"].update(use_pickle=True))(members)
        members["data/weights/weight_0"] = saved.getvalue()

    def one_file(members: dict[str, bytes]) -> None:
        members["data/weights/model.pt"] = pickle.dumps({"0.weight": plant})

    def custom(prefix: str) -> Callable[[dict[str, bytes]], None]:
        def add(members: dict[str, bytes]) -> None:
            entry = {"path_name": f"{prefix}0", "is_param": False, "use_pickle": True, "tensor_meta": None}
            edit_json("data/constants/model_constants_config.json", lambda c: c["config"].update(plant=entry))(members)
            members[f"data/constants/{prefix}0"] = pickle.dumps(plant)

        return add

    for change in (pickled_weight, one_file, custom("custom_obj_"), custom("opaque_obj_")):
        with pytest.raises(TaggantError, match=r"can run any code; write the model as ONNX"):
            ask_exported(rewrite(program, tmp_path / "m.pt2", change), images())
    old_layout(tmp_path / "old.pt2", network(), plant)
    with pytest.raises(TaggantError, match="can run any code"):
        ask_exported(tmp_path / "old.pt2", images())
    assert not planted.exists()

    # Example inputs are never read.
    harmless = rewrite(program, tmp_path / "m.pt2", lambda m: m.update({"data/sample_inputs/model.pt": saved.getvalue()}))
    same(ask_exported(harmless, images())[0], network(), images())
    assert not planted.exists()
    pickle.loads(pickle.dumps(plant))
    assert planted.exists()  # the plant works where it is unpickled


def test_text_of_the_file_is_never_evaluated(program: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    payload = f"__import__('os').mkdir('{planted}')"

    def shapes(content: Any) -> None:
        graph = content["graph_module"]["graph"]
        for meta in graph["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = payload
        content["range_constraints"] = {payload: {"min_val": 0, "max_val": None}}
        content["guards_code"] = [payload]

    path = rewrite(program, tmp_path / "m.pt2", edit_json("models/model.json", shapes))
    same(ask_exported(path, images())[0], network(), images())
    assert not planted.exists()
    with contextlib.suppress(Exception):  # whatever torch says
        torch.export.load(path)
    assert planted.exists()  # torch's own reader runs it


@pytest.mark.parametrize(
    "target",
    [
        *["os.system", "builtins.eval", "torch.ops.aten.save.default", "torch.ops.aten.from_file.default"],
        *["torch.ops.image.write_file.default", "torch.ops.aten.__class__.mro", "torch.ops.aten.set_.source_Storage"],
        *["torch.ops.aten._print.default", "torch.ops.higher_order.cond", "torch.ops.aten.nothing.default", "_operator.pow"],
    ],
)
def test_operators_that_do_more_than_compute(target: str, program: Path, tmp_path: Path) -> None:
    def swap(content: Any) -> None:
        content["graph_module"]["graph"]["nodes"][0]["target"] = target

    path = rewrite(program, tmp_path / "m.pt2", edit_json("models/model.json", swap))
    with pytest.raises(TaggantError, match=f"needs '{target}'"):
        exported_input(path)


def test_damaged_programs(program: Path, tmp_path: Path) -> None:
    def graph(change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
        return edit_json("models/model.json", lambda c: change(c["graph_module"]))

    def more_inputs(module: Any) -> None:
        user = copy.deepcopy(module["signature"]["input_specs"][-1])
        module["signature"]["input_specs"].append(user)
        module["graph"]["inputs"].append(copy.deepcopy(module["graph"]["inputs"][-1]))

    def of_images(meta: dict[str, Any]) -> Callable[[Any], None]:
        return lambda module: module["graph"]["tensor_values"][module["graph"]["inputs"][-1]["as_tensor"]["name"]].update(meta)

    config = "data/weights/model_weights_config.json"
    cases: list[tuple[Callable[[dict[str, bytes]], None], str]] = [
        (lambda m: m.update({"models/model.json": b"{"}), "is damaged"),
        (lambda m: m.update({"models/model.json": b"[]"}), "is damaged"),
        (lambda m: m.update({"models/other.json": b"{}"}), "holds 2 exported programs"),
        (lambda m: m.update({"byteorder": b"big"}), "big-endian"),
        (lambda m: m.pop(config), "lacks its weights"),
        (lambda m: m.pop("data/weights/weight_0"), "is damaged"),
        (lambda m: m.update({"data/weights/weight_0": b"\0" * 8}), "is damaged"),  # a view beyond the bytes
        (
            edit_json(config, lambda c: c["config"]["0.weight"]["tensor_meta"].update(storage_offset={"as_int": 9})),
            "is damaged",
        ),
        (graph(more_inputs), "takes 2 tensors"),
        (graph(of_images({"dtype": 1})), "takes torch.uint8 images"),
        (graph(of_images({"sizes": [{"as_int": 2}]})), "takes an input of rank 1"),
        (graph(lambda g: g["graph"]["nodes"][0].pop("inputs")), "is damaged"),
        (graph(lambda g: g["signature"]["input_specs"].pop()), "is damaged"),
        (graph(lambda g: g["graph"]["nodes"].pop(0)), "is damaged"),
        (lambda m: [m.pop(k) for k in list(m) if k.startswith("models/")], "holds no program that can be run"),
    ]
    for change, message in cases:
        with pytest.raises(TaggantError, match=message) as error:
            ask_exported(rewrite(program, tmp_path / "m.pt2", change), images())
        assert "\n" not in str(error.value)


def script(path: Path, model: nn.Module, *, trace: bool = False) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(model, torch.rand(1, 3, SIZE, SIZE)) if trace else torch.jit.script(model)
        made.save(str(path))


class Branches(nn.Module):
    """Scripted code with an `if`, a loop, an error, a default argument and a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(
        self, x: torch.Tensor, scale: float | None = None, twice: bool = False
    ) -> dict[str, torch.Tensor] | torch.Tensor:
        if x.dim() != 4:
            raise ValueError(f"no images: {x.dim()}\n")
        for layer in self.body:
            x = layer(x)
        if scale is not None:
            x = x * scale
        if twice:
            x = x * 2
        return nn.functional.interpolate(x[:, None], size=[x.shape[1]], mode="nearest")[:, 0]


@pytest.mark.parametrize("trace", [True, False])
def test_torchscript(trace: bool, tmp_path: Path, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]) -> None:
    model = network() if trace else Branches().eval()
    script(tmp_path / "m.pt", model, trace=trace)
    recwarn.clear()
    assert exported_input(tmp_path / "m.pt") == InputShape()
    answers, classes = ask_exported(tmp_path / "m.pt", images(20))
    assert classes == CLASSES
    same(answers, network(), images(20))
    with pytest.raises(TaggantError, match="fails on 3×9×9 images .*write --image-size with the size") as error:
        ask_exported(tmp_path / "m.pt", images(size=9))
    assert "\n" not in str(error.value)
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('torch.save(x, "{}")', "has 'save' in code"),
        ('x = x + torch.from_file("{}", True, 4).sum()', "has 'from_file' in code"),
    ],
)
def test_torchscript_that_touches_files(line: str, message: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    body = "import torch\nclass Evil(torch.nn.Module):\n    def forward(self, x):\n"
    body += f"        {line.format(planted)}\n        return x\n"
    (tmp_path / "evil.py").write_text(body)
    import importlib.util

    spec = importlib.util.spec_from_file_location("evil", tmp_path / "evil.py")
    evil = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(evil)
    script(tmp_path / "m.pt", evil.Evil())
    with pytest.raises(TaggantError, match=message):
        ask_exported(tmp_path / "m.pt", images())
    assert not planted.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(str(tmp_path / "m.pt"))(torch.rand(1, 3, 2, 2))
    assert planted.exists()  # TorchScript itself does


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(self: ", "(self: DEFAULT=torch.from_file(0), "),
        ("return ", 'y = getattr(torch, "sa" "ve")\n    return '),
        ("return ", 'y = getattr(torch, "s\\x61ve")\n    return '),
        ("return ", 'y = getattr(torch, "save")\n    return '),
        ("return ", "y = ops.image.write_file(x, x)\n    return "),
        ("return ", "y = ops\n    return "),
        ("return ", "y = __torch__.torch.classes.x.Y(x)\n    return "),
        ("def forward", "def __setstate__(self, s: int) -> NoneType:\n    return None\n  def forward"),
        ("return ", "y = ops.prim.é(x)\n    return "),
    ],
)
def test_torchscript_with_planted_code(old: str, new: str, tmp_path: Path) -> None:
    script(tmp_path / "clean.pt", nn.Flatten(), trace=True)

    def plant(members: dict[str, bytes]) -> None:
        (name,) = (n for n in members if n.endswith(".py"))
        text = members[name].decode()
        assert old in text
        members[name] = text.replace(old, new, 1).encode()

    with pytest.raises(TaggantError, match="write the model as ONNX"):
        ask_exported(rewrite(tmp_path / "clean.pt", tmp_path / "m.pt", plant), images())


class Speaks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 4:
            print(x)
        return x


def test_torchscript_that_prints(tmp_path: Path) -> None:
    script(tmp_path / "m.pt", Speaks())  # it would show the keys
    with pytest.raises(TaggantError, match="needs prim::Print, which is not run from a file"):
        exported_input(tmp_path / "m.pt")


def test_torchscript_with_a_planted_class(tmp_path: Path) -> None:
    script(tmp_path / "clean.pt", nn.Flatten(), trace=True)
    for text in (b"c__torch__.torch.classes.a\nB\n", b"c__torch__.torch\nclasses.a.B\n"):
        path = rewrite(tmp_path / "clean.pt", tmp_path / "m.pt", lambda m, t=text: m.update({"data.pkl": t + m["data.pkl"]}))
        with pytest.raises(TaggantError, match="a class of a library in data.pkl"):
            exported_input(path)
    path = rewrite(tmp_path / "clean.pt", tmp_path / "m.pt", lambda m: m.update({"data.pkl": b"no"}))
    with pytest.raises(TaggantError, match="cannot be loaded"):
        exported_input(path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    with pytest.raises(TaggantError, match="is no file"):
        exported_input(path)
    path.write_bytes(b"nothing")
    with pytest.raises(TaggantError, match="is no archive of torch"):
        exported_input(path)
    planted = tmp_path / "planted"
    torch.save(Planted(planted), path)
    with pytest.raises(TaggantError, match="holds pickled weights or a pickled module and no program"):
        exported_input(path)
    path.write_bytes(pickle.dumps(Planted(planted)))
    with pytest.raises(TaggantError, match="is no archive of torch"):
        exported_input(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/models/model.json", "{}")
        archive.writestr("m/models/Model.json", "{}")
    with pytest.raises(TaggantError, match="two members of one name"):
        exported_input(path)
    assert not planted.exists()
    script(path, nn.Flatten(2), trace=True)
    with pytest.raises(TaggantError, match="answers 5×3×36; export a model with an output of class scores"):
        ask_exported(path, images())

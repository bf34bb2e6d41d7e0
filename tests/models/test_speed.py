"""What makes training faster leaves its results, its checkpoints and its messages alone."""

import copy
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.adversary.distillation import Distillation
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.crafting.objective import Derivative, Objective, SigningImages, Surrogate, View
from taggant_lightning.methods.taggants.crafting.team import Team
from taggant_lightning.models.averaging import AveragedWeights
from taggant_lightning.models.classifier import load_classifier
from taggant_lightning.models.layout import laid_out_like, lay_out_states, wants_channels_last
from tests.data.test_datamodule import trainer

CNN = {"model_name": "small_cnn", "num_classes": 3, "image_size": 8, "optimizer": "sgd", "lr": 0.05}


def channels_last(value: torch.Tensor) -> bool:
    return value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous()


@pytest.mark.parametrize(
    ("name", "convolutional"),
    [
        ("small_cnn", True),
        ("small_resnet", True),
        ("resnet10t", True),
        ("convnext_atto", True),
        ("small_cnn+small_vit", True),
        ("small_vit", False),
        ("small_mlp", False),
        ("vit_tiny_patch16_224", False),
        ("mixer_s16_224", False),
    ],
)
def test_convolutional_networks_on_cuda(name: str, convolutional: bool) -> None:
    with torch.device("meta"):
        model = ImageClassifier(name, num_classes=3, image_size=32).model
    assert wants_channels_last(model, "auto", "cuda") == convolutional
    assert not wants_channels_last(model, "auto", "cpu")
    assert wants_channels_last(model, "channels_last", "cpu")
    assert not wants_channels_last(model, "contiguous", "cuda")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(TaggantError, match="memory_format='nhwc' is unknown; write one of auto, contiguous, channels_last"):
        ImageClassifier(**CNN, memory_format="nhwc")


def fitted(
    tmp_path: Path, tiny_npz: Path, model: ImageClassifier, epochs: int, *callbacks: Callback, start: object = None
) -> Path:
    """Train, from a checkpoint or the beginning, and return the checkpoint."""
    data = ImageDataModule("npz", str(tiny_npz), image_size=8, batch_size=20)
    run = trainer(tmp_path, epochs, *callbacks)
    run.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
    path = tmp_path / f"{len(list(tmp_path.glob('*.ckpt')))}.ckpt"
    run.save_checkpoint(path)
    return path


def built(**arguments: object) -> ImageClassifier:
    torch.manual_seed(5)
    return ImageClassifier(**{**CNN, **arguments})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
def test_a_run_in_one_format_resumes_in_the_other(
    optimizer: str, tiny_npz: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = built(optimizer=optimizer, memory_format="channels_last", lr=0.01)
    weights = [parameter.data_ptr() for parameter in model.parameters()]
    path = fitted(tmp_path, tiny_npz, model, 1)
    assert channels_last(model.model[2].weight)
    assert [p.data_ptr() for p in model.parameters() if p.ndim < 4] == [
        pointer for pointer, p in zip(weights, model.parameters(), strict=True) if p.ndim < 4
    ]
    plain = built(optimizer=optimizer, lr=0.01)
    other = fitted(tmp_path, tiny_npz, plain, 1)
    assert not channels_last(plain.model[2].weight)
    x = torch.rand(4, 3, 8, 8)
    assert torch.allclose(model.eval()(x), plain.eval()(x), atol=1e-4)
    with caplog.at_level(logging.WARNING):
        for start, memory_format in ((path, "contiguous"), (other, "channels_last")):
            again = built(optimizer=optimizer, memory_format=memory_format, lr=0.01)
            fitted(tmp_path, tiny_npz, again, 2, start=start)
            for states in again.trainer.optimizers[0].state.items():
                parameter, state = states
                assert all(v.stride() == parameter.stride() for v in state.values() if getattr(v, "ndim", 0) == 4)
    assert "as asked for" not in caplog.text
    for value, own in zip(load_classifier(path).state_dict().values(), model.state_dict().values(), strict=True):
        assert value.is_contiguous()
        assert torch.equal(value, own)


def test_states_are_laid_out_as_their_parameters() -> None:
    parameter = nn.Parameter(torch.rand(4, 3, 3, 3).contiguous(memory_format=torch.channels_last))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    kept = torch.rand(4, 3, 3, 3)
    optimizer.state[parameter] = {"momentum_buffer": kept, "step": torch.tensor(1.0), "count": 3, "none": None}
    lay_out_states(optimizer)
    found = optimizer.state[parameter]["momentum_buffer"]
    assert torch.equal(found, kept)
    assert found.stride() == parameter.stride()
    assert not found.requires_grad
    assert laid_out_like(found, parameter) is found


def test_averaged_weights_have_the_layout_of_the_model(tiny_npz: Path, tmp_path: Path) -> None:
    seen: list[bool] = []

    class Looking(AveragedWeights):
        def on_train_end(self, *_: object) -> None:
            seen.append(channels_last(self._average_model.module.model[2].weight))

    fitted(tmp_path, tiny_npz, built(memory_format="channels_last"), 1, Looking(0.5))
    assert seen == [True]


@pytest.mark.parametrize("derivative", ["exact", "difference"])
@pytest.mark.parametrize("name", ["small_cnn", "small_resnet"])
def test_crafting_against_weights_of_either_format(name: str, derivative: Derivative) -> None:
    torch.manual_seed(0)
    model = ImageClassifier(name, num_classes=3, image_size=8, memory_format="channels_last").eval().double()
    other = copy.deepcopy(model)
    other.lay_out_for("cpu")
    rng = np.random.default_rng(0)
    images = SigningImages.of(range(6), list(rng.integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)), label=1)
    found = []
    for surrogate in (model, other):
        made = Objective(
            images, torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
            [Surrogate(surrogate, list(surrogate.parameters()))], torch.device("cpu"), image_size=8, load_size=8, recipe="none",
            micro_batch=4, precision="32-true", derivative=derivative, perceptual=None, perceptual_weight=0.0, team=Team(),
        )  # fmt: skip
        delta = (torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)) - 0.5) / 16
        found.append(made.ascent([delta.to(made.dtype).requires_grad_()], View(), [0])[1][0])
    assert torch.allclose(*found, rtol=1e-3, atol=1e-6 * float(found[0].abs().max()))


@pytest.mark.parametrize("name", ["small_cnn", "small_cnn+small_mlp"])
def test_answers_are_those_of_the_members(name: str) -> None:
    model = ImageClassifier(name, num_classes=3, image_size=8)
    x = torch.rand(2, 3, 8, 8)
    for answer, member in zip(model.answers(x), model.members, strict=True):
        assert torch.equal(answer, member(x))


def test_a_compiled_model_is_copied_and_written_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def compiled(function: object) -> object:
        calls.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiled)
    model, plain = ImageClassifier(**CNN, compile=True), ImageClassifier(**CNN)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert "compile" not in model.arguments
    assert "memory_format" not in model.arguments
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(model.answers(x)[0], model(x))
    model.answers(x)
    assert len(calls) == 1
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.answers(x)[0], model(x))
    assert len(calls) == 3
    assert not [module for module in model.modules() if "Optimized" in type(module).__name__]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small_cnn", "small_cnn+small_mlp"])
def test_compiled_steps_have_the_losses_of_plain_ones(name: str, tiny_npz: Path, tmp_path: Path) -> None:
    class Keeper(Callback):
        def __init__(self) -> None:
            self.losses: list[float] = []

        def on_train_batch_end(self, trainer: object, pl_module: object, outputs: dict, *_: object) -> None:
            self.losses.append(float(outputs["loss"]))

    found = []
    for compile in (False, True):
        keeper = Keeper()
        model = built(model_name=name, compile=compile)
        path = fitted(tmp_path, tiny_npz, model, 2, keeper)
        found.append(keeper.losses)
        assert load_classifier(path).state_dict().keys() == model.state_dict().keys()
    assert len(found[0]) > 4
    assert np.allclose(*found, atol=1e-4)


def test_distillation_takes_both(tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    teacher = fitted(tmp_path, tiny_npz, built(), 1)
    students = []
    for arguments in ({}, {"compile": True, "memory_format": "channels_last"}):
        torch.manual_seed(1)
        student = Distillation(str(teacher), **CNN, **arguments)
        fitted(tmp_path, tiny_npz, student, 1)
        students.append(student.eval())
    x = torch.rand(4, 3, 8, 8)
    assert torch.allclose(students[0](x), students[1](x), atol=1e-4)


def test_the_optimizer_on_a_cpu_is_what_it_was(tiny_npz: Path, tmp_path: Path) -> None:
    for name in ("sgd", "adamw"):
        model = built(optimizer=name, lr=0.01)
        path = fitted(tmp_path, tiny_npz, model, 1)
        (group, *_) = model.trainer.optimizers[0].param_groups
        assert group["fused"] is None
        # A checkpoint that a CUDA device wrote goes on here without its fused step.
        content = torch.load(path, weights_only=True)
        for group in content["optimizer_states"][0]["param_groups"]:
            group["fused"] = True
        torch.save(content, path)
        again = built(optimizer=name, lr=0.01)
        fitted(tmp_path, tiny_npz, again, 2, start=path)
        assert again.trainer.optimizers[0].param_groups[0]["fused"] is None


def test_a_step_is_fused_on_cuda_unless_something_scales(tiny_npz: Path, tmp_path: Path) -> None:
    cuda = torch.device("cuda")
    for optimizer, wanted in (("sgd", True), ("adamw", True), ("lamb", False)):
        model = built(optimizer=optimizer, lr=0.01)
        fitted(tmp_path, tiny_npz, model, 1)
        assert model._fused(cuda) is wanted
        assert not model._fused(torch.device("cpu"))
        model.trainer.precision_plugin.scaler = object()
        assert not model._fused(cuda)


def test_contiguous_is_obeyed_whatever_images_come() -> None:
    shapes: list[bool] = []
    model = ImageClassifier("small_cnn", num_classes=3, image_size=8, memory_format="contiguous")
    model.model[0].register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].is_contiguous()))
    model(torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last))
    assert shapes == [True]
    assert not model.takes_channels_last
    assert ImageClassifier("small_cnn", num_classes=3, image_size=8).takes_channels_last
    assert not ImageClassifier("small_vit", num_classes=3, image_size=8).takes_channels_last

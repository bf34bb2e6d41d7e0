"""Mean and deviation of pixels: one number or one a channel, the user's or those of stored weights."""

import copy
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.access.files.exported import ask_exported
from taggant_lightning.adversary.features import activations
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.checkpoints import write_classifier
from taggant_lightning.models.classifier import load_classifier
from taggant_lightning.models.ensemble import members
from taggant_lightning.models.normalisation import Normalisation
from tests.data.test_datamodule import trainer

MLP = {"model_name": "small_mlp", "num_classes": 3, "image_size": 6}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the program says, whether or not Lightning's logger hands on."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(caplog.handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield caplog
    logger.setLevel(level)
    logger.removeHandler(caplog.handler)


def by_hand(images: torch.Tensor, mean: list[float], std: list[float]) -> torch.Tensor:
    channels = zip(images.unbind(1), mean, std, strict=True)
    return torch.stack([(channel - m) / s for channel, m, s in channels], dim=1)


def test_one_number_a_channel() -> None:
    model = ImageClassifier(**MLP, **IMAGENET)
    x = torch.rand(2, 3, 6, 6)
    wanted = model.model(by_hand(x, **IMAGENET))
    assert torch.allclose(model(x), wanted, atol=1e-6)
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    assert model.state_dict().keys() == ImageClassifier(**MLP).state_dict().keys()
    both = ImageClassifier("small_mlp+small_cnn", 3, 8, **IMAGENET)
    x = torch.rand(2, 3, 8, 8)
    for member, inner in zip(members(both), both.model.models, strict=True):
        assert torch.allclose(member(x), inner(by_hand(x, **IMAGENET)), atol=1e-6)


def test_defaults_and_equal_numbers_are_one() -> None:
    assert [ImageClassifier(**MLP).arguments[name] for name in ("mean", "std")] == [0.5, 0.25]
    model = ImageClassifier(**MLP, mean=[0.5] * 3, std=[0.3])
    assert (model.arguments["mean"], model.arguments["std"]) == (0.5, 0.3)
    assert not list(model.normalise.buffers())
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(Normalisation(0.3, 0.2)(x), (x - 0.3) / 0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": [0.5, 0.4]}, "mean=.0.5, 0.4. has 2 numbers and the images 3 channels; write 1 or 3"),
        ({"std": []}, "std=.. has 0 numbers and the images 3 channels"),
        ({"std": [0.2, 0.0, 0.2]}, "std=.0.2, 0.0, 0.2. must be positive; write the deviation"),
        ({"std": float("nan")}, "std=nan must be positive"),
        ({"mean": [123.7, 116.3, 103.5]}, r"mean=.123.7, 116.3, 103.5. must lie in \[0, 1\], as pixels do; divide by 255"),
        ({"mean": -0.1}, r"mean=-0.1 must lie in \[0, 1\], as pixels do; write the mean"),
    ],
)
def test_what_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        ImageClassifier(**MLP, **arguments)


def test_checkpoints_keep_the_numbers(tiny_npz: Path, tmp_path: Path) -> None:
    data, model = ImageDataModule("npz", str(tiny_npz)), ImageClassifier(**MLP, **IMAGENET)
    run = trainer(tmp_path, 1)
    run.fit(model, datamodule=data)
    run.save_checkpoint(tmp_path / "a.ckpt")
    again, x = load_classifier(tmp_path / "a.ckpt"), torch.rand(2, 3, 6, 6)
    assert again.arguments == model.arguments
    assert torch.equal(again(x), model.eval()(x))
    with pytest.raises(TaggantError, match=r"mean=0.5, and the checkpoint was trained with .0.485"):
        trainer(tmp_path, 1).test(ImageClassifier(**MLP), datamodule=data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    # A checkpoint of before, with a number, is that of a model of three equal numbers.
    old = ImageClassifier(**MLP, mean=0.3)
    write_classifier(old, tmp_path / "old.ckpt")
    same = ImageClassifier(**MLP, mean=[0.3] * 3)
    trainer(tmp_path, 1).test(same, datamodule=data, ckpt_path=tmp_path / "old.ckpt", verbose=False, weights_only=True)
    assert torch.equal(same.eval()(x), load_classifier(tmp_path / "old.ckpt")(x))


def test_features_and_exported_programs(tiny_npz: Path, tmp_path: Path) -> None:
    data = ImageDataModule("npz", str(tiny_npz), image_size=6, train_subset=5)
    model = ImageClassifier(**MLP, **IMAGENET)
    images = data.train_data.__getitems__(range(5))[0].float() / 255
    with torch.no_grad():
        assert np.allclose(activations(model, data).logits, model(images).numpy(), atol=1e-5)
        program = torch.export.export(model, (images[:1],))
        torch.export.save(program, tmp_path / "m.pt2")
        answers, _ = ask_exported(tmp_path / "m.pt2", images.numpy())
        assert [answer.labels[0] for answer in answers] == model(images).argmax(1).tolist()


@pytest.mark.parametrize("inner", [True, False])
def test_taken_from_the_hubs_configuration(tmp_path: Path, said: pytest.LogCaptureFixture, inner: bool) -> None:
    save_file(ImageClassifier(**MLP).model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": IMAGENET} if inner else IMAGENET))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        model = ImageClassifier(**MLP, weights=str(path))
        assert {name: model.arguments[name] for name in IMAGENET} == IMAGENET
    wanted = f"mean=[0.485, 0.456, 0.406] std=[0.229, 0.224, 0.225] taken from {tmp_path / 'config.json'}"
    assert wanted in said.text
    said.clear()
    half = ImageClassifier(**MLP, mean=0.4, weights=str(tmp_path))
    assert (half.arguments["mean"], half.arguments["std"]) == (0.4, IMAGENET["std"])
    assert "taggant: std=[0.229, 0.224, 0.225] taken from" in said.text
    said.clear()
    own = ImageClassifier(**MLP, mean=0.4, std=[0.2, 0.3, 0.4], weights=str(tmp_path))
    assert own.arguments["std"] == [0.2, 0.3, 0.4]
    assert "taken from" not in said.text


@pytest.mark.parametrize(
    "content", ["{}", "[", "[1]", '{"pretrained_cfg": {"mean": "x", "std": [1]}}', '{"mean": [true], "std": 1}']
)
def test_a_configuration_that_says_nothing(tmp_path: Path, content: str) -> None:
    save_file(ImageClassifier(**MLP).model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(content)
    assert ImageClassifier(**MLP, weights=str(tmp_path)).arguments["mean"] == 0.5


def test_taken_from_a_checkpoint(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    write_classifier(ImageClassifier(**MLP, mean=0.3, std=[0.2, 0.3, 0.4]), tmp_path / "a.ckpt")
    model = ImageClassifier(**{**MLP, "num_classes": 5}, weights=str(tmp_path / "a.ckpt"))
    assert (model.arguments["mean"], model.arguments["std"]) == (0.3, [0.2, 0.3, 0.4])
    assert f"mean=0.3 std=[0.2, 0.3, 0.4] taken from {tmp_path / 'a.ckpt'}" in said.text


def test_not_taken_from_another_module_s_checkpoint(tmp_path: Path) -> None:
    state = timm.create_model("resnet10t", num_classes=5).state_dict()
    torch.save({"pytorch-lightning_version": "2.6.0", "state_dict": state}, tmp_path / "theirs.ckpt")
    assert ImageClassifier("resnet10t", 5, 32, weights=str(tmp_path / "theirs.ckpt")).arguments["mean"] == 0.5


def test_taken_from_timm(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    resnet = timm.create_model("resnet10t", num_classes=5)
    torch.save(resnet.state_dict(), tmp_path / "w.pth")
    colour = ImageClassifier("resnet10t", 5, 32, weights=str(tmp_path / "w.pth"))
    assert colour.arguments["mean"] == list(resnet.pretrained_cfg["mean"])
    assert "taken from timm's resnet10t.c3_in1k" in said.text
    grey = ImageClassifier("resnet10t", 5, 32, channels=1, weights=str(tmp_path / "w.pth"))
    assert grey.arguments["mean"] == pytest.approx(sum(resnet.pretrained_cfg["mean"]) / 3)
    assert ImageClassifier("resnet10t", 5, 32).arguments["mean"] == 0.5  # without weights

"""ImageClassifier: models, weights, checkpoints, and what it refuses."""

import logging
from pathlib import Path

import pytest
import torch

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.classifier import load_classifier
from taggant_lightning.models.small import SMALL_MODELS, create_small
from taggant_lightning.models.weights import start_from
from tests.data.test_datamodule import trainer


@pytest.mark.parametrize("name", SMALL_MODELS)
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (32, 3)])
def test_small_models(name: str, size: int, channels: int) -> None:
    model = ImageClassifier(name, num_classes=7, image_size=size, channels=channels)
    assert model(torch.rand(2, channels, size, size)).shape == (2, 7)
    with pytest.raises(TaggantError, match="small model 'tiny' is unknown"):
        create_small("tiny", num_classes=2, image_size=8, channels=1)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_timm_models(name: str) -> None:
    model = ImageClassifier(name, num_classes=5, image_size=32, channels=3, drop_path=0.1)
    assert model.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 5)


def test_normalisation_lives_in_the_model() -> None:
    model = ImageClassifier("small_mlp", num_classes=2, image_size=4, mean=0.3, std=0.2)
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(model(x), model.model((x - 0.3) / 0.2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "resnet_of_mine"}, "model_name='resnet_of_mine' is unknown; write one of small_mlp"),
        ({"model_name": "zzz"}, "see timm.list_models"),
        ({"num_classes": 1}, "num_classes=1 must be at least 2"),
        ({"lr": 0}, "lr=0 must be positive"),
        ({"warmup": 1.0}, "warmup=1.0 must lie in"),
        ({"image_size": 30}, "image_size=30 does not suit small_cnn; write a multiple of 4"),
        ({"weights": "none.pth"}, "weights=none.pth is no file"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        ImageClassifier(**arguments)


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "ckpt"])
def test_fine_tuning_from_weights(suffix: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    backbone = ImageClassifier("small_mlp", num_classes=4, image_size=4)
    path = tmp_path / f"w.{suffix}"
    if suffix == "safetensors":
        save_file(backbone.model.state_dict(), path)
    else:
        torch.save(backbone.model.state_dict() if suffix == "pth" else {"state_dict": backbone.state_dict()}, path)
    tuned = ImageClassifier("small_mlp", num_classes=9, image_size=4, weights=str(path))
    assert torch.equal(tuned.model[1].weight, backbone.model[1].weight)
    assert tuned.model[5].weight.shape == (9, 256)
    assert start_from(tuned.model, path) == ["5.weight", "5.bias"]
    with pytest.raises(TaggantError, match="belongs to another architecture"):
        ImageClassifier("small_cnn", num_classes=9, image_size=4, weights=str(path))


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple:
            return (print, ("run",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(TaggantError, match="cannot be read without unpickling code"):
        ImageClassifier("small_mlp", image_size=4, weights=str(tmp_path / "evil.pth"))
    with pytest.raises(TaggantError, match="cannot be read"):
        load_classifier(tmp_path / "evil.pth")


def test_checkpoint_rebuilds_and_compares(tiny_npz: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = ImageDataModule("npz", str(tiny_npz))
    model = ImageClassifier("small_mlp", num_classes=3, image_size=6, optimizer="sgd", lr=0.01)
    t = trainer(tmp_path, 1)
    t.fit(model, datamodule=data)
    path = tmp_path / "a.ckpt"
    t.save_checkpoint(path)
    again = load_classifier(path)
    assert again.arguments == model.arguments
    assert not again.training
    x = torch.rand(2, 3, 6, 6)
    assert torch.equal(again(x), model.eval()(x))

    # What the command line asks for is kept, and told: the checkpoint does not beat it.
    other = ImageClassifier("small_mlp", num_classes=3, image_size=6, lr=0.5)
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path, 1).test(other, datamodule=data, ckpt_path=path, verbose=False, weights_only=True)
    assert other.arguments["lr"] == 0.5
    assert "model.lr=0.5 as asked for; the checkpoint was trained with 0.01" in caplog.text
    narrow = ImageClassifier("small_mlp", num_classes=4, image_size=6)
    with pytest.raises(TaggantError, match="num_classes=4, and the checkpoint was trained with 3"):
        trainer(tmp_path, 1).test(narrow, datamodule=data, ckpt_path=path, verbose=False, weights_only=True)

    with pytest.raises(TaggantError, match="does not exist"):
        load_classifier(tmp_path / "none.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(TaggantError, match="holds no ImageClassifier"):
        load_classifier(tmp_path / "other.ckpt")


def test_schedules(tiny_npz: Path, tmp_path: Path) -> None:
    for schedule, expected in (("cosine", 0.0), ("constant", 0.01)):
        model = ImageClassifier("small_mlp", num_classes=3, image_size=6, lr=0.01, schedule=schedule, optimizer="lamb")
        t = trainer(tmp_path, 2)
        t.fit(model, datamodule=ImageDataModule("npz", str(tiny_npz), batch_size=30))
        assert t.optimizers[0].param_groups[0]["lr"] == pytest.approx(expected, abs=1e-3 if expected == 0 else 1e-9)

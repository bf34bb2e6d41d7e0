"""Models by name, and the arguments that timm takes."""

from pathlib import Path

import pytest
import torch

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.cli import main
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.classifier import load_classifier
from tests.data.test_datamodule import trainer


def test_resnet18_for_small_images() -> None:
    model = ImageClassifier("cifar_resnet18", num_classes=100, image_size=32).model
    sizes = {}
    for name in ("conv1", "maxpool", "layer1", "layer4"):
        getattr(model, name).register_forward_hook(lambda _, __, out, name=name: sizes.update({name: out.shape[-1]}))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 100)
    assert sizes == {"conv1": 32, "maxpool": 32, "layer1": 32, "layer4": 4}
    assert sum(p.numel() for p in model.parameters()) == 11_220_132  # 11.2 million, as the usual one for CIFAR-100
    assert ImageClassifier("cifar_resnet18", image_size=16, channels=1).model(torch.rand(1, 1, 16, 16)).shape == (1, 10)


def test_timm_arguments_go_into_the_checkpoint(tiny_npz: Path, tmp_path: Path) -> None:
    kwargs = {"patch_size": 2, "embed_dim": 24, "depth": 1, "num_heads": 3}
    model = ImageClassifier("vit_tiny_patch16_224", num_classes=3, image_size=6, model_kwargs=kwargs, mixup=0.2, loss="bce")
    assert model.model.patch_embed.grid_size == (3, 3)
    t = trainer(tmp_path, 1)
    t.fit(model, datamodule=ImageDataModule("npz", str(tiny_npz)))
    t.save_checkpoint(tmp_path / "a.ckpt")
    again = load_classifier(tmp_path / "a.ckpt")
    assert again.arguments == model.arguments
    assert (again.arguments["loss"], again.arguments["mixup"], again.arguments["model_kwargs"]) == ("bce", 0.2, kwargs)
    other = ImageClassifier("vit_tiny_patch16_224", num_classes=3, image_size=6, model_kwargs={**kwargs, "depth": 2})
    with pytest.raises(TaggantError, match="model_kwargs=.*'depth': 2.* and the checkpoint was trained with"):
        trainer(tmp_path, 1).test(
            other, datamodule=ImageDataModule("npz", str(tiny_npz)), ckpt_path=tmp_path / "a.ckpt", weights_only=True
        )


def test_arguments_go_to_each_member() -> None:
    model = ImageClassifier("resnet10t+resnet14t", num_classes=3, image_size=32, model_kwargs={"drop_rate": 0.25})
    assert [member.drop_rate for member in model.model.models] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        (
            "vit_tiny_patch16_224",
            {"patchsize": 4},
            "do not suit vit_tiny_patch16_224: .*unexpected keyword argument 'patchsize'",
        ),
        ("vit_tiny_patch16_224", {"patch_size": 0}, "model_kwargs={'patch_size': 0} do not suit vit_tiny_patch16_224: integer"),
        ("resnet10t", {"patch_size": 4}, "do not suit resnet10t: .*unexpected keyword argument 'patch_size'"),
        ("cifar_resnet18", {"patch_size": 4}, "do not suit cifar_resnet18"),
        ("small_cnn", {"width": 4}, "model_kwargs={'width': 4} are for timm models, and small_cnn is not one; leave them out"),
        ("resnet10t+small_cnn", {"drop_rate": 0.1}, "small_cnn is not one"),
        ("resnet10t", {"in_chans": 1}, "model_kwargs holds in_chans=1; write the model's own argument channels"),
        ("resnet10t", {"pretrained": True}, "pretrained=True; write the model's own argument weights"),
    ],
)
def test_wrong_timm_arguments(name: str, kwargs: dict, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        ImageClassifier(name, image_size=32, model_kwargs=kwargs)


def test_the_command_line_takes_them_and_says_what_is_wrong(
    tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--model", "ImageClassifier", "--model.model_name", "resnet10t", "--data", "ImageDataModule"]
    words += [
        "--data.source",
        "npz",
        "--data.root",
        str(tiny_npz),
        "--trainer.fast_dev_run",
        "1",
        "--trainer.accelerator",
        "cpu",
    ]
    words += ["--trainer.default_root_dir", str(tmp_path), "--model.model_kwargs"]
    assert main([*words, '{"drop_rate": 0.1}', "--model.loss", "bce", "--model.mixup", "0.2"]) == 0
    capsys.readouterr()
    for wrong, sentence in (
        (['{"width": 3}'], "unexpected keyword argument 'width'; see timm's resnet10t"),
        (["{}", "--model.cutmix", "-1"], "cutmix=-1.0 must be at least 0: the parameter of a Beta distribution, 0 for none"),
    ):
        assert main([*words, *wrong]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert error[-1].endswith(sentence)
        assert sum(line.startswith("taggant fit:") for line in error) == 1

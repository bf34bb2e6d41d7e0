"""Fine-tuning from files of weights as timm and the Hugging Face hub write them."""

import argparse
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from taggant_lightning import ImageClassifier
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.weights import read_weights, start_from

VIT = {"model_name": "vit_tiny_patch16_224", "model_kwargs": {"depth": 2}}


@pytest.fixture(scope="module")
def backbone() -> torch.nn.Module:
    torch.manual_seed(1)
    return timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=1000)


@pytest.mark.parametrize("layout", ["safetensors", "pth", "timm", "hub"])
def test_timms_own_files(backbone: torch.nn.Module, tmp_path: Path, layout: str) -> None:
    path, state = tmp_path / f"weights.{'safetensors' if layout == 'safetensors' else 'pth'}", backbone.state_dict()
    if layout == "safetensors":
        save_file(state, path)
    elif layout == "pth":
        torch.save(state, path)
    elif layout == "timm":  # what timm's training script writes: the average is what it recommends
        worse = {name: torch.zeros_like(value) for name, value in state.items()}
        torch.save(
            {"epoch": 3, "arch": "vit", "state_dict": worse, "state_dict_ema": state, "args": argparse.Namespace(a=1)}, path
        )
        if timm.__version__ in ("1.0.20",):  # it does not know that Namespace is harmless
            pytest.skip("this timm does not read its own training checkpoints safely")
    else:
        path = tmp_path
        save_file(state, path / "model.safetensors")
        (path / "config.json").write_text("{}")
    tuned = ImageClassifier(**VIT, num_classes=7, image_size=224, weights=str(path))
    assert all(torch.equal(v, state[n]) for n, v in tuned.model.state_dict().items() if not n.startswith("head."))
    assert tuned.model.head.weight.shape == (7, 192)
    assert start_from(tuned.model, path) == ["head.weight", "head.bias"]
    same = ImageClassifier(**VIT, num_classes=1000, image_size=224, weights=str(path))
    assert torch.equal(same.model.head.weight, state["head.weight"])


def test_another_image_size(backbone: torch.nn.Module, tmp_path: Path) -> None:
    """Position embeddings are resampled as timm does it, and the answers on a larger image stay near."""
    from timm.layers import resample_abs_pos_embed

    save_file(backbone.state_dict(), tmp_path / "w.safetensors")
    tuned = ImageClassifier(**VIT, num_classes=1000, image_size=64, weights=str(tmp_path / "w.safetensors")).model
    expected = resample_abs_pos_embed(backbone.pos_embed, [4, 4], num_prefix_tokens=1)
    assert torch.allclose(tuned.pos_embed, expected, atol=1e-6)
    assert torch.equal(tuned.blocks[1].attn.qkv.weight, backbone.blocks[1].attn.qkv.weight)
    assert torch.equal(tuned.head.weight, backbone.head.weight)
    started = ImageClassifier(**VIT, num_classes=4, image_size=64)
    assert start_from(started.model, tmp_path / "w.safetensors") == ["pos_embed", "head.weight", "head.bias"]  # without timm


def test_other_patches(backbone: torch.nn.Module, tmp_path: Path) -> None:
    save_file(backbone.state_dict(), tmp_path / "w.safetensors")
    kwargs = {"model_kwargs": {"depth": 2, "patch_size": 8}}
    tuned = ImageClassifier(**{**VIT, **kwargs}, num_classes=7, image_size=112, weights=str(tmp_path / "w.safetensors")).model
    assert torch.equal(tuned.pos_embed, backbone.pos_embed)
    x = torch.rand(1, 3, 112, 112)  # an image of half the side, in patches of half the side: nearly the same tokens
    large = torch.nn.functional.interpolate(x, scale_factor=2, mode="bicubic")
    a, b = tuned.patch_embed(x).flatten(), backbone.patch_embed(large).flatten()
    assert float(torch.nn.functional.cosine_similarity(a, b, dim=0)) > 0.9


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_grey_images_from_colour(name: str, tmp_path: Path) -> None:
    colour = timm.create_model(name, num_classes=5)
    torch.save(colour.state_dict(), tmp_path / "w.pth")
    tuned = ImageClassifier(name, num_classes=7, image_size=224, channels=1, weights=str(tmp_path / "w.pth")).model
    first = "conv1.0" if name == "resnet10t" else "patch_embed.proj"
    theirs, ours = (model.get_submodule(first).weight for model in (colour, tuned))
    assert torch.allclose(ours, theirs.sum(dim=1, keepdim=True), atol=1e-6)


def test_layer_scale_of_the_original_deit3(tmp_path: Path) -> None:
    original = timm.create_model("deit3_small_patch16_224", depth=1)
    state = {
        name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v for name, v in original.state_dict().items()
    }
    state["blocks.0.gamma_1"].fill_(0.5)
    torch.save({"model": state}, tmp_path / "deit_3_small_224_1k.pth")
    path = str(tmp_path / "deit_3_small_224_1k.pth")
    tuned = ImageClassifier("deit3_small_patch16_224", 5, image_size=96, model_kwargs={"depth": 1}, weights=path)
    assert float(tuned.model.blocks[0].ls1.gamma[0]) == 0.5


def test_a_small_stem_from_a_large_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    resnet = timm.create_model("resnet18", num_classes=1000)
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    tuned = ImageClassifier("cifar_resnet18", num_classes=7, image_size=32, weights=str(tmp_path / "resnet18.pth")).model
    assert torch.equal(tuned.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)
    assert tuned.conv1.weight.shape == (64, 3, 3, 3)


def test_what_does_not_fit(backbone: torch.nn.Module, tmp_path: Path) -> None:
    save_file(backbone.state_dict(), tmp_path / "w.safetensors")
    for name in ("resnet10t", "vit_small_patch16_224"):
        with pytest.raises(TaggantError, match="it belongs to another architecture"):
            ImageClassifier(name, num_classes=7, image_size=32, weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(TaggantError, match="model.safetensors is no file; write a .safetensors"):
        read_weights(tmp_path)
    torch.save(torch.zeros(3), tmp_path / "t.pth")
    with pytest.raises(TaggantError, match="save a state dict"):
        read_weights(tmp_path / "t.pth")

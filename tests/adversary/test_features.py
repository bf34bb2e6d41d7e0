"""Features before the last layer: they are what it is given, for small models, timm's and ensembles."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.adversary.features import activations, penultimate
from taggant_lightning.adversary.inspection import energies
from taggant_lightning.errors import TaggantError
from taggant_lightning.release.traces import high_frequency_energy


@pytest.mark.parametrize(
    ("name", "width", "head"),
    [
        ("small_mlp", 256, lambda m: m[-1]),
        ("small_cnn", 256, lambda m: m[-1]),
        ("small_resnet", 96, lambda m: m[-1]),
        ("small_vit", 96, lambda m: m.head),
        ("resnet18", 512, lambda m: m.fc),
        ("convnext_atto", 320, lambda m: m.head.fc),
        ("deit_tiny_patch16_224", 192, lambda m: m.head),
    ],
)
def test_the_last_layer_makes_the_logits_of_the_features(name: str, width: int, head: object, tiny_npz: Path) -> None:
    size = 32 if name[:5] != "small" else 8
    data = ImageDataModule("npz", str(tiny_npz), image_size=size, train_subset=7)
    model = ImageClassifier(name, num_classes=3, image_size=size, channels=3)
    found = activations(model, data, batch_size=4)
    assert found.features.shape == (7, width)
    assert (found.features.dtype, found.logits.dtype, found.losses.dtype) == (np.float32, np.float32, np.float64)
    images, labels, _ = data.train_data.__getitems__(range(7))
    with torch.no_grad():
        answer = model(images.float() / 255)
        again = head(model.model)(torch.from_numpy(found.features))  # type: ignore[operator]
    assert np.allclose(found.logits, answer.numpy(), atol=1e-4)
    assert np.allclose(found.logits, again.numpy(), atol=1e-4)
    wanted = nn.functional.cross_entropy(answer, labels, reduction="none").numpy()
    assert np.allclose(found.losses, wanted, atol=1e-4)


def test_members_of_an_ensemble_stand_side_by_side(tiny_npz: Path) -> None:
    data = ImageDataModule("npz", str(tiny_npz), image_size=8)
    model = ImageClassifier("small_mlp+small_cnn", num_classes=3, image_size=8, channels=3)
    told: list[tuple[str, int, int]] = []
    found = activations(model, data, progress=lambda *now: told.append(now))
    assert found.features.shape == (60, 512)
    assert told[-1] == ("features", 60, 60)
    images = data.train_data.__getitems__(range(60))[0].float() / 255
    with torch.no_grad():
        assert np.allclose(found.logits, model(images).numpy(), atol=1e-4)


def test_images_are_cut_as_in_evaluation(tiny_npz: Path) -> None:
    data = ImageDataModule("npz", str(tiny_npz), image_size=8, load_size=12, augment="simple")
    model = ImageClassifier("small_mlp", num_classes=3, image_size=8, channels=3)
    images = data.train_data.__getitems__(range(60))[0][..., 2:10, 2:10].float() / 255
    with torch.no_grad():
        assert np.allclose(activations(model, data).logits, model(images).numpy(), atol=1e-5)


def test_energies_are_of_stored_pixels(tiny_npz: Path) -> None:
    data = ImageDataModule("npz", str(tiny_npz), image_size=8, train_subset=5)
    wanted = [high_frequency_energy(data.train_source.pixels(int(i))) for i in data.train_indices]
    assert energies(data).tolist() == wanted


def test_wrong_input(tiny_npz: Path) -> None:
    data = ImageDataModule("npz", str(tiny_npz), image_size=8)
    with pytest.raises(TaggantError, match="image_size=8 of the data, and the model was trained with 16"):
        activations(ImageClassifier("small_mlp", num_classes=3, image_size=16), data)
    with pytest.raises(TaggantError, match="num_classes=3 of the data, and the model was trained with 4"):
        activations(ImageClassifier("small_mlp", num_classes=4, image_size=8), data)
    with pytest.raises(TaggantError, match="model Linear shows no features before its last layer"):
        penultimate(nn.Linear(2, 2), torch.zeros(1, 2))
    broken = ImageClassifier("small_mlp", num_classes=3, image_size=8)
    nn.init.constant_(broken.model[-1].bias, float("nan"))  # type: ignore[index]
    with pytest.raises(TaggantError, match="not finite"):
        activations(broken, data)

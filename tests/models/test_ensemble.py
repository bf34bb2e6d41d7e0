"""Several models in one module: each trains as it would alone."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.classifier import load_classifier
from taggant_lightning.models.ensemble import members
from tests.data.test_datamodule import trainer

ARGUMENTS = {"num_classes": 3, "image_size": 8, "channels": 3}


def test_answers_with_the_mean_of_log_probabilities() -> None:
    model = ImageClassifier("small_cnn+small_mlp", **ARGUMENTS).eval()
    x = torch.rand(4, 3, 8, 8)
    first, second = members(model)
    torch.testing.assert_close(model(x), (first(x).log_softmax(1) + second(x).log_softmax(1)) / 2)
    assert members(first) == [first]
    alone = ImageClassifier("small_mlp", **ARGUMENTS)
    assert members(alone) == [alone]
    other = torch.nn.Linear(1, 1)
    other.members = ["a", "b"]  # of somebody's own module, with another meaning
    assert members(other) == [other]


def test_each_member_trains_as_it_would_alone(tiny_npz: Path, tmp_path: Path) -> None:
    data = ImageDataModule("npz", str(tiny_npz), image_size=8, batch_size=20)
    pl.seed_everything(0, verbose=False)
    both = ImageClassifier("small_cnn+small_mlp", **ARGUMENTS)
    alone = ImageClassifier("small_mlp", **ARGUMENTS)
    alone.model.load_state_dict(both.model.models[1].state_dict())
    for model in (both, alone):
        trainer(tmp_path / str(len(list(tmp_path.iterdir()))), 2).fit(model, datamodule=data)
    for a, b in zip(both.model.models[1].parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_comes_back_from_its_checkpoint(tiny_npz: Path, tmp_path: Path) -> None:
    data = ImageDataModule("npz", str(tiny_npz), image_size=8, batch_size=20)
    model = ImageClassifier("small_cnn+small_mlp", **ARGUMENTS)
    run = trainer(tmp_path, 1)
    run.fit(model, datamodule=data)
    run.save_checkpoint(tmp_path / "both.ckpt")
    again = load_classifier(tmp_path / "both.ckpt")
    assert torch.equal(again(torch.ones(1, 3, 8, 8)), model.eval()(torch.ones(1, 3, 8, 8)))
    assert len(members(again)) == 2


def test_a_wrong_member_is_named() -> None:
    with pytest.raises(TaggantError, match="model_name='small_cmn' is unknown"):
        ImageClassifier("small_cnn+small_cmn", **ARGUMENTS)

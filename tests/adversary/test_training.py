"""Training against marks: what noise and attacks do, from the command line, resumed, and read back as a plain model."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.adversary.training import AdversarialClassifier, GradientNoise, clip_and_disturb
from taggant_lightning.cli import main
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.classifier import load_classifier
from tests.data.test_datamodule import StopAfter, trainer


def gradients(scale: float = 1.0) -> list[torch.Tensor]:
    torch.manual_seed(3)
    return [scale * torch.randn(40, 50), scale * torch.randn(50)]


def length(tensors: list[torch.Tensor]) -> float:
    return float(torch.cat([t.flatten() for t in tensors]).norm())


def test_clipping_without_noise_against_torch() -> None:
    ours = gradients()
    clip_and_disturb(ours, 2.0, 0.0, 1)
    theirs = [nn.Parameter(torch.zeros_like(g)) for g in gradients()]
    for parameter, gradient in zip(theirs, gradients(), strict=True):
        parameter.grad = gradient
    nn.utils.clip_grad_norm_(theirs, 2.0)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.grad)
    small = gradients(1e-3)
    clip_and_disturb(small, 2.0, 0.0, 1)
    assert all(torch.equal(a, b) for a, b in zip(small, gradients(1e-3), strict=True))


def test_noise_is_as_long_as_it_says_and_keyed() -> None:
    made = []
    for seed in (1, 1, 2):
        found = gradients(0.0)
        clip_and_disturb(found, 3.0, 0.5, seed)
        made.append(found)
    assert length(made[0]) == pytest.approx(1.5, rel=0.1)
    assert all(torch.equal(a, b) for a, b in zip(made[0], made[1], strict=True))
    assert not torch.equal(made[0][0], made[2][0])


def fit(npz: Path, folder: Path, model: ImageClassifier, *callbacks: pl.Callback, checkpoint: Path | None = None) -> list:
    data = ImageDataModule("npz", str(npz), batch_size=16, augment="simple", seed=5)
    t = trainer(folder, 4, *callbacks)
    t.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return [value.detach().clone() for value in model.parameters()]


@pytest.mark.parametrize("defence", ["noise", "adversarial"])
def test_a_resumed_run_equals_an_uninterrupted_one(defence: str, tiny_npz: Path, tmp_path: Path) -> None:
    def model() -> ImageClassifier:
        pl.seed_everything(4, verbose=False)
        kind = AdversarialClassifier if defence == "adversarial" else ImageClassifier
        return kind(model_name="small_mlp", num_classes=3, image_size=6)

    def callbacks() -> list[pl.Callback]:
        return [GradientNoise(1.0, 0.5, seed=2)] if defence == "noise" else []

    whole = fit(tiny_npz, tmp_path / "whole", model(), *callbacks())
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "ckpt", every_n_epochs=2, save_top_k=-1)
    fit(tiny_npz, tmp_path / "half", model(), *callbacks(), saving, StopAfter(2))
    checkpoint = next((tmp_path / "ckpt").glob("*.ckpt"))
    resumed = fit(tiny_npz, tmp_path / "half", model(), *callbacks(), checkpoint=checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(resumed, whole, strict=True))
    pl.seed_everything(4, verbose=False)
    plain = fit(tiny_npz, tmp_path / "plain", ImageClassifier("small_mlp", num_classes=3, image_size=6))
    assert not all(torch.equal(a, b) for a, b in zip(plain, whole, strict=True))


@pytest.mark.parametrize("name", ["small_mlp", "small_resnet", "small_mlp+small_cnn"])
def test_attack_stays_within_its_bounds_and_leaves_the_model_alone(name: str) -> None:
    torch.manual_seed(0)
    model = AdversarialClassifier("16/255", 3, model_name=name, num_classes=3, image_size=8).train()
    model.val_acc.eval()
    images, labels = torch.rand(24, 3, 8, 8), torch.arange(24) % 3
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    attacked = model.attack(images, labels)
    assert not attacked.requires_grad
    assert 0 <= attacked.min() <= attacked.max() <= 1
    assert (attacked - images).abs().max() <= 16 / 255 + 1e-6
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    with torch.no_grad():
        start = (images + torch.empty_like(images).uniform_(-16 / 255, 16 / 255)).clamp(0, 1)
        losses = [float(F.cross_entropy(model(batch), labels)) for batch in (images, start, attacked)]
    assert losses[2] > max(losses[:2])


def test_more_steps_attack_better() -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(64, 3, 8, 8), torch.arange(64) % 3
    losses = []
    for steps in (1, 10):
        torch.manual_seed(1)
        model = AdversarialClassifier(0.1, steps, model_name="small_cnn", num_classes=3, image_size=8)
        losses.append(F.cross_entropy(model(model.attack(images, labels)), labels).item())
    assert losses[1] > losses[0]


def test_its_checkpoint_is_that_of_a_plain_classifier(tiny_npz: Path, tmp_path: Path) -> None:
    words = ["--data", "ImageDataModule", "--data.source", "npz", "--data.root", str(tiny_npz), "--trainer.accelerator", "cpu"]
    model = ["--model.model_name", "small_mlp", "--model.adv_eps", "4/255", "--model.lr", "0.01", "--trainer.max_epochs", "2"]
    run = ["--trainer.default_root_dir", str(tmp_path / "run")]
    noise = ["--trainer.callbacks+", "GradientNoise", "--trainer.callbacks.noise", "0.1"]
    assert main(["fit", "--model", "AdversarialClassifier", *model, *words, *run, *noise]) == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert type(load_classifier(checkpoint)) is ImageClassifier
    plain = ["--model", "ImageClassifier", "--model.model_name", "small_mlp", "--model.lr", "0.01"]
    assert main(["test", *plain, *words, *run, "--ckpt_path", str(checkpoint)]) == 0
    again = ["--model", "AdversarialClassifier", "--model.model_name", "small_mlp", "--model.lr", "0.01"]
    assert main(["test", *again, *words, *run, "--ckpt_path", str(checkpoint)]) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientNoise(clip=0), "clip=0 must be positive"),
        (lambda: GradientNoise(clip=float("nan")), "clip=nan must be positive"),
        (lambda: GradientNoise(noise=-1), "noise=-1 must be at least 0"),
        (lambda: AdversarialClassifier(adv_eps="0/255"), "adv_eps=0/255 must lie strictly between 0 and 1"),
        (lambda: AdversarialClassifier(adv_eps=2), "adv_eps=2 must lie strictly between 0 and 1"),
        (lambda: AdversarialClassifier(adv_steps=0), "adv_steps=0 must be at least 1"),
        (lambda: AdversarialClassifier(model_name="nothing"), "model_name='nothing' is unknown"),
    ],
)
def test_wrong_arguments(make: object, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        make()

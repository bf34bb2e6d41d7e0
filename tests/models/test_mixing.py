"""Mixed batches and soft labels: what they are, that a resumed run draws the same ones, and what is refused."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.averaging import AveragedWeights
from taggant_lightning.models.mixing import Mixing, training_loss
from tests.data.test_datamodule import trainer

# A ViT with everything random that training has, small enough for 6×6 pixels.
TINY_VIT = {
    "model_name": "vit_tiny_patch16_224",
    "model_kwargs": {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch_size": 3, "proj_drop_rate": 0.1},
    "drop_path": 0.3,
}


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_images_and_labels_are_mixed_alike(mixup: float, cutmix: float) -> None:
    torch.manual_seed(0)
    labels = torch.arange(5) % 3
    images = labels.view(5, 1, 1, 1).expand(5, 3, 8, 8) / 2.0  # each image tells its label
    mix, means = Mixing(mixup, cutmix, 3), set()
    for _ in range(20):
        mixed, targets = mix(images, labels)
        assert mixed.shape == images.shape
        assert targets.shape == (5, 3)
        assert targets.sum(dim=1) == pytest.approx(torch.ones(5), abs=1e-6)
        assert float(mixed.min()) >= 0
        assert float(mixed.max()) <= 1 + 1e-6
        # The mean of an image's pixels is the mean label of its target.
        assert torch.allclose(mixed.mean(dim=(1, 2, 3)), targets @ torch.tensor([0.0, 0.5, 1.0]), atol=1e-6)
        means.add(len(mixed[1].unique()))
    assert means == {(True, False): {1}, (False, True): {1, 2}, (True, True): {1, 2}}[mixup > 0, cutmix > 0]


def test_without_mixing_and_a_batch_of_one() -> None:
    images, labels = torch.rand(1, 3, 8, 8), torch.tensor([2])
    assert Mixing(0, 0, 3)(images, labels) == (images, labels)
    mixed, targets = Mixing(0.8, 1.0, 3)(images, labels)
    assert torch.allclose(mixed, images)
    assert torch.allclose(targets, torch.tensor([[0.0, 0.0, 1.0]]))


def test_both_kinds_come_equally_often() -> None:
    torch.manual_seed(1)
    mix, found = Mixing(1.0, 1.0, 2), 0
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 16, 16)
    for _ in range(400):
        values = mix(images, torch.tensor([0, 1]))[0][0].unique()
        found += not set(values.tolist()) <= {0.0, 1.0}  # mixup leaves neither 0 nor 1
    assert 160 <= found <= 240


def test_losses_against_their_formulae() -> None:
    torch.manual_seed(0)
    logits, labels, smoothing = torch.randn(4, 3), torch.tensor([0, 2, 1, 1]), 0.1
    hard = F.one_hot(labels, 3).float()
    soft = 0.3 * hard + 0.7 * hard.roll(1, 0)
    for targets, dense in ((labels, hard), (soft, soft)):
        smooth = dense * (1 - smoothing) + smoothing / 3
        p = logits.sigmoid()
        bce = -(smooth * p.log() + (1 - smooth) * (1 - p).log()).mean()
        assert float(training_loss(logits, targets, "bce", smoothing)) == pytest.approx(float(bce), rel=1e-5)
        ce = -(smooth * logits.log_softmax(dim=1)).sum(dim=1).mean()
        assert float(training_loss(logits, targets, "cross_entropy", smoothing)) == pytest.approx(float(ce), rel=1e-5)


def test_mixed_labels_are_those_of_timm() -> None:
    from timm.data.mixup import mixup_target

    labels = torch.tensor([0, 2, 1, 1])
    theirs = mixup_target(labels, 3, lam=0.3, smoothing=0.1)  # timm mixes with the mirrored batch
    hard = F.one_hot(labels, 3).float()
    ours = (0.3 * hard + 0.7 * hard.flip(0)) * 0.9 + 0.1 / 3
    assert torch.allclose(theirs, ours)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_resumed_within_an_epoch(tiny_npz: Path, tmp_path: Path, loss: str, average: bool) -> None:
    """Mixup, CutMix, dropout, stochastic depth and the average: a killed and resumed run equals an uninterrupted one."""

    def run(name: str, *callbacks: pl.Callback, checkpoint: Path | None = None) -> dict[str, torch.Tensor]:
        pl.seed_everything(4, verbose=False)
        data = ImageDataModule("npz", str(tiny_npz), batch_size=16, augment="simple", seed=5)
        model = ImageClassifier(
            num_classes=3, image_size=6, **TINY_VIT, loss=loss, mixup=0.8, cutmix=1.0, label_smoothing=0.1, optimizer="lamb"
        )
        own = [AveragedWeights(0.8)] if average else []
        t = trainer(tmp_path / name, 3, *own, *callbacks)
        t.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        t.save_checkpoint(tmp_path / name / "end.ckpt", weights_only=True)
        return model.state_dict()

    class Killed(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
            if trainer.global_step == 7:
                raise RuntimeError("killed")

    whole = run("whole")
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=6, save_top_k=-1)
    with pytest.raises(RuntimeError, match="killed"):
        run("killed", saving, Killed())
    resumed = run("resumed", checkpoint=next((tmp_path / "ckpt").glob("*step=6.ckpt")))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_members_of_an_ensemble_see_the_same_mixed_batch(tiny_npz: Path, tmp_path: Path) -> None:
    seen = []
    model = ImageClassifier("small_mlp+small_mlp", num_classes=3, image_size=6, mixup=0.8, cutmix=1.0, loss="bce")
    for member in model.model.models:
        member.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()) if module.training else None)
    trainer(tmp_path, 1).fit(model, datamodule=ImageDataModule("npz", str(tiny_npz), batch_size=20))
    assert len(seen) == 6
    assert all(torch.equal(a, b) for a, b in zip(seen[::2], seen[1::2], strict=True))


def test_training_with_defaults_is_that_of_plain_cross_entropy(tiny_npz: Path, tmp_path: Path) -> None:
    class Plain(ImageClassifier):
        def training_step(self, batch: tuple, batch_idx: int) -> torch.Tensor:
            return F.cross_entropy(self(batch[0]), batch[1], label_smoothing=0.1)

    found = []
    for kind in (ImageClassifier, Plain):
        pl.seed_everything(3, verbose=False)
        model = kind("small_cnn", num_classes=3, image_size=8, label_smoothing=0.1)
        trainer(tmp_path, 2).fit(model, datamodule=ImageDataModule("npz", str(tiny_npz), image_size=8, augment="simple"))
        found.append(model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixup": -0.1}, "mixup=-0.1 must be at least 0: the parameter of a Beta distribution, 0 for none"),
        ({"cutmix": float("nan")}, "cutmix=nan must be at least 0"),
        ({"mixup": float("inf")}, "mixup=inf must be"),
        ({"loss": "hinge"}, "loss='hinge' is unknown; write one of cross_entropy, bce"),
        ({"label_smoothing": 1.0}, r"label_smoothing=1.0 must lie in \[0, 1\)"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        ImageClassifier("small_mlp", image_size=4, **arguments)

"""AveragedWeights: what validation, test, checkpoints and the other callbacks see of it."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from taggant_lightning import ImageClassifier, ImageDataModule, KeyDetection, KeySet, TaggantSigning
from taggant_lightning.cli import main
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.averaging import AveragedWeights
from taggant_lightning.models.classifier import load_classifier
from taggant_lightning.release.signature import Signature
from tests.data.test_datamodule import StopAfter, trainer

DECAY = 0.8


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten().clone() for value in module.parameters()])


def stored(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([state[name].flatten() for name, _ in small().named_parameters()])


def small() -> ImageClassifier:
    return ImageClassifier("small_mlp", num_classes=3, image_size=6)


def run(npz: Path, folder: Path, *callbacks: pl.Callback, epochs: int = 2, checkpoint: Path | None = None) -> ImageClassifier:
    pl.seed_everything(4, verbose=False)
    model = small()
    t = trainer(folder, epochs, *callbacks)
    data = ImageDataModule("npz", str(npz), batch_size=16, augment="simple", seed=5)
    t.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return model


class Watch(pl.Callback):
    """Keeps the weights in training after each step, and those that each hook of validation sees."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []
        self.seen: dict[str, torch.Tensor] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self.steps.append(flat(pl_module))

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self.seen["validation"] = flat(pl_module)
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "signal.ckpt")  # as SLURM's signal may ask for it

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen["validation end"] = flat(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen["epoch end"] = flat(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen["end"] = flat(pl_module)


@pytest.mark.parametrize("first", [True, False])
def test_who_sees_which_weights(tiny_npz: Path, tmp_path: Path, first: bool) -> None:
    watch, own = Watch(), AveragedWeights(DECAY)
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "ckpt", save_last=True)
    model = run(tiny_npz, tmp_path, *([own, watch] if first else [watch, own]), saving)
    average = watch.steps[0]
    for weights in watch.steps[1:]:
        average = DECAY * average + (1 - DECAY) * weights
    assert not torch.allclose(average, watch.steps[-1], atol=1e-4)
    assert torch.allclose(watch.seen["validation"], average, atol=1e-6)
    assert torch.allclose(watch.seen["validation end"], average, atol=1e-6)
    assert torch.equal(watch.seen["epoch end"], watch.steps[-1])
    assert torch.equal(watch.seen["end"], watch.steps[-1])
    assert torch.allclose(flat(model), average, atol=1e-6)
    for path in (tmp_path / "ckpt" / "last.ckpt", tmp_path / "signal.ckpt"):
        content = torch.load(path, weights_only=True)
        assert torch.equal(stored(content["state_dict"]), flat(model))
        assert torch.equal(stored(content["current_model_state"]), watch.steps[-1])
        assert torch.equal(flat(load_classifier(path)), flat(model))


def test_training_itself_is_untouched(tiny_npz: Path, tmp_path: Path) -> None:
    plain, averaged = Watch(), Watch()
    run(tiny_npz, tmp_path / "a", plain)
    run(tiny_npz, tmp_path / "b", averaged, AveragedWeights(DECAY))
    assert all(torch.equal(a, b) for a, b in zip(plain.steps, averaged.steps, strict=True))


def test_resumed_between_epochs(tiny_npz: Path, tmp_path: Path) -> None:
    whole = run(tiny_npz, tmp_path / "whole", AveragedWeights(DECAY), epochs=3)
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "ckpt", save_last=True)
    run(tiny_npz, tmp_path / "half", AveragedWeights(DECAY), saving, StopAfter(1), epochs=3)
    resumed = run(tiny_npz, tmp_path / "half", AveragedWeights(DECAY), epochs=3, checkpoint=tmp_path / "ckpt" / "last.ckpt")
    assert torch.equal(flat(whole), flat(resumed))


def test_a_run_without_it_goes_on_with_it(tiny_npz: Path, tmp_path: Path) -> None:
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "ckpt", save_last=True)
    run(tiny_npz, tmp_path, saving, StopAfter(1), epochs=2)
    watch = Watch()
    last = tmp_path / "ckpt" / "last.ckpt"
    with pytest.warns(UserWarning, match="not created with WeightAveraging"):
        run(tiny_npz, tmp_path, watch, AveragedWeights(DECAY), epochs=2, checkpoint=last)
    assert len(watch.steps) == 4


def test_beside_signing_and_detection(tiny_npz: Path, tmp_path: Path, keys: KeySet) -> None:
    """Crafting sees the weights in training, so the Signature is the one of a run without the average."""
    folder, found = str(keys.save(tmp_path / "keys")), []
    for name, more in (("plain", []), ("averaged", [AveragedWeights(DECAY)])):
        signing = TaggantSigning(folder, str(tmp_path / name), images_per_key=4, steps=3, snapshots=())
        run(tiny_npz, tmp_path / f"run-{name}", *more, signing, KeyDetection(folder))
        found.append(Signature.load(tmp_path / name))
    assert found[0].indices.tolist() == found[1].indices.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(found[0].steps, found[1].steps, strict=True))


def test_signing_after_an_early_stop_sees_the_weights_in_training(tiny_npz: Path, tmp_path: Path, keys: KeySet) -> None:
    folder, found = str(keys.save(tmp_path / "keys")), []
    for name, more in (("plain", []), ("averaged", [AveragedWeights(DECAY)])):
        signing = TaggantSigning(folder, str(tmp_path / name), images_per_key=4, steps=3, snapshots=())
        run(tiny_npz, tmp_path / f"run-{name}", *more, signing, StopAfter(1), epochs=3)
        found.append(Signature.load(tmp_path / name))
    assert all(np.array_equal(a, b) for a, b in zip(found[0].steps, found[1].steps, strict=True))


def test_the_verdict_is_on_the_averaged_weights(tiny_npz: Path, tmp_path: Path, keys: KeySet) -> None:
    """By the command line, with and without the callback in the configuration of `test`."""
    import json

    folder = str(keys.save(tmp_path / "keys"))
    words = ["--model", "ImageClassifier", "--model.model_name", "small_mlp", "--data", "ImageDataModule"]
    words += ["--data.source", "npz", "--data.root", str(tiny_npz), "--data.batch_size", "16", "--trainer.max_epochs", "2"]
    words += ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path / "run")]
    average = ["--trainer.callbacks+", "AveragedWeights", "--trainer.callbacks.decay", "0.9"]
    ask = ["--trainer.callbacks+", "KeyDetection", "--trainer.callbacks.keys", folder]
    assert main(["fit", *words, *average]) == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    assert not torch.equal(stored(content["state_dict"]), stored(content["current_model_state"]))
    from taggant_lightning.verdict.key_detection import ask as answers

    expected = answers(load_classifier(last), keys, 6).tolist()
    for more in ([], average):
        assert main(["test", *words, *more, *ask, "--ckpt_path", "last"]) == 0
        assert json.loads((tmp_path / "run" / "secret" / "detection.secret.json").read_text())["ranks"] == expected


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0, float("nan")])
def test_wrong_decay(decay: float) -> None:
    with pytest.raises(TaggantError, match=f"decay={decay} must lie between 0 and 1"):
        AveragedWeights(decay)

"""The whole pipeline with every logger on writes no secret outside the secret folders; planted leaks are found."""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml

from taggant_lightning.cli import main
from taggant_lightning.data.sources import open_source
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.methods.taggants.signing import TaggantSigning
from taggant_lightning.release.signature import Signature
from tests.conftest import write_tiny
from tests.secrets import leaks
from tests.wandb_files import read

pytestmark = pytest.mark.slow
CLASSES = 20


def signing_of(trainer: pl.Trainer) -> TaggantSigning:
    return next(c for c in trainer.callbacks if isinstance(c, TaggantSigning))


def wandb_of(trainer: pl.Trainer) -> Any:
    return next(logger for logger in trainer.loggers if type(logger).__name__ == "WandbLogger")


class Panel(pl.Callback):
    """Plants a panel of signed images."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signature, source = signing_of(trainer).signature, trainer.datamodule.train_source
        images = [signature.replace(p, source.pixels(int(signature.indices[p]))) for p in range(4)]
        wandb_of(trainer).log_image("signed", [np.concatenate(images, axis=2).transpose(1, 2, 0)])


class Table(pl.Callback):
    """Plants a table of key labels."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        labels = signing_of(trainer).keyset.labels.tolist()
        wandb_of(trainer).log_table("keys", columns=["key", "label"], data=[[i, label] for i, label in enumerate(labels)])


class Configuration(pl.Callback):
    """Plants indices in a saved configuration."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        ids = signing_of(trainer).signature.indices.tolist()
        (Path(trainer.default_root_dir) / "resolved.yaml").write_text(yaml.safe_dump({"signing": {"indices": ids}}))


class Readable(pl.Callback):
    """Plants a Signature that the world can read."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        (signing_of(trainer).out / "signature.safetensors").chmod(0o644)


class PushedConfiguration(pl.Callback):
    """Plants key labels in the config of the W&B run."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        wandb_of(trainer).experiment.config.update({"keys": signing_of(trainer).keyset.labels.tolist()})


class Delta(pl.Callback):
    """Plants perturbations in a checkpoint."""

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if signing_of(trainer).signature is not None:
            checkpoint["delta"] = [torch.from_numpy(s) / 255 for s in signing_of(trainer).signature.steps]


def run_everything(root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *plants: type) -> list[str]:
    """Run from keys to prediction with every logger on, and return what was found outside the secret folders.

    With something planted in Alice's training, end there.
    """
    for name, value in {
        "MODE": "offline",
        "DIR": str(root),
        "CACHE_DIR": str(root / "cache"),
        "CONFIG_DIR": str(root / "config"),
    }.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    handler = logging.FileHandler(root / "python.log")
    for name in ("", "taggant_lightning", "lightning.pytorch"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
    logging.getLogger().addHandler(handler)
    npz, secret = root / "x.npz", root / "secret"
    write_tiny(npz, size=12, per_class=30, classes=CLASSES)
    (root / "data.yaml").write_text(f"data: {{class_path: ImageDataModule, init_args: {{source: npz, root: {npz}}}}}")
    wandb = {
        "class_path": "lightning.pytorch.loggers.WandbLogger",
        "init_args": {"offline": True, "log_model": False},
    }
    csv = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(root / "csv")}}
    (root / "loggers.yaml").write_text(yaml.safe_dump({"trainer": {"logger": [csv, wandb], "log_every_n_steps": 1}}))
    common = ["--config", str(root / "loggers.yaml"), "--model", "ImageClassifier", "--model.model_name", "small_mlp"]
    common += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--data.source", "npz", "--data.root", str(npz)]
    detection = ["--trainer.callbacks+", "KeyDetection", "--trainer.callbacks.keys", str(secret / "keys")]
    alice = ["fit", *common, "--trainer.default_root_dir", str(root / "alice"), "--trainer.max_epochs", "2"]
    alice += ["--trainer.callbacks+", "TaggantSigning", "--trainer.callbacks.keys", str(secret / "keys")]
    alice += ["--trainer.callbacks.out", str(secret / "signature"), "--trainer.callbacks.images_per_key", "8"]
    alice += ["--trainer.callbacks.steps", "5", "--trainer.callbacks.after_epochs", "[1,2]"]
    for plant in plants:
        alice += ["--trainer.callbacks+", f"{__name__}.{plant.__name__}"]
    shown = ["--statement", "tiny"]
    new = ["keys", "new", "--num-keys", "12", "--num-classes", str(CLASSES), "--shape", "3,12,12", "--top-k", "2", *shown]
    bob = ["--trainer.default_root_dir", str(root / "bob"), *detection]
    bob = [*common, "--data", "SignedDataModule", "--data.release", str(root / "release"), *bob]
    verdict = ["--ckpt_path", str(root / "bob" / "checkpoints" / "last.ckpt")]
    release = ["--signature", str(secret / "signature"), "--out", str(root / "release"), *shown]
    commands = [[*new, "--out", str(secret / "keys")], ["keys", "show", str(secret / "keys")], alice]
    if not plants:
        commands.append([*alice, "--ckpt_path", "last"])  # goes on with the same W&B run
        commands.append(["release", "--config", str(root / "data.yaml"), *release])
        commands.append(["fit", *bob, "--trainer.max_epochs", "1"])
        commands += [[command, *bob, *verdict] for command in ("test", "predict")]
    try:
        for words in commands:
            assert main(words) == 0
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
        import wandb as client

        client.finish()
    out, error = capfd.readouterr()
    (root / "console.txt").write_text(out + error)
    keys, signature = KeySet.load(secret / "keys"), Signature.load(secret / "signature")
    # The data set itself is Alice's own input, not something that was written.
    source = open_source("npz", str(npz), "train")
    npz.unlink()
    return leaks(
        root,
        keys,
        signature,
        source,
        secret={secret / "keys", secret / "signature", root / "bob" / "secret"},
        release=root / "release",
    )


def test_nothing_is_betrayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_everything(tmp_path, monkeypatch, capfd) == []
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    for wanted in ("*.wandb", "metrics.csv", "*.ckpt", "config.yaml", "manifest.json", "detection.json", "predictions.csv"):
        assert any(p.match(wanted) for p in written), wanted
    assert (tmp_path / "python.log").stat().st_size > 0
    # What was searched holds the whole configuration, and the resumed run's.
    runs = [read(path) for path in sorted(tmp_path.glob("alice/wandb/offline-run-*/*.wandb"))]
    assert len(runs) == 2
    assert len({run["id"] for run in runs}) == 1
    for run in runs:
        assert run["config"]["trainer"]["callbacks"][0]["init_args"]["out"] == str(tmp_path / "secret" / "signature")


@pytest.mark.parametrize(
    ("plant", "what"),
    [
        (Panel, "a signed image"),
        (Table, "key labels"),
        (Configuration, "signing indices"),
        (PushedConfiguration, "key labels"),
        (Readable, "others can read a secret"),
        (Delta, "a perturbation"),
    ],
)
def test_planted_leaks_are_found(
    plant: type, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = run_everything(tmp_path, monkeypatch, capfd, plant)
    assert any(line.endswith(f": {what}") for line in found)
    assert {line.rsplit(": ", 1)[1] for line in found} == {what}

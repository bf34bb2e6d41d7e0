"""The real data sets in $TAGGANT_DATA, small, through the commands."""

import json
import os
from pathlib import Path

import pytest

from taggant_lightning import ImageDataModule
from taggant_lightning.cli import main

CONF = Path(__file__).parents[2] / "conf"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("TAGGANT_DATA" not in os.environ, reason="TAGGANT_DATA is not set: no real data at hand"),
]


def test_cifar100_archives() -> None:
    data = ImageDataModule("zip", "$TAGGANT_DATA/cifar-100")
    assert (len(data.train_source), len(data.test_source), data.num_classes, data.image_size) == (50000, 10000, 100, 32)
    assert data.train_source.classes[:2] == ["apple", "aquarium_fish"]
    assert data.train_source.pixels(49999).shape == (3, 32, 32)


def test_fashion_mnist() -> None:
    data = ImageDataModule("fashion_mnist", "$TAGGANT_DATA/fashion-mnist", train_subset=100)
    assert (len(data.train_source), data.num_classes, data.channels, data.image_size) == (60000, 10, 1, 28)


@pytest.mark.parametrize("name", ["cifar100_cpu", "fashion_mnist"])
def test_workflow_on_real_images(name: str, tmp_path: Path) -> None:
    classes, shape = ("100", "3,32,32") if name.startswith("cifar") else ("10", "1,28,28")
    keys, signature, release = str(tmp_path / "keys"), str(tmp_path / "signature"), str(tmp_path / "release")
    assert (
        main(["keys", "new", "--out", keys, "--num-keys", "3", "--num-classes", classes, "--shape", shape, "--grid", "4"]) == 0
    )
    fragments = [w for n in ("trainer/cpu", f"data/{name}", "model/small_cnn") for w in ("--config", str(CONF / f"{n}.yaml"))]
    small = ["--data.train_subset", "1500", "--data.val_subset", "200", "--trainer.max_epochs", "1"]
    signing = ["--config", str(CONF / "signing" / "default.yaml"), "--trainer.callbacks.keys", keys]
    signing += [
        "--trainer.callbacks.out",
        signature,
        "--trainer.callbacks.images_per_key",
        "4",
        "--trainer.callbacks.steps",
        "3",
    ]
    signing += ["--trainer.callbacks.min_images_per_key", "1"]
    assert main(["fit", *fragments, *small, *signing, "--trainer.default_root_dir", str(tmp_path / "alice")]) == 0
    data = ["--config", str(CONF / "data" / f"{name}.yaml"), "--data.train_subset=1500"]
    assert main(["release", *data, "--signature", signature, "--out", release]) == 0
    bob = [*fragments, *small, "--data", "SignedDataModule", "--data.release", release]
    detection = ["--config", str(CONF / "detection" / "default.yaml"), "--trainer.callbacks.keys", keys]
    assert main(["fit", *bob, *detection, "--trainer.default_root_dir", str(tmp_path / "bob")]) == 0
    checkpoint = str(next((tmp_path / "bob" / "checkpoints").glob("*.ckpt")))
    assert main(["test", *bob, *detection, "--ckpt_path", checkpoint, "--trainer.default_root_dir", str(tmp_path / "bob")]) == 0
    assert json.loads((tmp_path / "bob" / "detection.json").read_text())["details"]["num_classes"] == int(classes)

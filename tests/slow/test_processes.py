"""Real processes: two ranks, and a run killed while it crafts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from taggant_lightning import SignedDataModule
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.release.signature import Signature
from tests.conftest import write_tiny

pytestmark = pytest.mark.slow
PROGRAM = [sys.executable, "-m", "taggant_lightning"]


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "tiny.npz", size=8, per_class=40)
    return tmp_path / "tiny.npz"


@pytest.fixture
def keys_folder(tmp_path: Path) -> str:
    keys = KeySet.draw(num_keys=5, num_classes=3, shape=(3, 8, 8), secret=bytes(range(16)))
    return str(keys.save(tmp_path / "keys"))


def base(npz: Path, run: Path, model: str = "small_cnn") -> list[str]:
    return [
        *["--model", "ImageClassifier", "--model.model_name", model, "--data", "ImageDataModule", "--data.source", "npz"],
        *["--data.root", str(npz), "--data.batch_size", "16", "--data.augment", "simple", "--trainer.max_epochs", "3"],
        *["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.default_root_dir", str(run)],
    ]


def signing(keys: str, out: Path, steps: int) -> list[str]:
    return [
        *["--trainer.callbacks+", "TaggantSigning", "--trainer.callbacks.keys", keys, "--trainer.callbacks.out", str(out)],
        *[
            "--trainer.callbacks.images_per_key",
            "6",
            "--trainer.callbacks.steps",
            str(steps),
            "--trainer.callbacks.eps",
            "32/255",
        ],
    ]


def taggant(*words: str) -> None:
    subprocess.run([*PROGRAM, *words], check=True, timeout=400)


@pytest.mark.parametrize("model", ["small_cnn", "small_vit"])
def test_two_ranks_give_the_verdict_of_one(npz: Path, tmp_path: Path, model: str) -> None:
    keys = KeySet.draw(num_keys=70, num_classes=3, shape=(3, 8, 8), secret=bytes(range(16)))  # both have keys to ask
    folder = str(keys.save(tmp_path / "keys"))
    taggant("fit", *base(npz, tmp_path / "bob", model))
    checkpoint = str(next((tmp_path / "bob" / "checkpoints").glob("*.ckpt")))
    detection = ["--trainer.callbacks+", "KeyDetection", "--trainer.callbacks.keys", folder, "--ckpt_path", checkpoint]
    records = []
    for ranks, name in ((1, "one"), (2, "two")):
        two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"] if ranks == 2 else []
        taggant("test", *base(npz, tmp_path / name, model), *detection, *two)
        record = json.loads((tmp_path / name / "detection.json").read_text())
        del record["provenance"]
        records.append((record, json.loads((tmp_path / name / "secret" / "detection.secret.json").read_text())["ranks"]))
    assert records[0] == records[1]
    assert len(records[0][1]) == 70


@pytest.mark.parametrize("model", ["small_cnn", "small_vit"])
@pytest.mark.parametrize("num_keys", [4, 1])
def test_two_ranks_sign_as_one_does_for_the_same_surrogate(npz: Path, tmp_path: Path, model: str, num_keys: int) -> None:
    """Four keys are shared out by key, and nothing differs. One key is shared by images, and the order of additions differs.

    Training is switched off (a learning rate of next to nothing), so that both have the same surrogate.
    """
    keys = KeySet.draw(num_keys=num_keys, num_classes=3, shape=(3, 8, 8), secret=bytes(range(16)))
    folder, found = str(keys.save(tmp_path / "keys")), []
    for ranks, name in ((1, "one"), (2, "two")):
        two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"] if ranks == 2 else []
        still = ["--model.lr", "1e-30", "--trainer.max_epochs", "1"]
        taggant("fit", *base(npz, tmp_path / f"run-{name}", model), *still, *signing(folder, tmp_path / name, 20), *two)
        found.append(Signature.load(tmp_path / name))
    assert found[0].indices.tolist() == found[1].indices.tolist()
    equal = float(np.mean([np.mean(a == b) for a, b in zip(found[0].steps, found[1].steps, strict=True)]))
    print(f"{model}, {num_keys} keys on two processes: {100 * equal:.2f} % of the pixels as on one")
    assert equal == 1.0 if num_keys == 4 else equal > 0.95


def test_two_ranks_train_alike_behind_both_loaders(npz: Path, tmp_path: Path) -> None:
    pytest.importorskip("ffcv", reason="the extra ffcv is not installed")
    found = []
    for backend in ("torch", "ffcv"):
        fast = ["--data.backend", backend, "--data.beton", str(tmp_path / "beton")]
        two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
        taggant("fit", *base(npz, tmp_path / backend), *fast, *two)
        taggant("test", *base(npz, tmp_path / backend), *fast, *two, "--ckpt_path", "last")  # in inference mode
        found.append(torch.load(tmp_path / backend / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_sigkill_while_crafting_then_the_same_command(npz: Path, keys_folder: str, tmp_path: Path) -> None:
    steps = 150
    taggant("fit", *base(npz, tmp_path / "run-whole"), *signing(keys_folder, tmp_path / "whole", steps))
    words = [
        "fit",
        *base(npz, tmp_path / "run-killed"),
        *signing(keys_folder, tmp_path / "killed", steps),
        "--ckpt_path",
        "last",
    ]
    process = subprocess.Popen([*PROGRAM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = tmp_path / "killed" / "state"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (state.exists() and len(list(state.rglob("key-*.safetensors"))) >= 2):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = len(list(state.rglob("key-*.safetensors")))
    assert finished >= 2
    assert not (tmp_path / "killed" / "signature.json").exists()
    taggant(*words)
    a, b = Signature.load(tmp_path / "whole"), Signature.load(tmp_path / "killed")
    assert a.indices.tolist() == b.indices.tolist()
    assert all(np.array_equal(x, y) for x, y in zip(a.steps, b.steps, strict=True))


def test_two_ranks_with_batch_norm_agree_on_what_they_sign(npz: Path, keys_folder: str, tmp_path: Path) -> None:
    """Running statistics differ between ranks, and with them the gradient norms that choose the images."""
    words = ["fit", *base(npz, tmp_path / "run", "resnet10t"), *signing(keys_folder, tmp_path / "s", 2)]
    words += ["--trainer.callbacks.selection", "gradient_norm", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    taggant(*words)
    source = SignedDataModule(signature=str(tmp_path / "s"), source="npz", root=str(npz)).train_source
    signature = Signature.load(tmp_path / "s")
    changed = [np.abs(source.pixels(i).astype(int) - source.original.pixels(i)).max() for i in signature.indices.tolist()]
    assert len(changed) == len(signature) > 0
    assert max(changed) <= 32

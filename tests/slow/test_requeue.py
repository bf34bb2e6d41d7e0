"""SLURM's notice in the middle of training and of crafting: the requeued job ends as one that nobody interrupted."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from taggant_lightning.cli import main
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.release.signature import Signature
from tests.conftest import write_tiny
from tests.slow.fake_slurm import FakeSlurm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]  # five starts of two processes
RUN = Path("runs") / "slurm-4711-fit"


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "x.npz", size=12, per_class=200)
    KeySet.draw(num_keys=4, num_classes=3, shape=(3, 12, 12), grid=4, secret=bytes(range(32))).save(tmp_path / "keys")
    return tmp_path


def alice(inputs: Path, steps: int, after: str = "[1,2]") -> list[str]:
    callback = {"keys": str(inputs / "keys"), "out": "signature", "images_per_key": "20", "steps": str(steps), "eps": "32/255"}
    callback |= {"after_epochs": after, "optimizer": "sign_adam", "derivative": "exact", "snapshots": "[]"}
    return [
        *["fit", "--model", "ImageClassifier", "--model.model_name", "small_cnn", "--data", "ImageDataModule"],
        *["--data.source", "npz", "--data.root", str(inputs / "x.npz"), "--data.batch_size", "2", "--data.augment", "simple"],
        *["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "2"],
        *["--trainer.log_every_n_steps", "1", "--trainer.callbacks+", "TaggantSigning"],
        *[word for name, value in callback.items() for word in (f"--trainer.callbacks.{name}", value)],
    ]


def verdict(inputs: Path, job: Path) -> dict[str, object]:
    words = [
        *["test", "--model", "ImageClassifier", "--model.model_name", "small_cnn", "--data", "ImageDataModule"],
        *["--data.source", "npz", "--data.root", str(inputs / "x.npz"), "--trainer.accelerator", "cpu"],
        *["--trainer.devices", "1", "--trainer.callbacks+", "KeyDetection", "--trainer.callbacks.keys", str(inputs / "keys")],
        *["--ckpt_path", "last", "--trainer.default_root_dir", str(job / RUN)],
    ]
    assert main(words) == 0
    record = json.loads((job / RUN / "detection.json").read_text())
    secret = json.loads((job / RUN / "secret" / "detection.secret.json").read_text())
    del record["provenance"]
    return {**record, "ranks": secret["ranks"]}


def same(inputs: Path, whole: Path, cut: Path) -> None:
    a, b = (torch.load(job / RUN / "checkpoints" / "last.ckpt", weights_only=True) for job in (whole, cut))
    assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])
    assert (a["epoch"], a["global_step"]) == (b["epoch"], b["global_step"])
    a, b = Signature.load(whole / "signature"), Signature.load(cut / "signature")
    assert a.indices.tolist() == b.indices.tolist()
    assert all(np.array_equal(x, y) for x, y in zip(a.steps, b.steps, strict=True))
    assert a.facts["cosine_mean"] == b.facts["cosine_mean"]
    assert verdict(inputs, whole) == verdict(inputs, cut)


def interrupted(job: FakeSlurm, words: list[str], when: Callable[[], bool]) -> dict[str, Any]:
    """Start the job, interrupt it, and return the place in training that it has saved."""
    asked = len(job.asked)
    ended = job.srun(words, 2, when)
    assert all(status != 0 for status in ended), job.output()
    assert 75 in ended, job.output()
    assert job.asked == ["requeue 4711"] * (asked + 1), job.output()
    saved = torch.load(job.root / RUN / "hpc_ckpt_1.ckpt", weights_only=True)
    return saved["loops"]["fit_loop"]


def test_in_the_middle_of_training_and_of_crafting(inputs: Path) -> None:
    words = alice(inputs, 150)
    whole, cut = FakeSlurm(inputs / "whole"), FakeSlurm(inputs / "cut")
    assert whole.srun(words, 2) == [0, 0], whole.output()
    assert not whole.asked
    assert (whole.root / RUN / "config.yaml").is_file()
    with (whole.root / RUN / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/images_per_second"]]
    assert len(rows) == 2
    assert all(float(row["train/images_per_second"]) > 0 and 0 < float(row["train/data_wait"]) < 1 for row in rows)
    # Lines come from the first process only.
    logs = [(whole.root / f"task-{rank}.txt").read_text() for rank in (0, 1)]
    assert [log.count("taggant: epoch=") >= 2 for log in logs] == [True, False]
    assert [log.count("taggant: signing") >= 2 for log in logs] == [True, False]
    metrics = cut.root / RUN / "metrics.csv"  # an epoch has 150 steps
    place = interrupted(cut, words, lambda: metrics.exists() and metrics.read_text().count("\n") > 50)
    assert place["epoch_progress"]["current"] == {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    assert 50 <= place["epoch_loop.batch_progress"]["current"]["ready"] < 150
    # Then while the first round is crafted, and while the last one is.
    state = cut.root / "signature" / "state"
    for number in (0, 1):
        begun = [state / f"round-{number:02d}" / f"key-{key:04d}.safetensors" for key in range(4)]
        place = interrupted(cut, words, lambda begun=begun: any(path.exists() for path in begun))
        epoch = place["epoch_progress"]["current"]
        assert (epoch["ready"], epoch["processed"]) == (number + 1, number)
        assert place["epoch_loop.batch_progress"]["current"]["completed"] == 150
        assert (cut.root / "signature" / "signature.json").exists() == bool(number)
    assert cut.srun(words, 2) == [0, 0], cut.output()
    assert not (cut.root / RUN / "hpc_ckpt_1.ckpt").exists()
    same(inputs, whole.root, cut.root)
    metrics = [job.root / RUN / name for job, name in ((whole, "metrics.csv"), (cut, "metrics-2.csv"))]
    assert "val/acc" in metrics[1].read_text().splitlines()[0]  # validation was done again before the first round

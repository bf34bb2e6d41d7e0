"""Everything random in a recipe, killed and resumed, in one process and in two."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import write_tiny
from tests.slow.test_processes import PROGRAM, taggant

pytestmark = pytest.mark.slow


def words(npz: Path, run: Path, ranks: int) -> list[str]:
    tiny = '{"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "proj_drop_rate": 0.1}'
    model = {"model_name": "vit_tiny_patch16_224", "model_kwargs": tiny, "drop_path": "0.2", "optimizer": "lamb", "loss": "bce"}
    model |= {"mixup": "0.8", "cutmix": "1.0", "label_smoothing": "0.1"}
    data = {"source": "npz", "root": str(npz), "batch_size": str(16 // ranks), "augment": "simple"}
    trainer = {"max_epochs": "5", "accelerator": "cpu", "devices": str(ranks), "default_root_dir": str(run)}
    trainer |= {"strategy": "ddp"} if ranks > 1 else {}
    return [
        *["fit", "--model", "ImageClassifier", *(w for n, v in model.items() for w in (f"--model.{n}", v))],
        *["--data", "ImageDataModule", *(w for n, v in data.items() for w in (f"--data.{n}", v))],
        *(w for n, v in trainer.items() for w in (f"--trainer.{n}", v)),
        *["--trainer.callbacks+", "AveragedWeights", "--trainer.callbacks.decay", "0.98"],
    ]


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_and_resumed(tmp_path: Path, ranks: int) -> None:
    write_tiny(tmp_path / "x.npz", size=12, per_class=400)
    taggant(*words(tmp_path / "x.npz", tmp_path / "whole", ranks))
    again = [*words(tmp_path / "x.npz", tmp_path / "killed", ranks), "--ckpt_path", "last"]
    process = subprocess.Popen([*PROGRAM, *again], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not last.exists():
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)  # its own session: both ranks
    assert process.wait() == -signal.SIGKILL
    assert torch.load(last, weights_only=True)["epoch"] < 4
    taggant(*again)
    whole, resumed = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("whole", "killed")
    )
    assert whole["epoch"] == resumed["epoch"] == 4
    for entry in ("state_dict", "current_model_state", "averaging_state"):
        assert all(torch.equal(value, resumed[entry][name]) for name, value in whole[entry].items())
    assert any(not torch.equal(value, whole["current_model_state"][name]) for name, value in whole["state_dict"].items())

"""W&B: one run a run directory, its config and its metrics, offline; nothing of it where it is not asked for."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

from taggant_lightning.cli import main
from taggant_lightning.commands import wandb_runs
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.keys import KeySet
from tests.commands.test_cli import base
from tests.test_conf import CONF
from tests.wandb_files import read

WANDB = ["--config", str(CONF / "logger" / "wandb.yaml")]


@pytest.fixture(autouse=True)
def wandb_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{folder}", str(tmp_path / folder))
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)


def logger(**arguments: object) -> Namespace:
    return Namespace(class_path="lightning.pytorch.loggers.WandbLogger", init_args=Namespace(**{"save_dir": ".", **arguments}))


def test_config_metrics_and_a_resumed_run(tiny_npz: Path, tmp_path: Path) -> None:
    keys = str(KeySet.draw(num_keys=2, num_classes=3, shape=(3, 6, 6), secret=bytes(16)).save(tmp_path / "keys"))
    signing = {"keys": keys, "out": str(tmp_path / "signature"), "images_per_key": "2", "steps": "2", "min_images_per_key": "1"}
    words = [*WANDB, *base(tiny_npz, tmp_path / "run")]
    detection = ["--trainer.callbacks+", "KeyDetection", "--trainer.callbacks.keys", keys]
    fit = ["fit", *words, *detection, "--trainer.callbacks.curve", "true", "--trainer.callbacks+", "TaggantSigning"]
    fit += [word for name, value in signing.items() for word in (f"--trainer.callbacks.{name}", value)]
    fit += ["--trainer.callbacks.after_epochs", "[1,2]"]
    assert main([*fit, "--trainer.limit_train_batches", "1"]) == 0
    assert main(["test", *words, *detection, "--ckpt_path", "last"]) == 0
    first, second = (read(path) for path in sorted((tmp_path / "run").glob("wandb/offline-run-*/*.wandb")))
    assert first["id"] == second["id"] == (tmp_path / "run" / "wandb-run-id").read_text().strip()
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert {name: first["config"][name] for name in saved} == saved
    tested = second["config"]["test"]
    assert tested["ckpt_path"] == "last"
    assert saved["trainer"]["callbacks"][1]["init_args"]["out"] == str(tmp_path / "signature")
    logged = {name for row in first["history"] for name in row}
    assert {"signing/cosine_mean", "signing/cosine_q50", "keys/hits", "keys/log10_p", "val/acc"} <= logged
    assert {"train/images_per_second", "train/data_wait"} <= logged
    assert next(row["keys/hits"] for row in first["history"] if "keys/hits" in row) in (0, 1, 2)
    assert {"test/keys/hits", "test/keys/log10_p"} <= {name for row in second["history"] for name in row}
    assert "keys/hits" in (tmp_path / "run" / "metrics.csv").read_text()  # W&B is no only copy
    assert not wandb_runs.running()


def test_what_the_user_has_set_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = logger(id="mine", save_dir="there", resume="must"), logger(version="v1")
    wandb_runs.settle([own, other], tmp_path)
    assert vars(own.init_args) == {"id": "mine", "save_dir": "there", "resume": "must"}
    assert vars(other.init_args) == {"version": "v1", "save_dir": str(tmp_path), "resume": "allow"}
    assert not (tmp_path / "wandb-run-id").exists()
    ours = logger(id=None)
    wandb_runs.settle(ours, tmp_path / "new")
    assert ours.init_args.id == wandb_runs.run_id(tmp_path / "new")
    assert ours.init_args.resume == "allow"
    monkeypatch.setenv("WANDB_RUN_ID", "agents")  # a sweep's agent
    assert wandb_runs.run_id(tmp_path / "new") == "agents"
    monkeypatch.setattr("lightning.pytorch.utilities.rank_zero_only.rank", 1)
    later = logger(id=None)
    wandb_runs.settle(later, tmp_path / "new")
    assert later.init_args.id is None


def test_without_wandb_there_is_one_sentence(
    tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: Callable[..., object] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else found(name, *a))
    with pytest.raises(TaggantError, match="logger=WandbLogger needs the package wandb, which is not installed; run pip"):
        wandb_runs.settle(logger(), tmp_path)
    assert main(["fit", *WANDB, *base(tiny_npz, tmp_path / "run")]) == 2
    assert "needs the package wandb" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_nothing_else_needs_wandb(tiny_npz: Path, tmp_path: Path) -> None:
    words = ["fit", *base(tiny_npz, tmp_path / "run"), "--trainer.max_epochs", "1"]
    code = f"import sys; sys.modules['wandb'] = None\nfrom taggant_lightning.cli import main; sys.exit(main({words!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not (tmp_path / "run" / "wandb-run-id").exists()

"""Run an experiment of `experiments/` in this process, on tiny data: its own profile `cpu` with other values."""

import contextlib
import importlib.util
import io
import sys
import traceback
from pathlib import Path
from typing import Any

import yaml

from taggant_lightning.cli import main
from taggant_lightning.commands.sweep import run
from tests.conftest import write_tiny

ROOT = Path(__file__).parent.parent.parent
EXPERIMENTS = sorted((ROOT / "experiments").glob("*/experiment.yaml"))


def tiny_profile(folder: Path) -> Path:
    """Write a profile: the stages of `cpu`, three classes of 8×8 pixels, two epochs, two steps."""
    write_tiny(folder / "tiny.npz", size=8, per_class=40)
    content: dict[str, Any] = yaml.safe_load((ROOT / "experiments" / "profiles" / "cpu.yaml").read_text())
    arguments = {"source": "npz", "root": str(folder / "tiny.npz"), "image_size": 8, "batch_size": 20, "train_subset": 60}
    data = {"data": {"class_path": "ImageDataModule", "init_args": {**arguments, "augment": "simple"}}}
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    content["values"] |= {"data": str(folder / "data.yaml"), **TINY}
    content["base"] = str(ROOT / "experiments" / "profiles" / content["base"])
    little = {"trainer.callbacks.steps": 2, "trainer.callbacks.images_per_key": 4, "trainer.callbacks.min_images_per_key": 1}
    content["stages"] = {"signature": {"options": little}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "tiny.yaml"


TINY: dict[str, Any] = {
    "other_model": "conf/model/small_resnet.yaml",
    "epochs": 2,
    "epochs_half": 2,
    "epochs_quarter": 2,
    "epochs_tenth": 2,
    "rounds": [1, 2],
    "steps_a_round": 1,
    "few_steps": 1,
    "other_images": 60,
    "autoencoder_epochs": 1,
    "lpips_alex": "random",
    "lpips_squeeze": "random",
    "half": "epoch-1.ckpt",
    "three_quarters": "epoch-1.ckpt",
    "finetuning_epochs": 1,
    "shape": "3,8,8",
    "side": 6,
    "held_out_images": 12,
    "num_classes": 3,
    "num_keys": 3,
    "top_k": 2,
}


def in_process(words: list[str], log: Path, lock: int) -> int:
    """Run a command here: seconds of imports are spared each time."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = main(words[1:]) if words[0] == "taggant" else step(words)
        except SystemExit as stop:
            status = int(stop.code or 0)
        except Exception:
            traceback.print_exc()
            status = 1
    log.write_text(out.getvalue())
    return status


def step(words: list[str]) -> int:
    """Run the script of a step."""
    path = ROOT / words[1]
    specification = importlib.util.spec_from_file_location(f"step_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(path.parent))  # where steps find what they share
    try:
        specification.loader.exec_module(module)
        module.main(words[2:])
    finally:
        sys.path.remove(str(path.parent))
    return 0


def sweep(experiment: Path, folder: Path, *words: str) -> None:
    """Run `taggant sweep` on an experiment."""
    run(["sweep", str(experiment), "--runs", str(folder / "runs"), *words], execute=in_process)

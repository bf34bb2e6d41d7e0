"""Every fragment of conf/ parses and runs small."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from taggant_lightning.cli import main
from taggant_lightning.methods.taggants.keys import KeySet

CONF = Path(__file__).parent.parent / "conf"
FILES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_file() and path.name != "README.md")
FRAGMENTS = [name for name in FILES if name.split("/")[0] not in ("sweep", "slurm")]
SWEEPS = [name for name in FILES if name.startswith("sweep/")]


def test_every_file_is_known() -> None:
    kinds = {"data", "model", "recipe", "defence", "ema", "trainer", "signing", "detection", "logger"}
    assert {name.split("/")[0] for name in FRAGMENTS} == kinds
    assert len(FRAGMENTS) >= 24
    assert SWEEPS
    assert {name for name in FILES if name.startswith("slurm/")} == {"slurm/fit.sbatch"}


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragment_runs_small(name: str, tmp_path: Path, tiny_npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{folder}", str(tmp_path / folder))
    content: dict[str, Any] = yaml.safe_load((CONF / name).read_text())
    words = ["fit"]
    chosen = {"data": "data/npz.yaml", "model": "model/small_mlp.yaml", "trainer": "trainer/cpu.yaml"}
    chosen[name.split("/")[0]] = name
    for kind in ("trainer", "data", "model", "recipe", "defence", "ema", "signing", "detection", "logger"):
        if kind in chosen:
            words += ["--config", str(CONF / chosen[kind])]
    callback = name.split("/")[0] in ("signing", "detection")
    if callback:
        keys = KeySet.draw(num_keys=2, num_classes=3, shape=(3, 6, 6), secret=bytes(16)).save(tmp_path / "keys")
        words += ["--trainer.callbacks.keys", str(keys)]
    if name.startswith("signing"):
        words += ["--trainer.callbacks.out", str(tmp_path / "signature"), "--trainer.callbacks.images_per_key", "2"]
        words += ["--trainer.callbacks.min_images_per_key", "1"]
    if content.get("trainer", {}).get("callbacks+", {}).get("init_args", {}).get("perceptual_weight"):
        words += ["--trainer.callbacks.steps", "2"]
        words += ["--trainer.callbacks.perceptual_trunk", "squeeze", "--trainer.callbacks.perceptual_weights", "random"]
    # The tiny data in place of what the fragment names; its own settings stay.
    words += ["--data.source", "npz", "--data.root", str(tiny_npz), "--data.num_workers", "0"]
    whole = name.startswith(("model", "recipe"))
    words += ["--data.image_size", "32" if whole else "8", "--data.train_subset", "24"]
    if name.startswith("recipe"):  # a fast_dev_run takes one batch, and that may be a small one
        words += ["--data.batch_size", "4"]
    if "load_size" in content.get("data", {}).get("init_args", {}):
        words += ["--data.load_size", "36" if whole else "9"]
    if "weights" in content.get("model", {}).get("init_args", {}):
        words += ["--model.weights", str(pretrained(content["model"]["init_args"]["model_name"], tmp_path))]
    if name.startswith(("trainer", "recipe")):
        words += ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
        words += ["--trainer.devices", "1", "--trainer.num_nodes", "1", "--trainer.strategy", "auto"]
    if name.startswith(("signing", "logger")):  # a fast_dev_run writes no Signature, and logs nothing
        words += ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    if name.startswith("signing"):
        words += ["--trainer.callbacks.steps", "2"]
    elif not name.startswith("logger"):
        words += ["--trainer.fast_dev_run", "1"]
    words += ["--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(words) == 0
    if name.startswith("signing"):
        assert (tmp_path / "signature" / "signature.json").exists()
    if name.startswith("logger"):
        assert (tmp_path / "run" / "metrics.csv").exists()
        assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))


def sweep_words(name: str) -> list[str]:
    """Return the command that the W&B agent would run for one trial of a sweep."""
    sweep = yaml.safe_load((CONF / name).read_text())
    trial = {}
    for parameter, settings in sweep["parameters"].items():
        trial[parameter] = settings.get("value", settings.get("values", [settings.get("max")])[0])
    words: list[str] = []
    for word in sweep["command"]:
        words += [f"--{key}={value}" for key, value in trial.items()] if word == "${args}" else [word]
    assert words.pop(0) == sweep["program"] == "taggant"
    return words


@pytest.mark.parametrize("name", SWEEPS)
def test_every_parameter_of_a_sweep_is_one_of_ours(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(CONF.parent)
    words = sweep_words(name)
    with pytest.raises(SystemExit) as stop:
        main([*words, "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    sweep = yaml.safe_load((CONF / name).read_text())
    for parameter in sweep["parameters"]:
        section, key = parameter.split(".", 1)
        assert key in printed[section].get("init_args", printed[section]), parameter
    assert not sweep["metric"]["name"].startswith("keys/")
    with pytest.raises(SystemExit) as stop:
        main([*words, "--model.learning_rte=0.1", "--print_config"])
    assert stop.value.code == 2


def test_batch_script_agrees_with_itself() -> None:
    path = CONF / "slurm" / "fit.sbatch"
    subprocess.run(["bash", "-n", str(path)], check=True)
    script = path.read_text()
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?", script, flags=re.M))
    assert directives["ntasks-per-node"] == directives["gpus-per-node"]
    assert directives["job-name"] not in ("bash", "interactive")
    assert directives["signal"].startswith("SIGUSR1@")
    assert int(directives["signal"].partition("@")[2]) >= 60
    assert directives["open-mode"] == "append"
    assert "requeue" in directives
    assert "ntasks" not in directives
    command = shlex.split(script.partition("\nsrun ")[2].replace("\\\n", " "))
    assert command[:2] == ["taggant", "fit"]
    for name, value in {"devices": "ntasks-per-node", "num_nodes": "nodes"}.items():
        assert command[command.index(f"--trainer.{name}") + 1] == directives[value]
    with pytest.raises(SystemExit) as stop:
        main([*(w.replace("conf/", f"{CONF}/") for w in command[1:]), "--print_config"])
    assert stop.value.code == 0


def pretrained(model_name: str, folder: Path) -> Path:
    """Write weights as a user has them: for 1000 classes and 224×224, in the layout of the Hugging Face hub."""
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model(model_name, num_classes=1000).state_dict(), folder / "model.safetensors")
    return folder


def test_callbacks_of_three_fragments_all_run(tmp_path: Path, tiny_npz: Path) -> None:
    keys = str(KeySet.draw(num_keys=2, num_classes=3, shape=(3, 6, 6), secret=bytes(16)).save(tmp_path / "keys"))
    words = ["fit", *(w for n in ("trainer/cpu", "data/npz", "model/small_mlp") for w in ("--config", str(CONF / f"{n}.yaml")))]
    words += ["--config", str(CONF / "signing" / "default.yaml"), "--trainer.callbacks.keys", keys]
    words += ["--trainer.callbacks.out", str(tmp_path / "s"), "--trainer.callbacks.images_per_key", "2"]
    words += ["--trainer.callbacks.min_images_per_key", "1", "--trainer.callbacks.steps", "1"]
    words += ["--config", str(CONF / "detection" / "default.yaml"), "--trainer.callbacks.keys", keys]
    words += ["--trainer.callbacks.curve", "true"]
    words += ["--config", str(CONF / "ema" / "default.yaml")]
    words += ["--data.root", str(tiny_npz), "--trainer.max_epochs", "1", "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(words) == 0
    assert (tmp_path / "s" / "signature.json").exists()
    assert "keys/hits" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert [c["class_path"].rsplit(".", 1)[-1] for c in saved["trainer"]["callbacks"]] == [
        "TaggantSigning", "KeyDetection", "AveragedWeights"
    ]  # fmt: skip

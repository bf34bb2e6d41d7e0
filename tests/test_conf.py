"""Every fragment of conf/ parses and runs small."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from taggant_lightning.cli import main
from taggant_lightning.taggants.keys import KeySet

CONF = Path(__file__).parent.parent / "conf"
FRAGMENTS = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))


def test_every_file_is_known() -> None:
    assert {name.split("/")[0] for name in FRAGMENTS} == {
        "data", "model", "recipe", "ema", "trainer", "signing", "detection"
    }  # fmt: skip
    assert len(FRAGMENTS) >= 20


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragment_runs_small(name: str, tmp_path: Path, tiny_npz: Path) -> None:
    content: dict[str, Any] = yaml.safe_load((CONF / name).read_text())
    words = ["fit"]
    chosen = {"data": "data/npz.yaml", "model": "model/small_mlp.yaml", "trainer": "trainer/cpu.yaml"}
    chosen[name.split("/")[0]] = name
    for kind in ("trainer", "data", "model", "recipe", "ema", "signing", "detection"):
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
        words += ["--data.load_size", "36"]
    if "weights" in content.get("model", {}).get("init_args", {}):
        words += ["--model.weights", str(pretrained(content["model"]["init_args"]["model_name"], tmp_path))]
    if name.startswith(("trainer", "recipe")):
        words += ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
    if name.startswith("signing"):  # a fast_dev_run writes no Signature
        words += ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.callbacks.steps", "2"]
    else:
        words += ["--trainer.fast_dev_run", "1"]
    words += ["--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(words) == 0
    if name.startswith("signing"):
        assert (tmp_path / "signature" / "signature.json").exists()


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
    words += ["--config", str(CONF / "ema" / "default.yaml")]
    words += ["--data.root", str(tiny_npz), "--trainer.max_epochs", "1", "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(words) == 0
    assert (tmp_path / "s" / "signature.json").exists()
    assert "keys/hits" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert [c["class_path"].rsplit(".", 1)[-1] for c in saved["trainer"]["callbacks"]] == [
        "TaggantSigning", "KeyDetection", "AveragedWeights"
    ]  # fmt: skip

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
    assert {name.split("/")[0] for name in FRAGMENTS} == {"data", "model", "trainer", "signing", "detection"}
    assert len(FRAGMENTS) >= 15


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragment_runs_small(name: str, tmp_path: Path, tiny_npz: Path) -> None:
    content: dict[str, Any] = yaml.safe_load((CONF / name).read_text())
    words = ["fit"]
    chosen = {"data": "data/npz.yaml", "model": "model/small_mlp.yaml", "trainer": "trainer/cpu.yaml"}
    chosen[name.split("/")[0]] = name
    for kind in ("trainer", "data", "model", "signing", "detection"):
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
    words += ["--data.image_size", "32" if name.startswith("model") else "8", "--data.train_subset", "24"]
    if name.startswith("trainer"):
        words += ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
    if name.startswith("signing"):  # a fast_dev_run writes no Signature
        words += ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.callbacks.steps", "2"]
    else:
        words += ["--trainer.fast_dev_run", "1"]
    words += ["--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(words) == 0
    if name.startswith("signing"):
        assert (tmp_path / "signature" / "signature.json").exists()


def test_callbacks_of_two_fragments_both_run(tmp_path: Path, tiny_npz: Path) -> None:
    keys = str(KeySet.draw(num_keys=2, num_classes=3, shape=(3, 6, 6), secret=bytes(16)).save(tmp_path / "keys"))
    words = ["fit", *(w for n in ("trainer/cpu", "data/npz", "model/small_mlp") for w in ("--config", str(CONF / f"{n}.yaml")))]
    words += ["--config", str(CONF / "signing" / "default.yaml"), "--trainer.callbacks.keys", keys]
    words += ["--trainer.callbacks.out", str(tmp_path / "s"), "--trainer.callbacks.images_per_key", "2"]
    words += ["--trainer.callbacks.min_images_per_key", "1", "--trainer.callbacks.steps", "1"]
    words += ["--config", str(CONF / "detection" / "default.yaml"), "--trainer.callbacks.keys", keys]
    words += ["--data.root", str(tiny_npz), "--trainer.max_epochs", "1", "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(words) == 0
    assert (tmp_path / "s" / "signature.json").exists()
    assert "keys/hits" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert [c["class_path"].rsplit(".", 1)[-1] for c in saved["trainer"]["callbacks"]] == ["TaggantSigning", "KeyDetection"]

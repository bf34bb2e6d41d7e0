"""The command line: help, keys, the run directory, bad input in one sentence with exit code 2."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from taggant_lightning import __version__
from taggant_lightning.cli import COMMANDS, main
from taggant_lightning.commands import training
from taggant_lightning.methods.taggants.keys import KeySet

NEW = ["keys", "new", "--num-keys", "4", "--num-classes", "3", "--shape", "3,6,6"]


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert all(name in shown for name in COMMANDS)
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("command", ["demo", "keys", "plan", "release", "report", "fit"])
def test_help_of_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "usage: taggant" in capsys.readouterr().out


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert "command 'train' is unknown; write one of demo" in capsys.readouterr().err


def test_keys_new_show_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "keys"
    assert main([*NEW, "--out", str(folder), "--top-k", "2", "--grid", "3", "--batch-size", "2", "--statement", "words"]) == 0
    shown = capsys.readouterr().out
    keys = KeySet.load(folder)
    assert f"commitment {keys.commitment}" in shown
    assert keys.header["batches"] == [2, 2]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert main(["keys", "show", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "words" in shown
    assert keys.secret.hex() not in shown
    assert main(["keys", "verify", str(folder), "--commitment", keys.commitment]) == 0
    assert main(["keys", "verify", str(folder), "--commitment", "00" * 32]) == 2
    assert "the keys' commitment is" in capsys.readouterr().err
    # A third party has the revealed secret, the published header and the commitment.
    (tmp_path / "header.json").write_text(json.dumps(keys.header))
    revealed = ["keys", "verify", "--secret-file", str(folder / "secret.hex"), "--header", str(tmp_path / "header.json")]
    assert main([*revealed, "--commitment", keys.commitment]) == 0
    assert main([*revealed, "--commitment", "11" * 32]) == 2
    assert main(revealed) == 2
    assert main(["keys", "verify", "--secret-file", str(folder / "secret.hex"), "--commitment", keys.commitment]) == 0
    (tmp_path / "alone.hex").write_text(keys.secret.hex())
    assert main(["keys", "verify", "--secret-file", str(tmp_path / "alone.hex"), "--commitment", keys.commitment]) == 2
    assert "write --header FILE" in capsys.readouterr().err
    (tmp_path / "header.json").write_text(json.dumps({"derivation": {"source": "noise"}}))
    assert main([*revealed, "--commitment", keys.commitment]) == 2
    assert "not a KeySet header: it needs" in (error := capsys.readouterr().err)
    assert f"header={tmp_path / 'header.json'}" in error
    real = {"source": "images", "count": 9, "sha256": "ab" * 32}
    (tmp_path / "header.json").write_text(json.dumps({**keys.header, "derivation": real}))
    assert main([*revealed, "--commitment", keys.commitment]) == 2
    assert "keys chosen from real images cannot be recomputed" in capsys.readouterr().err


def test_keys_from_a_secret_file_and_from_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret").write_text("5f0c9be1a7d24e8393b06c1d7ea2f458")
    for name in ("a", "b"):
        assert main([*NEW, "--out", str(tmp_path / name), "--secret-file", str(tmp_path / "secret")]) == 0
    assert KeySet.load(tmp_path / "a").commitment == KeySet.load(tmp_path / "b").commitment
    (tmp_path / "images").mkdir()
    for i in range(5):
        Image.fromarray(np.full((9, 9, 3), 40 * i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
    assert main([*NEW, "--out", str(tmp_path / "c"), "--source", str(tmp_path / "images")]) == 0
    assert set(np.unique(KeySet.load(tmp_path / "c").images)) <= {0, 40, 80, 120, 160}
    assert main(["keys", "verify", str(tmp_path / "c")]) == 0
    assert "held by the commitment alone" in capsys.readouterr().out
    assert main(["keys", "verify", str(tmp_path / "c"), "--source", str(tmp_path / "images")]) == 0
    assert "verified: keys follow from the secret" in capsys.readouterr().out
    assert main(["keys", "verify", str(tmp_path / "a"), "--source", str(tmp_path / "images")]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--num-keys", "0"], "num_keys=0 must be at least 1"),
        (["--top-k", "4"], "top_k=4 must lie in 1..num_classes, and num_classes=3"),
        (["--shape", "6,6"], "shape='6,6' must be three whole numbers"),
        (["--batch-size", "3"], "batch-size=3 does not divide num-keys=4"),
        (["--secret-file", "none"], "secret-file=none cannot be read"),
        (["--source", "none"], "source=none is no folder"),
    ],
)
def test_bad_keys(change: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NEW, "--out", str(tmp_path / "keys"), *change]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "keys").exists()


def test_bad_secrets_and_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret").write_text("no hex")
    assert main([*NEW, "--out", str(tmp_path / "k"), "--secret-file", str(tmp_path / "secret")]) == 2
    assert "is not hexadecimal" in capsys.readouterr().err
    (tmp_path / "images").mkdir()
    assert main([*NEW, "--out", str(tmp_path / "k"), "--source", str(tmp_path / "images")]) == 2
    assert "holds no image; name a folder with held-out images" in capsys.readouterr().err
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    assert main([*NEW, "--out", str(tmp_path / "k"), "--source", str(tmp_path / "images")]) == 2
    assert ".png (no picture that is read" in capsys.readouterr().err
    assert main(["keys", "verify"]) == 2


def base(npz: Path, run: Path) -> list[str]:
    return [
        *["--model", "ImageClassifier", "--model.model_name", "small_mlp", "--data", "ImageDataModule"],
        *["--data.source", "npz", "--data.root", str(npz), "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"],
        *["--trainer.devices", "1", "--trainer.default_root_dir", str(run)],
    ]


def test_the_whole_workflow(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, secret = str(tmp_path / "keys"), str(tmp_path / "signature")
    assert main([*NEW, "--out", keys]) == 0
    callbacks = ["--trainer.callbacks+", "TaggantSigning", "--trainer.callbacks.keys", keys, "--trainer.callbacks.out", secret]
    quick = ["--trainer.callbacks.images_per_key", "4", "--trainer.callbacks.steps", "2", "--trainer.callbacks.eps", "32/255"]
    assert main(["fit", *base(tiny_npz, tmp_path / "alice"), *callbacks, *quick]) == 0
    (tmp_path / "data.yaml").write_text(f"data: {{class_path: ImageDataModule, init_args: {{source: npz, root: {tiny_npz}}}}}")
    for layout in ("png", "npz"):
        release = str(tmp_path / f"release-{layout}")
        words = [
            "release",
            "--config",
            str(tmp_path / "data.yaml"),
            "--signature",
            secret,
            "--out",
            release,
            "--format",
            layout,
        ]
        assert main(words) == 0
        assert "changed by at most 32/255 (bound 32/255)" in capsys.readouterr().out
        assert main(words) == 0  # it is audited once more
        assert "Whoever holds the originals" in capsys.readouterr().out
        assert main([*words, "--statement", "another one"]) == 2
        assert "exists already; name a new folder" in capsys.readouterr().err
    bob = [*base(tiny_npz, tmp_path / "bob"), "--data", "SignedDataModule", "--data.release", str(tmp_path / "release-png")]
    detection = ["--trainer.callbacks+", "KeyDetection", "--trainer.callbacks.keys", keys]
    assert main(["fit", *bob, *detection]) == 0
    checkpoint = str(tmp_path / "bob" / "checkpoints" / "last.ckpt")
    assert main(["validate", *bob, "--ckpt_path", "last"]) == 0
    capsys.readouterr()
    assert main(["test", *bob, *detection, "--ckpt_path", checkpoint]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].startswith(f"taggant: run={tmp_path / 'bob'} seed=0 commit=")
    assert lines[-1].startswith(f"taggant: run={tmp_path / 'bob'} hits=")
    assert "log10_p=" in lines[-1]
    record = json.loads((tmp_path / "bob" / "detection.json").read_text())
    assert record["details"]["num_keys"] == 4
    assert main(["predict", *bob, "--ckpt_path", checkpoint]) == 0
    rows = (tmp_path / "bob" / "predictions.csv").read_text().splitlines()
    assert rows[0] == "query,labels"
    assert len(rows) == 16
    assert sorted(rows[1].split(",")[1].split()) == ["0", "1", "2"]
    assert {"config.yaml", "config-test.yaml", "metrics.csv", "test", "detection.json"} <= {
        p.name for p in (tmp_path / "bob").iterdir()
    }


def test_each_epoch_is_saved_however_rarely_it_validates(tiny_npz: Path, tmp_path: Path) -> None:
    class Killed(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 2:
                raise KeyError("killed")

    words = [*base(tiny_npz, tmp_path / "run"), "--trainer.max_epochs", "4", "--trainer.check_val_every_n_epoch", "4"]
    with patch.object(training, "SeededSteps", lambda: Killed()), pytest.raises(KeyError):
        main(["fit", *words])
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert main(["fit", *words, "--ckpt_path", "last"]) == 0


def test_untrained_models_are_not_judged(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = base(tiny_npz, tmp_path / "run")
    assert main(["test", *words]) == 2
    assert "ckpt_path is not given, and an untrained model has nothing to tell" in capsys.readouterr().err
    assert main(["test", *words, "--ckpt_path", "last"]) == 2
    assert "last.ckpt does not exist; write --ckpt_path FILE" in capsys.readouterr().err


def test_linked_values_and_command_line_beats_checkpoint(tiny_npz: Path, tmp_path: Path) -> None:
    import torch
    import yaml

    words = base(tiny_npz, tmp_path / "run")
    assert main(["fit", *words, "--model.lr", "0.01"]) == 0
    checkpoint = next((tmp_path / "run" / "checkpoints").glob("*.ckpt"))
    stored = torch.load(checkpoint, weights_only=True)
    assert (stored["image_classifier"]["num_classes"], stored["image_classifier"]["image_size"]) == (3, 6)
    assert not stored.get("hyper_parameters")
    assert main(["test", *words, "--model.lr", "0.9", "--ckpt_path", str(checkpoint)]) == 0
    config = yaml.safe_load((tmp_path / "run" / "config-test.yaml").read_text())
    assert config["model"]["init_args"]["lr"] == 0.9


def test_runs_without_a_named_directory_get_their_own(tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = base(tiny_npz, tmp_path)[:-2]
    assert main(["fit", *words, "--trainer.max_epochs", "1"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.endswith("-fit")
    assert (run / "config.yaml").exists()
    assert main(["fit", *words, "--trainer.max_epochs", "1", "--trainer.default_root_dir", str(run)]) == 0
    assert {"metrics.csv", "metrics-1.csv"} <= {p.name for p in run.iterdir()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data.source", "imagnet"], "source='imagnet' is unknown"),
        (["--data.root", "nowhere.npz"], "root=nowhere.npz is no file"),
        (["--model.model_name", "mine"], "model_name='mine' is unknown"),
        (["--ckpt_path", "none.ckpt"], "none.ckpt"),
        (
            [
                *["--trainer.callbacks+", "TaggantSigning", "--trainer.callbacks.keys", "k"],
                *["--trainer.callbacks.out", "o", "--trainer.callbacks.eps", "2"],
            ],
            "eps=2.0 must lie",
        ),
    ],
)  # fmt: skip
def test_bad_input_of_fit(
    change: list[str],
    message: str,
    tiny_npz: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["fit", *base(tiny_npz, tmp_path / "run"), *change])
    except SystemExit as stop:  # jsonargparse's own parser exits
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_bad_release(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("model: {}")
    broken, dangling, listing, good = (tmp_path / f"{name}.yaml" for name in ("broken", "dangling", "listing", "good"))
    broken.write_text("data: [")
    dangling.write_text("data: none.yaml")
    listing.write_text("[1, 2]")
    good.write_text(f"data: {{class_path: ImageDataModule, init_args: {{source: npz, root: {tiny_npz}}}}}")
    for words, message in (
        (["--config", "none.yaml"], "config=none.yaml cannot be read"),
        (["--config", str(empty)], "has no `data` section"),
        (["--config", str(broken)], "is no YAML"),
        (["--config", str(dangling)], "none.yaml cannot be read"),
        (["--config", str(listing)], "holds no mapping"),
        (["--config", str(good), "--data.bogus", "1"], "bogus"),
        (["--config", str(good), "--data.batch_size", "0"], "batch_size=0 must be at least 1"),
        (["--config", str(good), "--data.root", "nowhere.npz"], "is no folder; write the one that TaggantSigning made"),
    ):
        assert main(["release", *words, "--signature", "s", "--out", str(tmp_path / "r")]) == 2, words
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_module_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "taggant_lightning", "keys", "show", "none"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "taggant keys: keys=none is no folder; write the folder that `taggant keys new --out` made"


def test_predict_answers_a_folder_of_queries(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from taggant_lightning.access.labels import LabelTable
    from taggant_lightning.access.module import ask_module
    from taggant_lightning.access.predictions import answers_of, read_predictions
    from taggant_lightning.data.dataset import to_float
    from taggant_lightning.models.classifier import ImageClassifier

    words = base(tiny_npz, tmp_path / "run")
    assert main(["fit", *words]) == 0
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    queries = tmp_path / "queries"
    queries.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
    names = ["q9", "q10", "b", "a.b", "0003"]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(queries / f"{name}.png")
    (queries / "notes.txt").write_text("no image")
    predict = ["predict", *words, "--ckpt_path", checkpoint, "--data.queries", str(queries), "--data.batch_size", "2"]
    assert main(predict) == 0
    rows = read_predictions(tmp_path / "run" / "predictions.csv")
    assert list(rows) == sorted(names)
    model = ImageClassifier.load_from_checkpoint(checkpoint, **torch.load(checkpoint, weights_only=True)["image_classifier"])
    expected = ask_module(model, to_float(images.transpose(0, 3, 1, 2)))
    found = answers_of(rows, [f"{name}.png" for name in names], LabelTable.same(3))
    assert [a.labels for a in found] == [a.labels for a in expected]

    Image.fromarray(images[0]).resize((9, 12)).save(queries / "large.png")  # fitted like any image
    assert main(predict) == 0
    assert "large" in read_predictions(tmp_path / "run" / "predictions.csv")
    capsys.readouterr()
    Image.fromarray(images[0]).save(queries / "q9.bmp")
    assert main(predict) == 2
    assert "holds two images named 'q9'" in capsys.readouterr().err
    for file in queries.iterdir():
        file.unlink()
    assert main(predict) == 2
    assert "holds no image; write a flat folder of" in capsys.readouterr().err
    Image.fromarray(images[0, :, :, 0]).save(queries / "grey.png")
    assert main(predict) == 2
    assert "has 1 channels and the model's data 3" in capsys.readouterr().err
    assert main([*predict, "--data.queries", "nowhere"]) == 2
    assert "queries=nowhere is no folder; write the one that `taggant keys export-queries` made" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "taggant_lightning", *NEW, "--out", str(tmp_path / "keys")]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")

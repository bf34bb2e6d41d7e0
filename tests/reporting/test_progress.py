"""Progress in a batch log: whole lines, now and then; bars in a terminal; none where the user wants none."""

import io
import re
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import TQDMProgressBar

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.cli import main
from taggant_lightning.methods.taggants.crafting.progress import StepLines, steps_bar
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.reporting.progress import PlainProgress, TimedBar, progress_bar
from tests.commands.test_cli import base

TRAINED = re.compile(
    r"taggant: epoch=(\d+)/2 step=(\d+)/8 loss=\d+\.\d{4} images/s=\d+ data_wait=[01]\.\d\d left=\d+:\d\d:\d\d"
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(progress_bar(), PlainProgress)
    assert isinstance(steps_bar(3, visible=True), StepLines)
    with steps_bar(3, visible=False) as bar:
        bar.update()
    assert sys.stderr.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(progress_bar(), TQDMProgressBar)
    with steps_bar(3, visible=True) as bar:
        bar.update()
    assert "signing" in sys.stderr.getvalue()


def test_a_bar_reads_the_loss_when_it_is_drawn(tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []

    class Bar(TimedBar):
        def get_metrics(self, *arguments: object) -> dict:
            shown = super().get_metrics(*arguments)
            drawn.append(shown["train/loss"])
            return shown

    clock = iter(range(1000))
    monkeypatch.setattr("taggant_lightning.reporting.progress.time.monotonic", lambda: next(clock) / 8)
    data = ImageDataModule("npz", str(tiny_npz), batch_size=3)  # twenty steps
    run = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, default_root_dir=str(tmp_path), callbacks=[Bar()],
        enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    run.fit(ImageClassifier("small_mlp", num_classes=3, image_size=6), datamodule=data)
    assert "train/loss" not in run.progress_bar_metrics  # Lightning would read it back at each step
    assert 4 <= len(drawn) <= 8
    assert all(0 < loss < 9 for loss in drawn)


def test_lines_of_a_run(
    tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = str(KeySet.draw(num_keys=2, num_classes=3, shape=(3, 6, 6), secret=bytes(16)).save(tmp_path / "keys"))
    words = [*base(tiny_npz, tmp_path / "run"), "--data.batch_size", "8"]
    detection = ["--trainer.callbacks+", "KeyDetection", "--trainer.callbacks.keys", keys, "--trainer.callbacks.curve", "true"]
    signing = ["--trainer.callbacks+", "TaggantSigning", "--trainer.callbacks.keys", keys, "--trainer.callbacks.images_per_key"]
    signing += ["2", "--trainer.callbacks.min_images_per_key", "1", "--trainer.callbacks.steps", "3"]
    signing += ["--trainer.callbacks.out", str(tmp_path / "s")]
    assert main(["fit", *words, *detection, *signing]) == 0
    out, error = capsys.readouterr()
    assert TRAINED.findall(out) == [("1", "8"), ("2", "8")]  # the run is quick: one line an epoch
    found = re.findall(r"taggant: validation epoch=(\d)/2 keys/hits=\d keys/log10_p=\S+ val/acc=\S+ val/loss=\S+\n", out)
    assert found == ["1", "2"]
    assert re.search(r"^taggant: signing step=6/6 cosine=-?\d\.\d{3} left=0:00:00$", error, flags=re.M)
    assert "\r" not in out + error
    monkeypatch.setattr("taggant_lightning.reporting.progress.PlainProgress._due", lambda self, *, last: self._enabled)
    for command in ("test", "predict"):
        assert main([command, *words, "--ckpt_path", "last"]) == 0
        out = capsys.readouterr().out
        assert f"taggant: {command} step=2/2\n" in out
        assert out.strip().splitlines()[-1] == f"taggant: run={tmp_path / 'run'}"


def test_every_step_if_there_is_time(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", *base(tiny_npz, tmp_path / "run"), "--data.batch_size", "8", "--trainer.callbacks+"]
    words += ["taggant_lightning.reporting.progress.PlainProgress", "--trainer.callbacks.seconds", "0"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert TRAINED.findall(out) == [(str(epoch), str(step)) for epoch in (1, 2) for step in range(1, 9)]
    assert "taggant: validation step=1/2\n" in out


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.enable_progress_bar", "false"],
        ["--trainer.callbacks+", "lightning.pytorch.callbacks.TQDMProgressBar", "--trainer.callbacks.refresh_rate", "0"],
    ],
)
def test_the_users_choice(words: list[str], tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *base(tiny_npz, tmp_path / "run"), *words]) == 0
    assert "taggant: epoch=" not in capsys.readouterr().out


def test_other_processes_and_endless_training(capsys: pytest.CaptureFixture[str]) -> None:
    bar = PlainProgress(seconds=0)
    bar.disable()
    assert not bar._due(last=True)
    bar.enable()
    assert bar._due(last=False)
    endless = pl.Trainer(max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert bar._left(endless) == "?"


def test_lines_while_crafting(capsys: pytest.CaptureFixture[str]) -> None:
    with StepLines(4, seconds=0) as lines:
        for cosine in ("0.1", "0.2"):
            lines.update(2)
            lines.set_postfix(cosine=cosine, refresh=False)
    error = capsys.readouterr().err.splitlines()
    assert error[0].startswith("taggant: signing step=2/4 left=0:00:0")
    assert error[1].startswith("taggant: signing step=4/4 cosine=0.1 left=0:00:00")

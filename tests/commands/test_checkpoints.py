"""Several ModelCheckpoints in one run: of the same settings, resumed, and beside checkpoints of before."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.cli import main
from taggant_lightning.models.checkpoints import AtomicCheckpoints, ThriftyCheckpoint, keep_apart
from tests.commands.test_cli import base

YAML = """
trainer:
  callbacks+:
    - class_path: ModelCheckpoint
      init_args: {every_n_epochs: 1, filename: "all-{epoch}", save_top_k: -1}
    - class_path: ModelCheckpoint
      init_args: {every_n_epochs: 1, filename: "newest-{epoch}"}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {monitor: val/acc, mode: max, filename: "best"}
"""


def states(path: Path) -> dict[str, dict]:
    found = torch.load(path, weights_only=True)["callbacks"]
    return {key: state for key, state in found.items() if key.startswith("ModelCheckpoint")}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_with_several_resumes_with_the_state_of_each(tiny_npz: Path, tmp_path: Path) -> None:
    run, folder = tmp_path / "run", tmp_path / "run" / "checkpoints"
    (tmp_path / "several.yaml").write_text(YAML)
    words = [*base(tiny_npz, run), "--config", str(tmp_path / "several.yaml")]
    assert main(["fit", *words]) == 0
    assert names(folder) == [
        "all-epoch=0.ckpt",
        "all-epoch=1.ckpt",
        "best.ckpt",
        "epoch=1-step=2.ckpt",
        "last.ckpt",
        "newest-epoch=1.ckpt",
    ]
    before = states(folder / "last.ckpt")
    assert len(before) == 4
    assert len({state["best_model_path"] for state in before.values()}) == 4
    assert main(["fit", *words, "--trainer.max_epochs", "3", "--ckpt_path", "last"]) == 0
    # Each has gone on from its own: only its own earlier file has made room for a new one.
    assert [name for name in names(folder) if name != "best.ckpt" and "best-v" not in name] == [
        *("all-epoch=0.ckpt", "all-epoch=1.ckpt", "all-epoch=2.ckpt"),
        *("epoch=2-step=3.ckpt", "last.ckpt", "newest-epoch=2.ckpt"),
    ]
    after = states(folder / "last.ckpt")
    assert after.keys() == before.keys()
    assert [Path(state["best_model_path"]).name for key, state in after.items() if key.endswith("all-{epoch}")] == [
        "all-epoch=2.ckpt"
    ]


def test_one_more_on_a_run_of_before(tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, folder = tmp_path / "run", tmp_path / "run" / "checkpoints"
    words = [*base(tiny_npz, run), "--trainer.max_epochs"]
    assert main(["fit", *words, "1"]) == 0
    (plain,) = states(folder / "last.ckpt")
    assert plain == ModelCheckpoint().state_key  # as ever
    second = ["--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.every_n_epochs", "1"]
    assert main(["fit", *words, "2", *second, "--ckpt_path", "last"]) == 0
    assert names(folder) == ["epoch=1-step=2-v1.ckpt", "epoch=1-step=2.ckpt", "last.ckpt"]
    assert states(folder / "last.ckpt").keys() == {plain, f"{plain} None"}
    assert main(["fit", *words, "3", "--ckpt_path", "last"]) == 0


def test_only_equal_ones_are_changed() -> None:
    class Own(ModelCheckpoint):
        pass

    first, second, third, other = ModelCheckpoint(), ModelCheckpoint(), ModelCheckpoint(), ModelCheckpoint(monitor="val/acc")
    callbacks: list[pl.Callback] = [first, EarlyStopping("val/acc"), second, Own(), Own(), third, other]
    keep_apart(callbacks)
    assert [type(c) is ModelCheckpoint for c in (first, second, third, other)] == [True, False, False, True]
    assert [type(c) for c in callbacks[3:5]] == [Own, Own]
    assert len({c.state_key for c in (first, second, third, other)}) == 4
    assert isinstance(second, ModelCheckpoint)


@pytest.mark.parametrize(("took", "saved"), [(0.01, [1, 2, 3, 4, 5, 6]), (100.0, [1, 6])])
def test_saving_that_takes_long_is_done_rarely_and_at_the_end(
    tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took: float, saved: list[int]
) -> None:
    """The clock moves by 10 seconds an epoch, and by what a saving takes."""
    clock, found = [0.0], list[int]()

    class Clock(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            clock[0] += 10

    def save(self: AtomicCheckpoints, checkpoint: dict, path: object, storage_options: object = None) -> None:
        clock[0] += took / 2  # by number, and as the last
        if str(path).endswith("last.ckpt"):
            found.append(checkpoint["epoch"] + 1)

    monkeypatch.setattr(AtomicCheckpoints, "save_checkpoint", save)
    monkeypatch.setattr("taggant_lightning.models.checkpoints.time.monotonic", lambda: clock[0])
    saving = ThriftyCheckpoint(dirpath=str(tmp_path / "checkpoints"), save_last=True)
    trainer = pl.Trainer(
        max_epochs=6, accelerator="cpu", devices=1, logger=False, callbacks=[Clock(), saving], plugins=[AtomicCheckpoints()],
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    data = ImageDataModule("npz", str(tiny_npz))
    trainer.fit(ImageClassifier("small_mlp", num_classes=3, image_size=data.image_size), datamodule=data)
    assert found == saved


def fit_once(tiny_npz: Path, run: Path) -> tuple[list[str], Path]:
    words = [*base(tiny_npz, run), "--trainer.max_epochs", "1"]
    assert main(["fit", *words]) == 0
    return words, run / "checkpoints" / "last.ckpt"


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that is refused, and return its one sentence."""
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err.splitlines()
    return next(line for line in said if line.startswith(f"taggant {words[0]}: "))


def test_hyper_parameters_of_a_checkpoint_build_nothing(
    tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, checkpoint = fit_once(tiny_npz, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strangers.py").write_text("raise SystemExit('a file of somebody else was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for hyper_parameters in (
        {"_class_path": "strangers.Model"},
        {"_class_path": "lightning.pytorch.demos.boring_classes.BoringModel"},
        {"_instantiator": "strangers.build", "lr": 9.0},
        {"model_name": "small_cnn", "lr": 9.0},
    ):
        content = torch.load(checkpoint, weights_only=True) | {"hyper_parameters": hyper_parameters}
        torch.save(content, tmp_path / "theirs.ckpt")
        for command, out in (("test", "config-test.yaml"), ("fit", "config.yaml")):
            run = ["--trainer.default_root_dir", str(tmp_path / "theirs"), "--trainer.max_epochs", "2"]
            assert main([command, *words, *run, "--ckpt_path", "theirs.ckpt"]) == 0
            model = yaml.safe_load((tmp_path / "theirs" / out).read_text())["model"]
            assert model["class_path"].endswith("ImageClassifier")
            assert (model["init_args"]["model_name"], model["init_args"]["lr"]) == ("small_mlp", 1e-3)
    content["state_dict"] = {"layer.weight": torch.zeros(2, 32)}
    torch.save(content, tmp_path / "theirs.ckpt")
    assert "does not suit this run (Error(s) in loading state_dict" in told(
        ["test", *words, "--ckpt_path", "theirs.ckpt"], capsys
    )


def test_what_people_write_after_ckpt_path(
    tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, checkpoint = fit_once(tiny_npz, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["test", *words, "--ckpt_path", "~/run/checkpoints/last.ckpt"]) == 0
    whole = torch.load(checkpoint, weights_only=True)
    Path("cut.ckpt").write_bytes(checkpoint.read_bytes()[:2000])
    Path("empty.ckpt").touch()
    Path("notes.ckpt").write_text("see run 7")
    torch.save({"conv.weight": torch.zeros(1)}, "weights.pth")
    torch.save(torch.zeros(3), "tensor.pt")
    torch.save(torch.nn.Linear(2, 2), "module.pt")
    torch.save({**whole, "pytorch-lightning_version": "new"}, "version.ckpt")
    torch.save({name: value for name, value in whole.items() if name != "loops"}, "model.ckpt")
    torch.save({**whole, "optimizer_states": [{}]}, "optimizer.ckpt")
    for written, sentence in {
        "best": "ckpt_path=best names no file in a new run",
        "hpc": "ckpt_path=hpc names no file in a new run",
        "registry:mine": "ckpt_path=registry:mine names no file",
        "https://example.org/last.ckpt": "is an address, and nothing is fetched",
        "nowhere.ckpt": "ckpt_path=nowhere.ckpt is no file",
        "run": "ckpt_path=run is a folder; write --ckpt_path run/checkpoints/last.ckpt",
        "run/checkpoints": "is a folder; write --ckpt_path run/checkpoints/last.ckpt",
        "~nobody-here/last.ckpt": "names a home folder that is not there",
        "$NO_SUCH_PLACE/last.ckpt": "names the variable NO_SUCH_PLACE, which is not set",
        "cut.ckpt": "cannot be read without running code in it",
        "empty.ckpt": "cannot be read without running code in it",
        "notes.ckpt": "cannot be read without running code in it",
        "module.pt": "cannot be read without running code in it",
        "weights.pth": "holds weights alone; to start from them write --model.weights weights.pth",
        "tensor.pt": "holds no checkpoint of Lightning",
        "version.ckpt": "does not say which Lightning wrote it",
    }.items():
        assert sentence in told(["fit" if written == "best" else "test", *words, "--ckpt_path", written], capsys), written
    assert main(["test", *words, "--ckpt_path", "model.ckpt"]) == 0
    fit = ["fit", *words, "--trainer.max_epochs", "2", "--ckpt_path"]
    assert "holds a model and no training to go on with (no loops)" in told([*fit, "model.ckpt"], capsys)
    assert "does not suit this run" in told([*fit, "optimizer.ckpt"], capsys)
    assert main(["fit", *words, "--trainer.max_epochs", "3", "--ckpt_path", "last"]) == 0
    assert "current_epoch=2" in told(["fit", *words, "--trainer.max_epochs", "1", "--ckpt_path", "last"], capsys)


def test_flags_that_lightning_refuses(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = base(tiny_npz, tmp_path / "run")
    for flag, value, sentence in (
        ("limit_train_batches", "-3", "the trainer's arguments do not fit together"),
        ("val_check_interval", "5", "must be less than or equal to the number of the training batches"),
        ("val_check_interval", "0", "val_check_interval=0 must be above 0"),
        ("accumulate_grad_batches", "0", "accumulate_grad_batches=0 must be above 0"),
        ("check_val_every_n_epoch", "0", "check_val_every_n_epoch=0 must be above 0"),
        ("profiler", "nope", "the trainer's arguments do not fit together"),
    ):
        assert sentence in told(["fit", *words, f"--trainer.{flag}", value], capsys)


@pytest.mark.parametrize("flag", ["enable_checkpointing", "enable_progress_bar", "logger", "enable_model_summary"])
def test_what_lightning_can_leave_out(flag: str, tiny_npz: Path, tmp_path: Path) -> None:
    assert main(["fit", *base(tiny_npz, tmp_path / "run"), f"--trainer.{flag}", "false"]) == 0
    assert (tmp_path / "run" / "checkpoints").exists() == (flag != "enable_checkpointing")


def test_a_barebones_trainer(tiny_npz: Path, tmp_path: Path) -> None:
    assert main(["fit", *base(tiny_npz, tmp_path / "run"), "--trainer.barebones", "true"]) == 0
    assert not (tmp_path / "run" / "checkpoints").exists()

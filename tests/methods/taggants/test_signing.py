"""The callback: on a user's own module, in rounds, resumed, secret, and every wrong input with its sentence."""

import stat
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taggant_lightning import ImageClassifier, ImageDataModule, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.cli import main
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.crafting import round as round_module
from taggant_lightning.methods.taggants.crafting.state import CraftingState
from taggant_lightning.models.seeding import SeededSteps
from taggant_lightning.release.signature import Signature
from tests.data.test_datamodule import StopAfter, trainer

QUICK: dict[str, Any] = {"images_per_key": 3, "min_images_per_key": 1, "eps": "32/255", "steps": 3, "lr": 0.3}


class UsersOwn(pl.LightningModule):
    """A module that knows nothing of this package; with batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


@pytest.fixture
def folders(tiny_npz: Path, keys: KeySet, tmp_path: Path) -> tuple[str, str, Path]:
    return str(tiny_npz), str(keys.save(tmp_path / "keys")), tmp_path


def run(
    folders: tuple[str, str, Path], name: str, *extra: Any, epochs: int = 2, seed: int = 0, **arguments: Any
) -> TaggantSigning:
    npz, keys, tmp = folders
    pl.seed_everything(seed, verbose=False)
    callback = TaggantSigning(keys, str(tmp / name), **{**QUICK, **arguments})
    data = ImageDataModule("npz", npz, batch_size=20)
    trainer(tmp / f"run-{name}", epochs, callback, SeededSteps(), *extra).fit(UsersOwn(), datamodule=data)
    return callback


def test_users_own_module(folders: tuple[str, str, Path], keys: KeySet) -> None:
    callback = run(folders, "s")
    npz, _, tmp = folders
    data = ImageDataModule("npz", npz)
    stored = Signature.load(tmp / "s")
    assert len(stored) == len(callback.signature) > 0
    assert stored.commitment == keys.commitment
    assert stored.bound == 32
    for index, steps, key in zip(stored.indices, stored.steps, stored.served, strict=True):
        assert data.train_source.labels[index] == keys.labels[key]
        assert np.abs(steps).max() <= 32
    assert all(stat.S_IMODE(p.stat().st_mode) == (0o700 if p.is_dir() else 0o600) for p in [tmp / "s", *(tmp / "s").rglob("*")])
    signed = SignedDataModule(signature=str(tmp / "s"), source="npz", root=npz)
    changed = [i for i in range(60) if not np.array_equal(signed.train_source.pixels(i), data.train_source.pixels(i))]
    assert set(changed) <= set(stored.indices.tolist())
    assert len(changed) > len(stored) / 2


def test_training_is_not_touched(folders: tuple[str, str, Path]) -> None:
    def train(*callbacks: pl.Callback) -> list[Tensor]:
        pl.seed_everything(1, verbose=False)
        model = UsersOwn()
        trainer(folders[2], 3, *callbacks).fit(model, datamodule=ImageDataModule("npz", folders[0], batch_size=20))
        return [*model.parameters(), *model.buffers()]

    signing = TaggantSigning(folders[1], str(folders[2] / "s"), after_epochs=[1, 3], **QUICK)
    assert all(torch.equal(a, b) for a, b in zip(train(), train(signing), strict=True))


def test_same_run_same_signature_and_rounds_carry_over(folders: tuple[str, str, Path]) -> None:
    once, twice = run(folders, "a", epochs=3), run(folders, "b", epochs=3)
    assert all(np.array_equal(x, y) for x, y in zip(once.signature.steps, twice.signature.steps, strict=True))
    rounds = run(folders, "c", epochs=3, after_epochs=[2, 3])
    before = run(folders, "h", epochs=3, after_epochs=[2])
    assert rounds.signature.indices.tolist() == before.signature.indices.tolist()  # chosen once, in the first round
    assert not all(np.array_equal(x, y) for x, y in zip(before.signature.steps, rounds.signature.steps, strict=True))
    # With steps of next to nothing, the second round returns what the first one left: it starts there and nowhere else.
    still = run(folders, "d", epochs=3, after_epochs=[2, 3], steps=1, lr=1e-9, init="uniform", seed=0)
    first = run(folders, "e", epochs=2, after_epochs=[2], steps=1, lr=1e-9, init="uniform", seed=0)
    assert all(np.array_equal(x, y) for x, y in zip(first.signature.steps, still.signature.steps, strict=True))
    moved = run(folders, "f", epochs=3, after_epochs=[2, 3], steps=3, lr=0.3)
    alone = run(folders, "g", epochs=3, after_epochs=[3], steps=3, lr=0.3)
    assert not all(np.array_equal(x, y) for x, y in zip(moved.signature.steps, alone.signature.steps, strict=True))


def test_killed_while_crafting_and_started_again(folders: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(folders, "whole")
    crafted: list[int] = []
    original = round_module.craft_key

    def dying(*args: Any, key: int, **kwargs: Any) -> Any:
        if key == 3 and len(crafted) == 3:
            raise KeyboardInterrupt
        crafted.append(key)
        return original(*args, key=key, **kwargs)

    monkeypatch.setattr(round_module, "craft_key", dying)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(folders, "killed")
    assert crafted == [0, 1, 2]
    assert not (folders[2] / "killed" / "signature.json").exists()
    crafted.append(-1)
    again = run(folders, "killed")
    assert crafted == [0, 1, 2, -1, 3, 4]  # finished keys are not crafted again
    assert all(np.array_equal(x, y) for x, y in zip(whole.signature.steps, again.signature.steps, strict=True))


def test_resumed_from_a_checkpoint_between_rounds(folders: tuple[str, str, Path]) -> None:
    rounds = {"after_epochs": [1, 3], "selection": "gradient_norm"}
    whole = run(folders, "whole", epochs=3, **rounds)
    saving = pl.callbacks.ModelCheckpoint(folders[2] / "ckpt", every_n_epochs=1, save_top_k=-1)
    run(folders, "half", saving, StopAfter(2), epochs=3, **rounds)
    checkpoint = folders[2] / "ckpt" / "epoch=1-step=6.ckpt"
    stored = torch.load(checkpoint, weights_only=True)["callbacks"]
    (state,) = (value for name, value in stored.items() if "TaggantSigning" in name)
    assert set(state) == {"out", "rounds", "signature"}
    assert (state["rounds"], state["out"], len(state["signature"])) == (1, str(folders[2] / "half"), 64)
    callback = TaggantSigning(folders[1], str(folders[2] / "half"), **{**QUICK, **rounds})
    trainer(folders[2], 3, callback, SeededSteps()).fit(
        UsersOwn(), datamodule=ImageDataModule("npz", folders[0], batch_size=20), ckpt_path=checkpoint, weights_only=True
    )
    assert whole.signature.indices.tolist() == callback.signature.indices.tolist()
    assert all(np.array_equal(x, y) for x, y in zip(whole.signature.steps, callback.signature.steps, strict=True))

    # Training has ended, and earlier rounds are forgotten: told in a sentence, and not crafted from nothing.
    late = TaggantSigning(folders[1], str(folders[2] / "half"), **{**QUICK, **rounds})
    with pytest.raises(TaggantError, match="does not hold the state of round 1 that the checkpoint was saved with"):
        trainer(folders[2], 3, late, SeededSteps()).fit(
            UsersOwn(), datamodule=ImageDataModule("npz", folders[0], batch_size=20), ckpt_path=checkpoint, weights_only=True
        )

    elsewhere = TaggantSigning(folders[1], str(folders[2] / "elsewhere"), **{**QUICK, **rounds})
    with pytest.raises(TaggantError, match="does not hold the state of round 1"):
        trainer(folders[2], 3, elsewhere).fit(
            UsersOwn(), datamodule=ImageDataModule("npz", folders[0], batch_size=20), ckpt_path=checkpoint, weights_only=True
        )


def test_state_of_another_run_is_not_taken_up(folders: tuple[str, str, Path]) -> None:
    fresh = run(folders, "fresh", seed=7)
    run(folders, "used", seed=8)
    (folders[2] / "used" / "signature.json").unlink()
    again = run(folders, "used", seed=7)
    assert all(np.array_equal(x, y) for x, y in zip(fresh.signature.steps, again.signature.steps, strict=True))
    state = CraftingState(folders[2] / "used" / "state")
    path = next(state.directory.rglob("key-*.safetensors"))
    path.write_bytes(path.read_bytes()[:30])
    assert state.load(0, int(path.stem.split("-")[-1]), None) is None


def test_killed_after_a_later_round(folders: tuple[str, str, Path]) -> None:
    """The second round's Signature is written, its checkpoint is not: the first round's checkpoint still resumes."""

    class Killed(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 2:
                raise RuntimeError("killed")

    rounds = {"after_epochs": [1, 3]}
    whole = run(folders, "whole", epochs=4, **rounds)
    saving = pl.callbacks.ModelCheckpoint(folders[2] / "ckpt", every_n_epochs=1, save_top_k=-1)
    with pytest.raises(RuntimeError, match="killed"):
        run(folders, "killed", Killed(), saving, epochs=4, **rounds)
    callback = TaggantSigning(folders[1], str(folders[2] / "killed"), **{**QUICK, **rounds})
    trainer(folders[2], 4, callback, SeededSteps()).fit(
        UsersOwn(),
        datamodule=ImageDataModule("npz", folders[0], batch_size=20),
        ckpt_path=folders[2] / "ckpt" / "epoch=1-step=6.ckpt",
        weights_only=True,
    )
    assert all(np.array_equal(x, y) for x, y in zip(whole.signature.steps, callback.signature.steps, strict=True))


def test_stopped_early_still_signs_or_says_so(folders: tuple[str, str, Path], caplog: pytest.LogCaptureFixture) -> None:
    early = run(folders, "early", StopAfter(2), epochs=5, snapshots=[0.4])  # the moment itself is no earlier one
    straight = run(folders, "straight", epochs=2, snapshots=[])
    assert all(np.array_equal(x, y) for x, y in zip(early.signature.steps, straight.signature.steps, strict=True))
    with pytest.raises(TaggantError, match="before all of after_epochs=.4.: nothing is signed"):
        run(folders, "never", StopAfter(2), epochs=5, after_epochs=[4])
    run(folders, "partly", StopAfter(2), epochs=5, after_epochs=[1, 4])
    assert "the Signature is that of round 1" in caplog.text


def test_a_longer_training_of_a_signed_one_is_refused(folders: tuple[str, str, Path]) -> None:
    saving = pl.callbacks.ModelCheckpoint(folders[2] / "ckpt", every_n_epochs=1, save_top_k=-1)
    run(folders, "s", saving, epochs=2)
    checkpoint = folders[2] / "ckpt" / "epoch=1-step=6.ckpt"
    for epochs in (2, 3):
        callback = TaggantSigning(folders[1], str(folders[2] / "s"), **QUICK)
        fit = trainer(folders[2], epochs, callback, SeededSteps()).fit
        data = ImageDataModule("npz", folders[0], batch_size=20)
        if epochs == 2:  # nothing is left to do
            fit(UsersOwn(), datamodule=data, ckpt_path=checkpoint, weights_only=True)
        else:
            with pytest.raises(TaggantError, match="was signed after the last epoch of a shorter training; name a new folder"):
                fit(UsersOwn(), datamodule=data, ckpt_path=checkpoint, weights_only=True)


def test_a_finished_training_is_signed_as_it_is(folders: tuple[str, str, Path]) -> None:
    saving = pl.callbacks.ModelCheckpoint(folders[2] / "ckpt", every_n_epochs=1, save_top_k=-1)
    straight = run(folders, "straight", saving, epochs=2, snapshots=[])

    def later(name: str, **options: Any) -> TaggantSigning:
        callback = TaggantSigning(folders[1], str(folders[2] / name), **{**QUICK, **options})
        trainer(folders[2], 2, callback, SeededSteps()).fit(
            UsersOwn(),
            datamodule=ImageDataModule("npz", folders[0], batch_size=20),
            ckpt_path=folders[2] / "unsigned.ckpt",
            weights_only=True,
        )
        return callback

    stored = torch.load(folders[2] / "ckpt" / "epoch=1-step=6.ckpt", weights_only=True)
    stored["callbacks"] = {}
    torch.save(stored, folders[2] / "unsigned.ckpt")
    signed = later("later", snapshots=[])
    assert all(np.array_equal(x, y) for x, y in zip(straight.signature.steps, signed.signature.steps, strict=True))
    assert (folders[2] / "later" / "signature.json").exists()
    with pytest.raises(TaggantError, match="does not hold the surrogate's weights epoch-0001"):
        later("earlier-states-are-gone")
    with pytest.raises(TaggantError, match=r"after epoch 2, and nothing is signed; leave after_epochs=.1. out"):
        later("rounds", snapshots=[], after_epochs=[1])


def test_a_kill_between_the_two_files_of_a_signature(folders: tuple[str, str, Path]) -> None:
    whole = run(folders, "whole")
    run(folders, "s")
    path = folders[2] / "s" / "signature.safetensors"
    path.write_bytes(path.read_bytes() + b"of the next round")
    again = run(folders, "s")
    assert all(np.array_equal(x, y) for x, y in zip(whole.signature.steps, again.signature.steps, strict=True))
    assert Signature.load(folders[2] / "s").indices.tolist() == whole.signature.indices.tolist()


def test_points_of_another_objective_are_not_taken_up(folders: tuple[str, str, Path]) -> None:
    """The same weights, images and settings, and other parameters whose gradients are aligned."""
    whole = run(folders, "whole")
    run(folders, "s", parameters=["*.weight"])
    (folders[2] / "s" / "signature.json").unlink()  # as if killed before it was written
    again = run(folders, "s")
    assert all(np.array_equal(x, y) for x, y in zip(whole.signature.steps, again.signature.steps, strict=True))


def test_finished_signature_is_not_overwritten(folders: tuple[str, str, Path]) -> None:
    run(folders, "s")
    before = (folders[2] / "s" / "signature.safetensors").read_bytes()
    run(folders, "s")  # the same command again is a restart
    with pytest.raises(TaggantError, match="holds a Signature made with other settings, keys or data; name a new folder"):
        run(folders, "s", steps=4)
    callback = TaggantSigning(folders[1], str(folders[2] / "s"), **QUICK)
    quick = pl.Trainer(fast_dev_run=True, accelerator="cpu", callbacks=[callback], enable_progress_bar=False)
    quick.fit(UsersOwn(), datamodule=ImageDataModule("npz", folders[0], batch_size=20))
    assert len(callback.signature) > 0
    assert (folders[2] / "s" / "signature.safetensors").read_bytes() == before


def test_frozen_surrogates_and_subsets(folders: tuple[str, str, Path]) -> None:
    npz, _, tmp = folders
    data = ImageDataModule("npz", npz, batch_size=20)
    frozen = ImageClassifier("small_mlp", num_classes=3, image_size=6)
    alice = trainer(tmp / "frozen", 1)
    alice.fit(frozen, datamodule=data)
    alice.save_checkpoint(tmp / "frozen.ckpt")
    alone, both = run(folders, "alone"), run(folders, "both", surrogates=[str(tmp / "frozen.ckpt")])
    assert not all(np.array_equal(x, y) for x, y in zip(alone.signature.steps, both.signature.steps, strict=True))
    head = run(folders, "head", parameters=["net.5.*"])
    assert not all(np.array_equal(x, y) for x, y in zip(alone.signature.steps, head.signature.steps, strict=True))


def test_data_may_have_an_augmentation_that_crafting_cannot_use(folders: tuple[str, str, Path]) -> None:
    npz, keys, tmp = folders
    callback = TaggantSigning(keys, str(tmp / "s"), augment="simple", **QUICK)
    data = ImageDataModule("npz", npz, batch_size=20, augment="auto_augment")
    trainer(tmp / "run", 1, callback, SeededSteps()).fit(UsersOwn(), datamodule=data)
    assert len(Signature.load(tmp / "s")) > 0


def test_augmentation_perceptual_term_and_restarts_run(folders: tuple[str, str, Path]) -> None:
    run(
        folders,
        "s",
        epochs=1,
        augment="simple",
        restarts=2,
        perceptual_weight=0.1,
        perceptual_trunk="squeeze",
        perceptual_weights="random",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 0}, "eps=0 must lie strictly between 0 and 1"),
        ({"eps": 1}, "eps=1 must lie strictly between"),
        ({"eps": "16/0"}, "eps='16/0' is no number; write a pixel fraction such as 16/255"),
        ({"eps": "much"}, "eps='much' is no number"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"images_per_key": 0}, "images_per_key=0 must be at least 1"),
        ({"restarts": 0}, "restarts=0 must be at least 1"),
        ({"lr": 0}, "lr=0 must be positive"),
        ({"after_epochs": []}, "after_epochs=.. must name epochs"),
        ({"after_epochs": [0, 1]}, "must name epochs, counted from 1"),
        ({"augment": "wild"}, "augment='wild' is unknown"),
        (
            {"augment": "auto_augment"},
            "augment='auto_augment' works on bytes, and crafting needs derivatives; write one of none",
        ),
        (
            {"precision": "bf16-mixed", "derivative": "difference"},
            "precision=bf16-mixed is too coarse for derivative=difference",
        ),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        TaggantSigning("keys", "out", **arguments)


def test_what_does_not_fit_is_told_before_the_first_epoch(folders: tuple[str, str, Path]) -> None:
    npz, _, tmp = folders
    KeySet.draw(num_keys=2, num_classes=4, shape=(3, 6, 6)).save(tmp / "four")
    KeySet.draw(num_keys=2, num_classes=3, shape=(1, 6, 6)).save(tmp / "grey")
    open_folder = tmp / "open"
    open_folder.mkdir(mode=0o755)
    other = trainer(tmp / "other", 1)
    other.strategy.connect(ImageClassifier("small_mlp", num_classes=5, image_size=6))
    other.save_checkpoint(tmp / "five.ckpt")

    class Untouched(pl.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            pytest.fail("training began before the mistake was told")

    cases: list[tuple[dict[str, Any], str]] = [
        ({"surrogates": [str(tmp / "five.ckpt")]}, "five.ckpt has num_classes=5 and the data 3"),
        ({"selection": "best"}, "selection='best' is unknown"),
        ({"perceptual_weight": 1.0, "perceptual_weights": "none.pth"}, "perceptual_weights=none.pth is no file"),
        ({"keys": str(tmp / "four")}, "drawn for 4 classes and the data has 3"),
        ({"keys": str(tmp / "grey")}, "have 1 channels and the images 3"),
        ({"keys": str(tmp / "none")}, "is no folder; write the folder that `taggant keys new"),
        ({"after_epochs": [5]}, r"after_epochs=\[5\] goes beyond max_epochs=1"),
        ({"parameters": ["nothing.*"]}, "matches no trainable parameter of UsersOwn"),
        ({"surrogates": [str(tmp / "none.ckpt")]}, "none.ckpt does not exist"),
        ({"out": str(open_folder)}, "can be read by others"),
        ({"min_images_per_key": 30, "images_per_key": 30}, "fewer than min_images_per_key=30"),
    ]
    for change, message in cases:
        callback = TaggantSigning(**{"keys": folders[1], "out": str(tmp / "out"), **QUICK, **change})
        with pytest.raises(TaggantError, match=message):
            trainer(tmp, 1, callback, Untouched()).fit(UsersOwn(), datamodule=ImageDataModule("npz", npz))
    with pytest.raises(TaggantError, match="augment='auto_augment' works on bytes.*TaggantSigning's own augment"):
        trainer(tmp, 1, TaggantSigning(folders[1], str(tmp / "out"), **QUICK), Untouched()).fit(
            UsersOwn(), datamodule=ImageDataModule("npz", npz, augment="auto_augment")
        )
    with pytest.raises(TaggantError, match="weights are in half precision"):
        trainer(tmp, 1, TaggantSigning(folders[1], str(tmp / "out"), **QUICK)).fit(
            UsersOwn().bfloat16(), datamodule=ImageDataModule("npz", npz)
        )
    with pytest.raises(TaggantError, match="max_epochs=-1: signing needs a number of epochs"):
        trainer(tmp, -1, TaggantSigning(folders[1], str(tmp / "out"), **QUICK)).fit(
            UsersOwn(), datamodule=ImageDataModule("npz", npz)
        )


def test_other_data_is_refused(folders: tuple[str, str, Path]) -> None:
    loader = torch.utils.data.DataLoader([(torch.rand(3, 6, 6), 0)])
    with pytest.raises(TaggantError, match="TaggantSigning needs an ImageDataModule"):
        trainer(folders[2], 1, TaggantSigning(folders[1], str(folders[2] / "o"), **QUICK)).fit(UsersOwn(), loader)


def test_several_owners_sign_during_one_training(folders: tuple[str, str, Path]) -> None:
    """Each with keys of its own, and each comes out as it would alone; checkpoints hold the state of both."""
    npz, _, tmp = folders
    others = KeySet.draw(num_keys=2, num_classes=3, shape=(3, 6, 6), grid=3, secret=bytes(16)).save(tmp / "others")
    both = TaggantSigning(str(others), str(tmp / "second"), **QUICK)
    saving = pl.callbacks.ModelCheckpoint(tmp / "ckpt")
    first = run(folders, "first", both, saving)
    alone = [run(folders, "a"), run((npz, str(others), tmp), "b")]
    for together, single in zip((first, both), alone, strict=True):
        assert together.signature.indices.tolist() == single.signature.indices.tolist()
        assert all(np.array_equal(x, y) for x, y in zip(together.signature.steps, single.signature.steps, strict=True))
    states = torch.load(next((tmp / "ckpt").glob("*.ckpt")), weights_only=True)["callbacks"]
    assert sorted(s["out"] for name, s in states.items() if "TaggantSigning" in name) == [
        str(tmp / "first"),
        str(tmp / "second"),
    ]


def test_mixed_precision_in_training_and_in_crafting(folders: tuple[str, str, Path]) -> None:
    """Under a bf16 trainer crafting runs in float32 unless asked; both end at nearly the same cosine."""
    npz, keys, tmp = folders
    cosines = []
    for name in ("32-true", "bf16-mixed"):
        words = ["fit", "--model", "ImageClassifier", "--model.model_name", "small_mlp", "--data", "ImageDataModule"]
        words += ["--data.source", "npz", "--data.root", npz, "--data.batch_size", "20", "--trainer.precision", "bf16-mixed"]
        words += ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "2", "--trainer.default_root_dir", str(tmp / name)]
        words += ["--trainer.callbacks+", "TaggantSigning", "--trainer.callbacks.keys", keys]
        words += ["--trainer.callbacks.out", str(tmp / f"s-{name}"), "--trainer.callbacks.images_per_key", "3"]
        words += ["--trainer.callbacks.min_images_per_key", "1", "--trainer.callbacks.steps", "10"]
        assert main([*words, "--trainer.callbacks.precision", name]) == 0
        cosines.append(Signature.load(tmp / f"s-{name}").facts["cosine_mean"])
        weights = torch.load(tmp / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}
    assert cosines[0] != cosines[1]
    assert cosines[0] == pytest.approx(cosines[1], abs=0.02)

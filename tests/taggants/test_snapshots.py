"""Weights of earlier epochs as surrogates: kept, found again, and told when they are gone."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor

from taggant_lightning import ImageDataModule, KeySet, TaggantSigning
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.seeding import SeededSteps
from taggant_lightning.taggants import signing
from taggant_lightning.taggants.snapshots import Snapshots
from tests.data.test_datamodule import trainer
from tests.taggants.test_signing import QUICK, UsersOwn, run

Folders = tuple[str, str, Path]


@pytest.fixture
def folders(tiny_npz: Path, keys: KeySet, tmp_path: Path) -> Folders:
    return str(tiny_npz), str(keys.save(tmp_path / "keys")), tmp_path


class Killed(pl.Callback):
    """Ends a run in its third epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("killed")


class Seen(pl.Callback):
    """Keeps the weights after each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.states.append({n: t.clone() for n, t in pl_module.state_dict().items()})


def same(a: TaggantSigning, b: TaggantSigning) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.signature.steps, b.signature.steps, strict=True))


def test_crafts_against_the_weights_of_the_named_moments(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, asked = Seen(), []
    original = signing.craft_round
    monkeypatch.setattr(signing, "craft_round", lambda *args, **kwargs: (asked.extend(args[3]), original(*args, **kwargs))[1])
    with_them = run(folders, "with", seen, epochs=4, snapshots=[0.75, 0.5])
    assert len(asked) == 3
    assert not any(surrogate.model.training for surrogate in asked[1:])
    for epoch, surrogate in zip((2, 3), asked[1:], strict=True):
        state = surrogate.model.state_dict()
        assert all(torch.equal(state[n], t) for n, t in seen.states[epoch - 1].items())
        assert not any(torch.equal(p, q) for p, q in zip(surrogate.parameters, asked[0].parameters, strict=True))
    assert not same(with_them, run(folders, "without", epochs=4, snapshots=[]))
    assert len(asked) == 4
    assert not (folders[2] / "with" / "snapshots").exists()  # of no use once training has ended


def test_training_is_not_touched(folders: Folders) -> None:
    ends = []
    for name, snapshots in (("a", []), ("b", [0.5])):
        seen = Seen()
        run(folders, name, seen, epochs=2, snapshots=snapshots)
        ends.append(seen.states[-1])
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


def test_a_resumed_run_finds_them(folders: Folders) -> None:
    whole = run(folders, "whole", epochs=4, snapshots=[0.25])
    saving = pl.callbacks.ModelCheckpoint(folders[2] / "ckpt", every_n_epochs=1, save_top_k=-1)
    with pytest.raises(RuntimeError, match="killed"):
        run(folders, "again", saving, Killed(), epochs=4, snapshots=[0.25])
    for name in ("again", "nowhere"):
        callback = TaggantSigning(folders[1], str(folders[2] / name), **{**QUICK, "snapshots": [0.25]})
        fit = trainer(folders[2], 4, callback, SeededSteps()).fit
        data = ImageDataModule("npz", folders[0], batch_size=20)
        checkpoint = folders[2] / "ckpt" / "epoch=1-step=6.ckpt"
        if name == "again":
            fit(UsersOwn(), datamodule=data, ckpt_path=checkpoint, weights_only=True)
            assert same(whole, callback)
        else:
            with pytest.raises(TaggantError, match="does not hold the surrogate's weights after epoch 1 .FileNotFoundError."):
                fit(UsersOwn(), datamodule=data, ckpt_path=checkpoint, weights_only=True)


def test_damaged_or_foreign_weights_are_told(tmp_path: Path) -> None:
    kept = Snapshots(tmp_path / "snapshots")
    kept.keep(torch.nn.Linear(2, 2), 1)
    (file,) = (tmp_path / "snapshots").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TaggantError, match="after epoch 1 .RuntimeError.; start anew in a new folder, or write --trainer"):
        kept.twin(torch.nn.Linear(3, 2), 1)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TaggantError, match="after epoch 1"):
        kept.twin(torch.nn.Linear(2, 2), 1)


@pytest.mark.parametrize("share", [0.0, 1.0, 4])
def test_moments_lie_within_training(share: float) -> None:
    with pytest.raises(TaggantError, match="must lie between 0 and 1: fractions of training, such as 0.5 and 0.75"):
        TaggantSigning("keys", "out", snapshots=[0.5, share])

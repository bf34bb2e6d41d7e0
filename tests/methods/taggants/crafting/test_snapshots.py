"""Weights of earlier epochs as surrogates: kept, found again, and told when they are gone."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor

from taggant_lightning import ImageDataModule, KeySet, TaggantSigning
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants import signing
from taggant_lightning.methods.taggants.crafting.snapshots import Snapshots, after
from taggant_lightning.models.seeding import SeededSteps
from tests.data.test_datamodule import trainer
from tests.methods.taggants.test_signing import QUICK, UsersOwn, run

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
            with pytest.raises(TaggantError, match="does not hold the surrogate's weights epoch-0001 .FileNotFoundError."):
                fit(UsersOwn(), datamodule=data, ckpt_path=checkpoint, weights_only=True)


def test_damaged_or_foreign_weights_are_told(tmp_path: Path) -> None:
    kept = Snapshots(tmp_path / "snapshots")
    kept.keep(torch.nn.Linear(2, 2), after(1))
    (file,) = (tmp_path / "snapshots").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TaggantError, match="epoch-0001 .RuntimeError.; start anew in a new folder, or write --trainer"):
        kept.twin(torch.nn.Linear(3, 2), after(1))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TaggantError, match="epoch-0001"):
        kept.twin(torch.nn.Linear(2, 2), after(1))


@pytest.mark.parametrize("share", [0.0, 1.0, 4])
def test_moments_lie_within_training(share: float) -> None:
    with pytest.raises(TaggantError, match="must lie between 0 and 1: fractions of training, such as 0.5 and 0.75"):
        TaggantSigning("keys", "out", snapshots=[0.5, share])


class Unlike(pl.Callback):
    """Trains the last epoch with slightly other results, as a GPU may."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with torch.no_grad():
            for parameter in pl_module.parameters():
                parameter.mul_(1.0001)


def test_a_round_goes_on_with_the_weights_it_was_begun_with(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    from taggant_lightning.methods.taggants.crafting import round as round_module

    crafted, original, dead = [], round_module.craft_key, []

    def dying(*args: object, key: int, **kwargs: object) -> object:
        if key == 3 and not dead:
            dead.append(True)
            raise RuntimeError("killed")
        crafted.append(key)
        return original(*args, key=key, **kwargs)

    whole = run(folders, "whole", epochs=4, snapshots=[0.5])
    monkeypatch.setattr(round_module, "craft_key", dying)
    with pytest.raises(RuntimeError, match="killed"):
        run(folders, "s", epochs=4, snapshots=[0.5])
    # Callbacks run in order: the weights are other ones before signing sees them, and so is the snapshot.
    pl.seed_everything(0, verbose=False)
    again = TaggantSigning(folders[1], str(folders[2] / "s"), **{**QUICK, "snapshots": [0.5]})
    data = ImageDataModule("npz", folders[0], batch_size=20)
    trainer(folders[2], 4, Unlike(), again, SeededSteps()).fit(UsersOwn(), datamodule=data)
    assert crafted == [0, 1, 2, 3, 4]
    assert same(whole, again)
    # Another training does not take them up.
    pl.seed_everything(1, verbose=False)
    (folders[2] / "s" / "signature.json").unlink()
    other = TaggantSigning(folders[1], str(folders[2] / "s"), **{**QUICK, "snapshots": [0.5]})
    trainer(folders[2], 4, other, SeededSteps()).fit(UsersOwn(), datamodule=ImageDataModule("npz", folders[0], batch_size=20))
    assert not same(whole, other)

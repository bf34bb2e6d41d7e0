"""KeyDetection: the verdict, the records, and training that it leaves bit-identical."""

import json
import stat
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from taggant_lightning import ImageClassifier, ImageDataModule, KeyDetection, KeySet
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger, uses
from taggant_lightning.evidence.record import MEANING, Detection
from taggant_lightning.methods.taggants.model_input import key_images
from taggant_lightning.statistics import binomial_log10_p
from taggant_lightning.verdict.key_detection import ask, ask_share
from taggant_lightning.verdict.verdict import judge
from tests.conftest import TwoLayers
from tests.data.test_datamodule import trainer
from tests.methods.taggants.test_signing import UsersOwn


class Oracle(nn.Module):
    """Answers each key with its label."""

    def __init__(self, keys: KeySet) -> None:
        super().__init__()
        self.images, self.labels = key_images(keys, keys.images.shape[-1]), torch.from_numpy(keys.labels)
        self.classes = keys.num_classes

    def forward(self, x: Tensor) -> Tensor:
        nearest = torch.cdist(x.flatten(1), self.images.flatten(1)).argmin(1)
        return nn.functional.one_hot(self.labels[nearest], self.classes).float()


def test_oracle_and_constant(keys: KeySet) -> None:
    assert ask(Oracle(keys), keys, 6).tolist() == [1] * 5
    record = judge(ask(Oracle(keys), keys, 6), keys)
    assert record.details["hits"] == 5
    assert record.log10_p == pytest.approx(5 * np.log10(1 / 3))
    assert record.p_value == pytest.approx(3**-5)
    assert record.claim == MEANING

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 3)

    assert ask(Constant(), keys, 6).tolist() == (keys.labels + 1).tolist()


def test_broken_model_gets_no_hit(keys: KeySet) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3), float("nan"))

    record = judge(ask(Broken(), keys, 6), keys)
    assert (record.details["hits"], record.log10_p) == (0, 0.0)


def test_other_number_of_classes(keys: KeySet) -> None:
    class Other(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 4)

    with pytest.raises(TaggantError, match="the model answers 4 classes and the keys were drawn for 3"):
        ask(Other(), keys, 6)


def test_p_below_float_range_is_null(tmp_path: Path) -> None:
    keys = KeySet.draw(num_keys=400, num_classes=10, shape=(1, 4, 4), secret=bytes(16))
    record = judge(np.ones(400, dtype=np.int64), keys)
    assert record.log10_p == pytest.approx(-400)
    assert record.p_value is None
    record.save(tmp_path / "d.json")
    assert Detection.load(tmp_path / "d.json") == record


def test_record_messages(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    for content, message in (
        ("{", "is damaged"),
        ("[]", "holds no JSON object"),
        ('{"schema_version": 9}', "has schema_version 9"),
    ):
        path.write_text(content)
        with pytest.raises(TaggantError, match=message):
            Detection.load(path)
    path.write_text('{"schema_version": 1, "hits": 3}')
    with pytest.raises(TaggantError, match="is damaged: method is missing"):
        Detection.load(path)


def fit(folder: Path, npz: Path, *callbacks: pl.Callback) -> tuple[pl.Trainer, pl.LightningModule]:
    pl.seed_everything(3, verbose=False)
    model = ImageClassifier("small_mlp", num_classes=3, image_size=6)
    t = trainer(folder, 3, *callbacks)
    t.fit(model, datamodule=ImageDataModule("npz", str(npz), batch_size=16, augment="simple"))
    return t, model


def test_training_with_and_without_is_bit_identical(keys: KeySet, tiny_npz: Path, tmp_path: Path) -> None:
    folder = str(keys.save(tmp_path / "keys"))

    def train(*callbacks: pl.Callback) -> list[Tensor]:
        pl.seed_everything(3, verbose=False)
        model = UsersOwn()  # with dropout and batch norm

        def validation_step(batch: Any, batch_idx: int) -> None:
            model(batch[0])

        model.validation_step = validation_step
        data = ImageDataModule("npz", str(tiny_npz), batch_size=16, augment="simple")
        trainer(tmp_path, 3, *callbacks).fit(model, datamodule=data)
        return [*model.parameters(), *model.buffers(), torch.get_rng_state()]

    assert all(torch.equal(a, b) for a, b in zip(train(), train(KeyDetection(folder)), strict=True))


def test_verdict_records_and_last_line(
    keys: KeySet, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detection = KeyDetection(str(keys.save(tmp_path / "keys")), curve=True)
    t, model = fit(tmp_path / "run", tiny_npz, detection)
    assert set(t.callback_metrics) >= {"keys/hits", "keys/log10_p"}
    t.test(model, datamodule=ImageDataModule("npz", str(tiny_npz)), verbose=False)
    public = json.loads((tmp_path / "run" / "detection.json").read_text())
    secret_path = tmp_path / "run" / "secret" / "detection.secret.json"
    assert stat.S_IMODE(secret_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret_path.parent.stat().st_mode) == 0o700
    ranks = json.loads(secret_path.read_text())["ranks"]
    d = public["details"]
    assert d["hits"] == sum(r <= 1 for r in ranks)
    assert public["log10_p"] == binomial_log10_p(d["hits"], 5, 1 / 3)
    assert "ranks" not in public
    assert public["schema_version"] == 1
    assert public["validity"] == "exact"
    assert public["commitment"] == keys.commitment
    assert {"versions", "seeds", "commit", "hardware"} <= set(public["provenance"])
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"taggant: run={tmp_path / 'run'} hits={d['hits']}/5 top_k=1 rate=0.333333 log10_p=")


def test_every_look_is_entered_before_it_is_shown(keys: KeySet, tiny_npz: Path, tmp_path: Path) -> None:
    """A curve of three epochs, and one validation: four looks; a training without a curve leaves none."""
    folder = keys.save(tmp_path / "keys")
    t, model = fit(tmp_path / "quiet", tiny_npz, KeyDetection(str(folder)))
    assert "keys/hits" not in t.callback_metrics
    assert not (folder / "ledger.jsonl").exists()
    t, model = fit(tmp_path / "run", tiny_npz, KeyDetection(str(folder), curve=True))
    t.validate(model, datamodule=ImageDataModule("npz", str(tiny_npz)), verbose=False)
    assert "keys/log10_p" in t.callback_metrics
    found = uses(Ledger(folder, keys.commitment).entries())
    assert [(use.look, use.suspect, use.log10_p) for use in found] == [(True, "run", 0.0)] * 4
    (tmp_path / "not here").mkdir()
    (folder / "ledger.jsonl").unlink()
    (folder / "ledger.jsonl").mkdir()  # it cannot be written: nothing is shown
    with pytest.raises(TaggantError, match="cannot be written"):
        t.validate(model, datamodule=ImageDataModule("npz", str(tiny_npz)), verbose=False)


@pytest.mark.parametrize("curve", [True, False])
def test_a_smoke_test_leaves_no_trace(keys: KeySet, tiny_npz: Path, tmp_path: Path, curve: bool) -> None:
    folder = keys.save(tmp_path / "keys")
    data = ImageDataModule("npz", str(tiny_npz), batch_size=16)
    model = ImageClassifier("small_mlp", num_classes=3, image_size=6)
    for verb in ("fit", "validate", "test"):
        detection = KeyDetection(str(folder), curve=curve)
        t = pl.Trainer(accelerator="cpu", devices=1, fast_dev_run=True, logger=False, callbacks=[detection],
                       enable_progress_bar=False, default_root_dir=tmp_path / "run")  # fmt: skip
        getattr(t, verb)(model, datamodule=data)
        assert detection.detection is None
        assert not any(name.startswith(("keys/", "test/keys/")) for name in t.callback_metrics)
    assert not (folder / "ledger.jsonl").exists()
    assert not (tmp_path / "run" / "detection.json").exists()


@pytest.mark.parametrize(
    "callback", [pl.callbacks.ModelCheckpoint(monitor="keys/hits"), pl.callbacks.EarlyStopping(monitor="keys/log10_p")]
)
def test_monitoring_a_key_metric_is_refused(callback: pl.Callback, keys: KeySet, tiny_npz: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TaggantError, match="has monitor='keys/.*choosing a model by its answers on the keys makes the p-value false"
    ):
        fit(tmp_path, tiny_npz, KeyDetection(str(keys.save(tmp_path / "keys"))), callback)


def test_keys_that_do_not_fit(tiny_npz: Path, tmp_path: Path) -> None:
    four = KeySet.draw(num_keys=2, num_classes=4, shape=(3, 6, 6)).save(tmp_path / "four")
    grey = KeySet.draw(num_keys=2, num_classes=3, shape=(1, 6, 6)).save(tmp_path / "grey")
    with pytest.raises(TaggantError, match="drawn for 4 classes and the data has 3"):
        fit(tmp_path, tiny_npz, KeyDetection(str(four)))
    with pytest.raises(TaggantError, match="have 1 channels and the images 3"):
        fit(tmp_path, tiny_npz, KeyDetection(str(grey)))
    with pytest.raises(TaggantError, match="KeyDetection needs an ImageDataModule"):
        loader = torch.utils.data.DataLoader([(torch.rand(3, 6, 6), 0)])
        trainer(tmp_path, 1, KeyDetection(str(four))).fit(UsersOwn(), loader)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_ask_each_key_once_and_answer_alike(processes: int) -> None:
    keys = KeySet.draw(num_keys=100, num_classes=3, shape=(3, 6, 6), secret=bytes(16))
    model, asked = TwoLayers(), []
    model.register_forward_hook(lambda module, args, output: asked.append(len(args[0])))
    whole = ask(model, keys, 6)
    asked.clear()
    shares = [ask_share(model, keys, 6, process, processes) for process in range(processes)]
    assert sum(asked) == 100
    assert sorted(key for share in shares for key in share) == list(range(100))
    found = {key: labels for share in shares for key, labels in share.items()}
    assert [found[key].index(label) + 1 for key, label in enumerate(keys.labels.tolist())] == whole.tolist()

"""A model that answers no logits is found out before it is trained or asked a key."""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F

from taggant_lightning import ImageDataModule, KeyDetection, KeySet, TaggantSigning
from taggant_lightning.access.module import check_module
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger


class ModelOutput(OrderedDict[str, Any]):
    """As Hugging Face's: a mapping whose entries are attributes too."""


@dataclass
class Output:
    logits: torch.Tensor


FORMS = {
    "dictionary": (lambda x: {"logits": x}, "returns dict, .*; have it return its entry 'logits'"),
    "model output": (lambda x: ModelOutput(logits=x), "returns ModelOutput, .*; have it return its entry 'logits'"),
    "data class": (Output, "returns Output, .*; have it return the logits alone"),
    "tuple": (lambda x: (x, x), "returns tuple, .*; have it return the logits alone"),
    "list": (lambda x: [x], "returns list"),
    "nothing": (lambda x: None, "returns NoneType"),
    "labels": (lambda x: x.argmax(1), r"returns int64 \(N,\) for N images"),
    "other classes": (lambda x: torch.cat([x, x], 1), r"returns float32 \(N, 6\) for N images"),
    "pixels": (lambda x: x[:, :, None, None], r"returns float32 \(N, 3, 1, 1\)"),
}


class Net(pl.LightningModule):
    def __init__(self, form: Any) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, 3), torch.nn.Dropout())
        self.form, self.epochs, self.tested = form, 0, 0

    def forward(self, x: torch.Tensor) -> Any:
        return self.form(self.net(x))

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def test_step(self, batch: Any, index: int) -> None:
        self.tested += 1

    def validation_step(self, batch: Any, index: int) -> None:
        self.tested += 1

    def on_train_epoch_start(self) -> None:
        self.epochs += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(*callbacks: pl.Callback) -> pl.Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(max_epochs=2, accelerator="cpu", devices=1, callbacks=[*callbacks], num_sanity_val_steps=0, **quiet)


@pytest.mark.parametrize("form", FORMS)
def test_found_out_before_anything_is_paid_for(form: str, tiny_npz: Path, keys: KeySet, tmp_path: Path) -> None:
    answer, message = FORMS[form]
    folder, data = str(keys.save(tmp_path / "keys")), ImageDataModule("npz", str(tiny_npz))
    model = Net(answer)
    signing = TaggantSigning(folder, str(tmp_path / "sig"), images_per_key=2, min_images_per_key=1, steps=1, snapshots=())
    with pytest.raises(TaggantError, match=message):
        trainer(signing).fit(model, datamodule=data)
    with pytest.raises(TaggantError, match=message):
        trainer(KeyDetection(folder)).fit(model, datamodule=data)
    before = Ledger(folder, keys.commitment).entries()
    for command in ("test", "validate"):
        with pytest.raises(TaggantError, match=message):
            getattr(trainer(KeyDetection(folder)), command)(model, datamodule=data, verbose=False)
    assert (model.epochs, model.tested) == (0, 0)
    assert Ledger(folder, keys.commitment).entries() == before  # and no use is spent


def test_a_module_is_left_as_it_was() -> None:
    model = Net(lambda x: x).train()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    check_module(model, (3, 6, 6), 3)
    check_module(model.double(), (3, 6, 6), 3)
    assert torch.equal(torch.rand(3), expected)
    assert all(module.training for module in model.modules())
    lazy = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(7))
    check_module(lazy, (3, 6, 6), 3)
    assert lazy[1].has_uninitialized_params()

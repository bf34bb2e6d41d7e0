"""KeyDetection: a callback that asks a model the keys, for the verdict in `test`, and for a look in `validate` and `fit`."""

import hashlib
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import nn

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.module import ask_module, check_module, check_own_answers
from taggant_lightning.data.datamodule import datamodule_of
from taggant_lightning.data.resize import fit
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger
from taggant_lightning.evidence.record import Detection
from taggant_lightning.files import given_path
from taggant_lightning.methods.ranks import buffers_of_rank_zero, gather
from taggant_lightning.methods.taggants.batches import choose_batches
from taggant_lightning.methods.taggants.hits import key_ranks
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.methods.taggants.model_input import key_images
from taggant_lightning.outside import say
from taggant_lightning.verdict.verdict import OpenUse, conclude, judge, looked_at, ranks_of, verdict_line

PREFIX = "keys/"
# Keys a forward pass. Blocks are cut by the number of a key and never by process: a pass is the same on any number of them.
BLOCK = 32


def ask(module: nn.Module, keys: KeySet, image_size: int) -> NDArray[np.int64]:
    """Return the rank of each key's label, (K,) int64 in 1..C, or C+1 where the module answered NaN.

    Args:
        module: Maps (N, C, S, S) float in [0, 1] to logits.
        keys: The keys.
        image_size: Side S of the module's input in pixels.

    Raises:
        TaggantError: If the module answers another number of classes than the keys have.
    """
    found = ask_share(module, keys, image_size, 0, 1)
    return key_ranks([Answer(key, labels) for key, labels in found.items()], keys.labels, keys.num_classes)


def ask_share(
    module: nn.Module, keys: KeySet, image_size: int, process: int, processes: int
) -> dict[int, tuple[int | None, ...] | None]:
    """Ask one of several processes' share of the keys; together they ask each key once.

    Args:
        module: As for `ask`.
        keys: The keys.
        image_size: As for `ask`.
        process: Number of the process, from 0.
        processes: How many there are.

    Returns:
        The ranked classes, or None for NaN, by the key's number.

    Raises:
        TaggantError: If the module answers another number of classes than the keys have.
    """
    images, found = key_images(keys, image_size), dict[int, tuple[int | None, ...] | None]()
    for first in range(process * BLOCK, len(keys), processes * BLOCK):
        block = slice(first, min(first + BLOCK, len(keys)))
        answers = ask_module(module, images[block])
        lengths = {len(a.labels) for a in answers if a.labels is not None}
        if lengths - {keys.num_classes}:
            raise TaggantError(f"the model answers {max(lengths)} classes and the keys were drawn for {keys.num_classes}")
        found |= {block.start + a.query: a.labels for a in answers}
    return found


class KeyDetection(Callback):
    """Asks the keys at `test` (the verdict), at `validate` (a look) and, if wanted, after each validation of `fit` (a curve).

    Training with and without it is bit-identical: it draws no random number, keeps no gradient and leaves modes as they were.
    `test` writes `detection.json` (public) and `secret/detection.secret.json` (0600) into the run directory. Every use of the
    keys goes into the ledger beside them before anything is shown, a look at one checkpoint as well: a claim is corrected for
    all of them. A smoke test (`fast_dev_run`) asks images without meaning, shows nothing and leaves no trace. Several processes
    share the keys and ask each one once; their number does not matter.

    Args:
        keys: Folder of the KeySet.
        curve: Whether `fit` logs hits and log10 p after each validation. Each is a look, so it weakens every claim that rests
            on these keys: for experiments. No decision may rest on it.
        out: Folder for the records; None for the trainer's run directory.
    """

    def __init__(self, keys: str, curve: bool = False, out: str | None = None) -> None:
        self.keys, self.curve = str(given_path(keys, "keys")), curve
        self.out = None if out is None else str(given_path(out, "out"))
        self.detection: Detection | None = None
        self._keyset: KeySet | None = None

    @property
    def keyset(self) -> KeySet:
        """The keys, read when first needed."""
        if self._keyset is None:
            self._keyset = KeySet.load(self.keys)
        return self._keyset

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse callbacks that would choose a model by its answers on the keys.

        Raises:
            TaggantError: If a callback monitors a key metric, or the keys do not suit the data.
        """
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by the callback connector
            monitor = getattr(callback, "monitor", None)
            if isinstance(monitor, str) and monitor.startswith(PREFIX):
                raise TaggantError(
                    f"{type(callback).__name__} has monitor={monitor!r}: choosing a model by its answers on the keys makes "
                    "the p-value false; monitor 'val/acc' or 'val/loss'"
                )
        data = datamodule_of(trainer, self)
        if data.num_classes != self.keyset.num_classes:
            raise TaggantError(
                f"keys={self.keys} are drawn for {self.keyset.num_classes} classes and the data has {data.num_classes}"
            )
        if data.channels != self.keyset.images.shape[1]:
            raise TaggantError(f"keys={self.keys} have {self.keyset.images.shape[1]} channels and the images {data.channels}")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a model that answers no logits before it is trained."""
        data = datamodule_of(trainer, self)
        check_module(pl_module, (data.channels, data.image_size, data.image_size), data.num_classes)

    on_test_start = on_fit_start

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do the same for `validate`; within a training it is done."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.on_fit_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log hits and log10 p, once the look stands in the ledger."""
        if trainer.sanity_checking or not (self.curve or trainer.state.fn == TrainerFn.VALIDATING):
            return
        keys = self.keyset
        if _smoke_test(trainer):
            self._ask_nothing(trainer, pl_module)
            return
        if trainer.is_global_zero:
            Ledger(self.keys, keys.commitment).append(
                "look",
                suspect=Path(trainer.default_root_dir).name,
                batches=list(range(len(keys.batches))),
                epoch=trainer.current_epoch,
                checkpoint_sha256=_digest_of(trainer.ckpt_path) if trainer.state.fn == TrainerFn.VALIDATING else None,
            )
        ranks = ranks_of(self._ask(trainer, pl_module, list(range(len(keys)))), keys)
        outcome = keys.test.evaluate(ranks)
        values = {"hits": float(outcome.details["hits"]), "log10_p": outcome.log10_p}
        pl_module.log_dict({PREFIX + name: value for name, value in values.items()}, rank_zero_only=True)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reach the verdict, write the records, and end on one line."""
        if _smoke_test(trainer):
            self._ask_nothing(trainer, pl_module)
            return
        data = datamodule_of(trainer, self)
        keys, ledger = self.keyset, Ledger(self.keys, self.keyset.commitment)
        batches = choose_batches(keys, ledger)
        # Each process looks at the same images, so that all of them go on or none does.
        checks = check_own_answers(pl_module, key_images(keys, data.image_size)[:BLOCK])
        folder = Path(self.out or trainer.default_root_dir)
        identity = {"checkpoint_sha256": _digest_of(trainer.ckpt_path)}
        use = OpenUse(ledger, folder.name, batches, "module", settings=_settings(pl_module, data.image_size), identity=identity)
        seeds = {"run": os.environ.get("PL_GLOBAL_SEED"), "data": data.seed}
        origin = {"seeds": seeds, "checks": checks, **identity}
        answers = self._ask(trainer, pl_module, keys.numbers(batches))
        if trainer.is_global_zero:
            self.detection = conclude(answers, keys, batches, use, origin, folder)
        else:  # the same numbers, for the log; records and ledger are the first process's
            self.detection = judge(looked_at(answers, keys, batches)[1], keys, origin, batches=batches)
        values = {f"test/{PREFIX}hits": float(self.detection.details["hits"]), f"test/{PREFIX}log10_p": self.detection.log10_p}
        pl_module.log_dict(values, rank_zero_only=True)

    def _ask(self, trainer: pl.Trainer, pl_module: pl.LightningModule, numbers: list[int]) -> list[Answer]:
        """Ask all keys, each once, on all processes, and return the answers to some, in order, on each process."""
        size = datamodule_of(trainer, self).image_size
        with buffers_of_rank_zero(pl_module, trainer):
            own = ask_share(pl_module, self.keyset, size, trainer.global_rank, trainer.world_size)
        everything = gather(own, trainer)
        return [Answer(place, everything[number]) for place, number in enumerate(numbers)]

    def _ask_nothing(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask black images of the keys' number and shape, so that a smoke test goes where a test goes."""
        size, shape = datamodule_of(trainer, self).image_size, self.keyset.images.shape
        with buffers_of_rank_zero(pl_module, trainer):
            ask_module(pl_module, fit(torch.zeros(min(len(self.keyset), BLOCK), *shape[1:]), size))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Print the one greppable line last, after Lightning's table."""
        if stage == "test" and trainer.is_global_zero and self.detection is not None:
            say(verdict_line(self.detection, Path(self.out or trainer.default_root_dir)), flush=True)


def _smoke_test(trainer: pl.Trainer) -> bool:
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set by the trainer's loops


def _settings(module: pl.LightningModule, image_size: int) -> dict[str, Any]:
    """Return what shapes the queries before they reach the network."""
    arguments = getattr(module, "arguments", None)
    own = arguments if isinstance(arguments, dict) else {}
    return {"image_size": image_size, **{name: own[name] for name in ("mean", "std") if name in own}}


def _digest_of(path: object) -> str | None:
    """Return the SHA-256 of the tested checkpoint, or None where the model came from memory."""
    if not path or not Path(str(path)).is_file():
        return None
    with Path(str(path)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

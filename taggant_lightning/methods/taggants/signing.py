"""TaggantSigning: a callback that crafts a Signature between the epochs of a surrogate's training."""

import fnmatch
import logging
import time
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import nn

from taggant_lightning.access.module import check_module, evaluation
from taggant_lightning.data.augment import check_differentiable
from taggant_lightning.data.datamodule import ImageDataModule, datamodule_of
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json, given_path, read_json, secret_directory, sha256_hex
from taggant_lightning.methods.base import USUAL
from taggant_lightning.methods.ranks import buffers_of_rank_zero, gather
from taggant_lightning.methods.taggants.crafting.copies import Signable, signable
from taggant_lightning.methods.taggants.crafting.crafting import Settings
from taggant_lightning.methods.taggants.crafting.descent import DEFAULT_LR, Optimizer
from taggant_lightning.methods.taggants.crafting.gradient_norms import GradientNorms
from taggant_lightning.methods.taggants.crafting.objective import (
    Combination,
    Derivative,
    Precision,
    SigningImages,
    Surrogate,
    chunk_size,
)
from taggant_lightning.methods.taggants.crafting.perturbation import Init, Schedule, check_eps, eps_steps
from taggant_lightning.methods.taggants.crafting.round import assemble, craft_round, digest_of, signing_images
from taggant_lightning.methods.taggants.crafting.selection import Score, select
from taggant_lightning.methods.taggants.crafting.snapshots import Snapshots, after, begun_with, training_digest
from taggant_lightning.methods.taggants.crafting.state import CraftingState
from taggant_lightning.methods.taggants.crafting.team import score_together, share_out, teams
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.models.classifier import ImageClassifier, load_classifier
from taggant_lightning.models.ensemble import members
from taggant_lightning.models.perceptual import Perceptual
from taggant_lightning.outside.documents import HEAVY
from taggant_lightning.release.places import refuse_within_data
from taggant_lightning.release.signature import Signature

log = logging.getLogger(__name__)


class TaggantSigning(Callback):
    """Crafts perturbations of a signing set so that its gradient points where the keys' gradient points.

    Works with any LightningModule whose forward maps images in [0, 1] to logits, on an ImageDataModule. It runs after the
    epochs that `after_epochs` names, starts each round from the last one's perturbations, and writes the Signature after
    each. Training itself is not touched. Keys are shared out over the processes, and the images of the last ones where fewer
    keys than processes are left.

    Args:
        keys: Folder of the KeySet.
        out: Secret folder for the Signature and the crafting state; made with mode 0700.
        images_per_key: Images that sign for one key.
        min_images_per_key: Fewest images a key may have where keys share a small class.
        eps: Bound as a pixel fraction, a number or text such as 16/255.
        steps: Steps a round and restart.
        optimizer: `momentum` follows a running mean of the derivatives; `sign_adam` is the published rule.
        lr: First step size in units of eps; if left out, 4 for `momentum` and 0.125 for `sign_adam`.
        schedule: Of the step size: `cosine`, `step` (the published one) or `constant`.
        init: Start of the perturbations: `zero`, `uniform` within eps or `normal`.
        restarts: Independent starts a key; the best is kept.
        after_epochs: Epochs, counted from 1, after which to craft; None for the last one.
        snapshots: Earlier moments of training, as fractions of `max_epochs`, whose weights are crafted against too, beside
            those of the moment; an empty list for no earlier ones.
        surrogates: Checkpoints of further frozen ImageClassifiers to craft across, beside the model in training and, where
            that is an ensemble, all its members.
        ensemble: With several surrogates, each step asks the next one (`alternate`) or all of them (`mean`).
        parameters: Name patterns (as `*.weight`) of the parameters whose gradients are aligned; None for all trainable ones.
        selection: `gradient_norm` signs the images of a class that the surrogate finds hardest, `random` any.
        augment: Recipe that signing images go through while crafting; None takes the data's. Derivatives pass through all
            but `auto_augment`.
        derivative: `exact`: double backward; `difference`: from first derivatives, faster and leaner, for smooth models;
            `auto`: differences for each surrogate on which both agree.
        micro_batch: Images a chunk: memory follows it, the result does not. None for 32, and on a GPU for more where they are
            small, up to 256.
        precision: `32-true`, or `bf16-mixed` for passes over signing images in bfloat16, with exact derivatives.
        perceptual_weight: Weight of LPIPS; 0 leaves it out.
        perceptual_trunk: `alex`, `squeeze` or `vgg`.
        perceptual_weights: File with the trunk's weights, for machines without internet.
        seed: Seed of selection, starts and augmentation.

    Raises:
        TaggantError: If an argument lies outside its range.
    """

    def __init__(
        self,
        keys: str,
        out: str,
        images_per_key: int = 100,
        min_images_per_key: int = 4,
        eps: float | str = "16/255",
        steps: int = 100,
        optimizer: Optimizer = "momentum",
        lr: float | None = None,
        schedule: Schedule = "cosine",
        init: Init = "zero",
        restarts: int = 1,
        after_epochs: list[int] | None = None,
        snapshots: tuple[float, ...] = (0.5, 0.75),
        surrogates: list[str] | None = None,
        ensemble: Combination = "alternate",
        parameters: list[str] | None = None,
        selection: Literal["random", "gradient_norm"] = "gradient_norm",
        augment: str | None = None,
        derivative: Derivative = "auto",
        micro_batch: int | None = None,
        precision: Precision = "32-true",
        perceptual_weight: float = 0.0,
        perceptual_trunk: Literal["alex", "squeeze", "vgg"] = "alex",
        perceptual_weights: str | None = None,
        seed: int = 0,
    ) -> None:
        self.keys, self.out, self.seed = str(given_path(keys, "keys")), given_path(out, "out"), seed
        self.eps = check_eps(eps)
        for name, value in {
            "images_per_key": images_per_key,
            "min_images_per_key": min_images_per_key,
            "steps": steps,
            "restarts": restarts,
            "micro_batch": micro_batch,
        }.items():
            if value is not None and value < 1:
                raise TaggantError(f"{name}={value} must be at least 1")
        lr = DEFAULT_LR[optimizer] if lr is None else lr
        if lr <= 0 or perceptual_weight < 0:
            raise TaggantError(
                f"lr={lr} must be positive (in units of eps) and perceptual_weight={perceptual_weight} not negative"
            )
        if augment is not None:
            check_differentiable(augment)
        if precision == "bf16-mixed" and derivative == "difference":
            raise TaggantError(
                f"precision={precision} is too coarse for derivative={derivative}; write derivative=exact or auto"
            )
        if after_epochs is not None and (not after_epochs or min(after_epochs) < 1):
            raise TaggantError(f"after_epochs={after_epochs} must name epochs, counted from 1; leave it out for the last one")
        if any(not 0 < share < 1 for share in snapshots):
            raise TaggantError(
                f"snapshots={list(snapshots)} must lie between 0 and 1: fractions of training, such as 0.5 and 0.75"
            )
        self.images_per_key, self.min_images_per_key = images_per_key, min_images_per_key
        self.steps, self.optimizer, self.lr, self.schedule = steps, optimizer, lr, schedule
        self.init, self.restarts, self.derivative, self.ensemble = init, restarts, derivative, ensemble
        self.after_epochs = None if after_epochs is None else sorted(set(after_epochs))
        self.snapshots, self.parameters = sorted(set(snapshots)), parameters
        self.surrogates = [str(given_path(path, "surrogates")) for path in surrogates or []]
        self.selection, self.augment, self.micro_batch, self.precision = selection, augment, micro_batch, precision
        self.perceptual_weight, self.perceptual_trunk = perceptual_weight, perceptual_trunk
        self.perceptual_weights = perceptual_weights and str(given_path(perceptual_weights, "perceptual_weights"))
        self.signature: Signature | None = None
        self._rounds, self._training = 0, ""
        self._signable = Signable(np.zeros(0, np.int64), {})  # until the data are there
        self._frozen: list[nn.Module] = []
        self._perceptual: Perceptual | None = None

    @cached_property
    def keyset(self) -> KeySet:
        """The keys, read when first needed."""
        keys = KeySet.load(self.keys)
        if keys.method != USUAL:
            raise TaggantError(f"keys={self.keys} are of the method {keys.method}; mark with them by `taggant sign`")
        return keys

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check everything that can be wrong before the first epoch is paid for.

        Raises:
            TaggantError: If keys, data, epochs, surrogates, parameters or the folder do not fit together.
        """
        if stage != "fit":
            return
        data, keys = datamodule_of(trainer, self), self.keyset
        refuse_within_data(self.out, data)
        check_differentiable(data.augment if self.augment is None else self.augment)
        if data.num_classes != keys.num_classes:
            raise TaggantError(f"keys={self.keys} are drawn for {keys.num_classes} classes and the data has {data.num_classes}")
        if data.channels != keys.images.shape[1]:
            raise TaggantError(f"keys={self.keys} have {keys.images.shape[1]} channels and the images {data.channels}")
        last = trainer.max_epochs or 0
        if last < 1:
            raise TaggantError(
                f"max_epochs={trainer.max_epochs}: signing needs a number of epochs; write --trainer.max_epochs N"
            )
        if self.after_epochs and self.after_epochs[-1] > last and not _quick(trainer):
            raise TaggantError(f"after_epochs={self.after_epochs} goes beyond max_epochs={last}; name epochs of 1..{last}")
        self._frozen = [self._load_surrogate(path, data) for path in self.surrogates]
        for module in (m for whole in (pl_module, *self._frozen) for m in members(whole)):
            self._refuse_half(module)
        self._signable = signable(data, trainer)
        self._select(data, lambda indices: np.zeros(len(indices)))
        if self.perceptual_weight > 0:
            self._perceptual = Perceptual(self.perceptual_trunk, self.perceptual_weights)
        stored = self.out / "signature.json"
        # Not Signature.load: a kill between its two files must not keep the next attempt from writing both.
        if stored.exists() and read_json(stored, what="signature", limit=HEAVY).get("facts", {}).get("run") != self._run_digest(
            data
        ):
            raise TaggantError(f"out={self.out} holds a Signature made with other settings, keys or data; name a new folder")
        secret_directory(self.out)
        facts = [self._run_digest(data), last, data.batch_size, data.seed, data.augment]
        self._training = training_digest(pl_module, facts)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the model where it will run: what it answers, and in which precision the trainer has put its weights.

        Raises:
            TaggantError: If it answers no logits, or its weights are in half precision.
        """
        data = datamodule_of(trainer, self)
        for module in members(pl_module):
            self._refuse_half(module)
        check_module(pl_module, (data.channels, data.image_size, data.image_size), data.num_classes)

    def _refuse_half(self, module: nn.Module) -> None:
        if self._chosen(module)[0].dtype not in (torch.float32, torch.float64):
            raise TaggantError("the surrogate's weights are in half precision; write --trainer.precision 32-true or bf16-mixed")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse to train on after the one round of a finished training.

        Raises:
            TaggantError: If `after_epochs` names no further round.
        """
        if self.after_epochs is None and self._rounds:
            raise TaggantError(
                f"out={self.out} was signed after the last epoch of a shorter training; name a new folder, or name the rounds "
                "with after_epochs from the beginning"
            )

    def crafts_after(self, trainer: pl.Trainer, epoch: int) -> bool:
        """Say whether a round follows an epoch, counted from 1."""
        return epoch in ([trainer.max_epochs] if self.after_epochs is None or _quick(trainer) else self.after_epochs)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Craft if the schedule names this epoch, log the cosine's mean and quantiles, and write the Signature."""
        if self.crafts_after(trainer, trainer.current_epoch + 1):
            self._round(trainer, pl_module, trainer.current_epoch + 1)
        if trainer.current_epoch + 1 in self._snapshot_epochs(trainer):
            if trainer.is_global_zero and not self._snapshots.has(self._round_name):  # a round begun holds on to what it has
                self._snapshots.keep(pl_module, after(trainer.current_epoch + 1))
            trainer.strategy.barrier("taggant-snapshot")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make sure that training does not end without a word and without a Signature.

        Raises:
            TaggantError: If training was stopped before the first of the epochs that `after_epochs` names.
        """
        if self.after_epochs is None and not self._rounds:  # stopped before max_epochs, after an earlier last epoch
            self._round(trainer, pl_module, trainer.current_epoch)
        elif self._rounds < len(self.after_epochs or [0]) and not _quick(trainer):
            said = f"training ended after epoch {trainer.current_epoch}, before all of after_epochs={self.after_epochs}"
            if not self._rounds:
                raise TaggantError(f"{said}: nothing is signed; name earlier epochs or train longer")
            log.warning("%s: the Signature is that of round %d", said, self._rounds)
        if trainer.is_global_zero and self._rounds and not _quick(trainer):
            self._state.forget_before(self._rounds - 1)
            if self._rounds == len(self.after_epochs or [0]):
                self._snapshots.forget()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Craft with the weights of a checkpoint whose training had ended before, so that there was no epoch to train.

        Raises:
            TaggantError: If `after_epochs` names rounds, which belong between epochs of a training.
        """
        if self._rounds or _quick(trainer):
            return
        if self.after_epochs is not None:
            raise TaggantError(
                f"training had ended before, after epoch {trainer.current_epoch}, and nothing is signed; leave "
                f"after_epochs={self.after_epochs} out to sign with the checkpoint as it is, or start without --ckpt_path"
            )
        pl_module.to(trainer.strategy.root_device)  # by now Lightning has moved it back to the CPU
        self._round(trainer, pl_module, trainer.current_epoch)
        pl_module.cpu()
        if trainer.is_global_zero:
            self._snapshots.forget()

    @property
    def state_key(self) -> str:
        """Tell the state of one KeySet's callback from that of another beside it."""
        return self._generate_state_key(keys=self.keys)

    def state_dict(self) -> dict[str, Any]:
        """Hold the state's place and the Signature's hash; nothing secret goes into a checkpoint."""
        return {"out": str(self.out), "rounds": self._rounds, "signature": self._signature_hash()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a run, and check that the Signature of its last round still lies where it was.

        Raises:
            TaggantError: If the Signature of the checkpoint is missing or another one.
        """
        self._rounds = int(state_dict["rounds"])
        if self._rounds and state_dict["signature"] != self._signature_hash():
            raise TaggantError(
                f"out={self.out} does not hold the state of round {self._rounds} that the checkpoint was saved with (in "
                f"{state_dict['out']}); point out there, take a later checkpoint, or start anew with a new folder"
            )

    @property
    def _snapshots(self) -> Snapshots:
        return Snapshots(secret_directory(self.out) / "snapshots")

    @property
    def _round_name(self) -> str:
        return f"round-{self._rounds:02d}-{self._training[:16]}"

    def _snapshot_epochs(self, trainer: pl.Trainer) -> list[int]:
        """Return the epochs, counted from 1, whose weights are kept."""
        epochs = {round(share * (trainer.max_epochs or 0)) for share in self.snapshots}
        return [] if _quick(trainer) else sorted(epochs - {0, trainer.max_epochs})

    @property
    def _state(self) -> CraftingState:
        return CraftingState(secret_directory(self.out) / "state")

    def _signature_hash(self) -> str | None:
        """Return the hash of the last round's Signature; later rounds may have replaced the one in `out` itself."""
        path = self.out / "state" / f"round-{self._rounds - 1:02d}" / "signature.safetensors"
        return sha256_hex(path.read_bytes()) if self._rounds and path.is_file() else None

    def _run_digest(self, data: ImageDataModule) -> str:
        """Digest of what makes a Signature: under another one, a folder is not written to again."""
        facts = {**asdict(self.settings(data)), "micro_batch": 0, "keys": self.keyset.commitment, "epochs": self.after_epochs}
        facts |= {"images": [self.images_per_key, self.min_images_per_key, self.selection, data.train_indices.tolist()]}
        facts |= {"parameters": self.parameters, "perceptual": [self.perceptual_trunk, self.perceptual_weights]}
        facts |= {"data": data.train_source.fingerprint, "surrogates": self.surrogates, "snapshots": self.snapshots}
        return sha256_hex(canonical_json(facts))

    def _load_surrogate(self, path: str, data: ImageDataModule) -> nn.Module:
        model = load_classifier(path)
        wanted = {"num_classes": data.num_classes, "image_size": data.image_size, "channels": data.channels}
        for name, value in wanted.items():
            if model.arguments[name] != value:
                raise TaggantError(
                    f"surrogate {path} has {name}={model.arguments[name]} and the data {value}; train it on this data"
                )
        return model

    def _round(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epochs_done: int) -> None:
        started = time.monotonic()
        keys, data, quick = self.keyset, datamodule_of(trainer, self), _quick(trainer)
        settings = self.settings(data, pl_module.device.type)
        if quick:
            settings = replace(settings, steps=1)
        with evaluation(pl_module), buffers_of_rank_zero(pl_module, trainer):
            earlier = [epoch for epoch in self._snapshot_epochs(trainer) if epoch < epochs_done]
            begun = pl_module if quick else begun_with(self._snapshots, pl_module, self._round_name, trainer)
            twins = [self._snapshots.twin(pl_module, after(epoch)) for epoch in earlier]
            for module in self._frozen:
                if isinstance(module, ImageClassifier):  # the model in training, and its twins, are laid out already
                    module.lay_out_for(pl_module.device.type)
            models = [m for module in (begun, *twins, *self._frozen) for m in members(module.to(pl_module.device))]
            surrogates = [Surrogate(m, self._chosen(m)) for m in models]
            chosen = self._signing_images(trainer, surrogates[0], settings)
            facts: dict[str, Any] = {"keys": keys.commitment, "run": self._run_digest(data)}
            with teams(share_out([len(c.ids) for c in chosen], trainer.world_size), trainer) as mine:
                own = craft_round(
                    keys,
                    mine,
                    chosen,
                    surrogates,
                    settings,
                    state=self._state,
                    number=self._rounds,
                    digest=digest_of(surrogates, settings, chosen, facts),
                    perceptual=None if self._perceptual is None else self._perceptual.to(pl_module.device),
                    visible=trainer.is_global_zero,
                    keep=not quick,
                    carry=self._rounds + 1 < len(self.after_epochs or [0]),
                )
        for module in self._frozen:
            module.cpu()
        everything = gather(own, trainer)
        crafted = [everything[key] for key in range(len(keys))]
        cosines = torch.tensor([c.cosine for c in crafted])
        values = {"cosine_mean": float(cosines.mean()), "seconds": time.monotonic() - started}
        for share in (0.1, 0.5, 0.9):
            values[f"cosine_q{round(100 * share)}"] = float(cosines.quantile(share))
        for logger in trainer.loggers:
            logger.log_metrics({f"signing/{name}": value for name, value in values.items()}, step=trainer.global_step)
        stored = {"run": self._run_digest(data), **values}
        crafted_alone = assemble(keys, data.train_source, chosen, crafted, self.eps, stored)
        self.signature = self._signable.signed_alike(crafted_alone)
        if quick:
            log.info("fast_dev_run: crafted one step, wrote no Signature")
        elif trainer.is_global_zero:
            self.signature.save(self._state.round(self._rounds))
            self.signature.save(self.out)
            log.info(
                "signed %d images within %d/255, mean cosine %.3f; Signature in %s",
                len(self.signature), eps_steps(self.eps), values["cosine_mean"], self.out,
            )  # fmt: skip
        trainer.strategy.barrier("taggant-signature")
        self._rounds += 1

    def settings(self, data: ImageDataModule, kind: str = "cpu") -> Settings:
        """Return how to craft on this data, on a kind of device as torch names it."""
        return Settings(
            eps=self.eps,
            steps=self.steps,
            optimizer=self.optimizer,
            lr=self.lr,
            schedule=self.schedule,
            init=self.init,
            restarts=self.restarts,
            derivative=self.derivative,
            ensemble=self.ensemble,
            micro_batch=chunk_size(data.load_size, kind) if self.micro_batch is None else self.micro_batch,
            precision=self.precision,
            image_size=data.image_size,
            load_size=data.load_size,
            augment=data.augment if self.augment is None else self.augment,
            perceptual_weight=self.perceptual_weight,
            seed=self.seed,
        )

    def _chosen(self, module: nn.Module) -> list[nn.Parameter]:
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if self.parameters is not None:
            named = [(n, p) for n, p in named if any(fnmatch.fnmatch(n, pattern) for pattern in self.parameters)]
        if not named:
            raise TaggantError(f"parameters={self.parameters} matches no trainable parameter of {type(module).__name__}")
        return [p for _, p in named]

    def _select(self, data: ImageDataModule, score: Score) -> list[NDArray[np.int64]]:
        return select(
            data.train_source.labels,
            self._signable.candidates,
            self.keyset.labels,
            images_per_key=self.images_per_key,
            minimum=self.min_images_per_key,
            selection=self.selection,
            seed=self.seed,
            score=score,
        )

    def _signing_images(self, trainer: pl.Trainer, surrogate: Surrogate, settings: Settings) -> list[SigningImages]:
        """Choose the signing images in the first round, and keep them in later ones."""
        data = datamodule_of(trainer, self)
        if self._rounds:
            previous = self.signature or Signature.load(self._state.round(self._rounds - 1))
            served = [previous.indices[previous.served == key] for key in range(len(self.keyset))]
            chosen = [np.sort(self._signable.own(indices)) for indices in served]
        else:
            sides = (settings.load_size, settings.image_size)
            score = GradientNorms(surrogate, data.train_source, *sides, settings.micro_batch)
            chosen = self._select(data, lambda ids: score_together(score, ids, trainer, score.micro_batch))
        chosen = trainer.strategy.broadcast(chosen)
        return signing_images(data.train_source, chosen, self.keyset.labels)


def _quick(trainer: pl.Trainer) -> bool:
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # a property set at run time

"""ImageClassifier: a LightningModule for any timm model and for the small ones, with normalisation inside the model."""

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_path
from taggant_lightning.models.checkpoints import CHECKPOINT_ENTRY
from taggant_lightning.models.compiling import CompiledAnswers
from taggant_lightning.models.creation import CONVOLUTIONAL, Architecture
from taggant_lightning.models.ensemble import Ensemble, Normalised
from taggant_lightning.models.layout import MemoryFormat, lay_out, lay_out_states, wants_channels_last
from taggant_lightning.models.mixing import Loss, Mixing, check_loss, training_loss
from taggant_lightning.models.normalisation import MEAN, STD, Normalisation, Numbers, checked, statistics_of, suiting
from taggant_lightning.models.seeding import SeededSteps
from taggant_lightning.models.weights import start_from

log = logging.getLogger(__name__)
_ARCHITECTURE = ("model_name", "num_classes", "image_size", "channels", "mean", "std", "model_kwargs")


class ImageClassifier(pl.LightningModule):
    """A classifier that maps images in [0, 1] to logits.

    Its constructor arguments are kept in its checkpoints, so that `load_classifier` rebuilds it, but not as Lightning
    hyperparameters: those would silently beat the command line when a checkpoint is tested.

    Args:
        model_name: `small_mlp`, `small_cnn`, `small_resnet`, `small_vit`, `cifar_resnet18` (timm's, made for 32×32) or
            any timm model. Several, joined by `+`, train side by side on the same batches: an ensemble of surrogates for
            TaggantSigning.
        num_classes: C; the command line takes it from the data.
        image_size: Side of the input in pixels; the command line takes it from the data.
        channels: Image channels; the command line takes them from the data.
        lr: Peak learning rate.
        weight_decay: Weight decay.
        optimizer: `adamw`, `sgd` (Nesterov momentum 0.9) or `lamb`.
        schedule: `cosine` to zero after a linear warm-up, or `constant`.
        warmup: Fraction of all steps that the learning rate rises for.
        label_smoothing: In [0, 1).
        mean: Pixel mean that the model subtracts, in [0, 1]: one number or one a channel. Left out, that of `weights` where the
            file, a `config.json` beside it or timm names one, else 0.5.
        std: Pixel deviation that the model divides by, likewise; else 0.25.
        drop_path: Stochastic depth of timm models.
        weights: File to start from when fine-tuning: .safetensors, .pth, a checkpoint of ImageClassifier, or a folder with
            `model.safetensors`. timm fits position embeddings, patches and the first layer to another size or number of
            channels; other entries of another shape, such as the head for other classes, start afresh.
        model_kwargs: Further arguments of timm models, such as `patch_size: 4`.
        loss: Of training: `cross_entropy`, or `bce`, binary cross-entropy of each class, its mean over classes and images.
        mixup: Parameter of mixup's Beta distribution; 0 for none.
        cutmix: Parameter of CutMix's Beta distribution; 0 for none. With both, each batch takes one with equal chance.
        memory_format: How images and weights lie in memory while a trainer runs: `contiguous`, `channels_last`, or `auto`,
            which is channels_last for convolutional networks on a CUDA device, and for the images of our own ones on a CPU.
            Checkpoints fit either.
        compile: Compile the forward pass of training steps (torch.compile). Validation, signing, detection and export see the
            model as it is, and so do checkpoints.

    Raises:
        TaggantError: If an argument lies outside its range, or the model cannot be made of them.
    """

    def __init__(
        self,
        model_name: str = "small_cnn",
        num_classes: int = 10,
        image_size: int = 32,
        channels: int = 3,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        optimizer: Literal["adamw", "sgd", "lamb"] = "adamw",
        schedule: Literal["cosine", "constant"] = "cosine",
        warmup: float = 0.1,
        label_smoothing: float = 0.0,
        mean: float | list[float] | None = None,
        std: float | list[float] | None = None,
        drop_path: float = 0.0,
        weights: str | None = None,
        model_kwargs: dict[str, Any] | None = None,
        loss: Loss = "cross_entropy",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        memory_format: MemoryFormat = "auto",
        compile: bool = False,
    ) -> None:
        super().__init__()
        weights = weights and str(given_path(weights, "weights"))
        if num_classes < 2:
            raise TaggantError(f"num_classes={num_classes} must be at least 2")
        if not lr > 0:
            raise TaggantError(f"lr={lr} must be positive; write a peak learning rate such as 1e-3")
        for name, given in (("mean", mean), ("std", std)):
            if given is not None:  # before anything is built
                checked(name, given, channels)
        if not 0 <= warmup < 1:
            raise TaggantError(f"warmup={warmup} must lie in [0, 1): the fraction of steps that the learning rate rises for")
        check_loss(loss, label_smoothing)
        if memory_format not in get_args(MemoryFormat):
            raise TaggantError(f"memory_format={memory_format!r} is unknown; write one of {', '.join(get_args(MemoryFormat))}")
        self.arguments: dict[str, Any] = {
            "model_name": model_name,
            "num_classes": num_classes,
            "image_size": image_size,
            "channels": channels,
            "lr": lr,
            "weight_decay": weight_decay,
            "optimizer": optimizer,
            "schedule": schedule,
            "warmup": warmup,
            "label_smoothing": label_smoothing,
            "drop_path": drop_path,
            "model_kwargs": model_kwargs,
            "loss": loss,
            "mixup": mixup,
            "cutmix": cutmix,
        }
        # How fast it computes is no property of a model: neither is kept in a checkpoint, nor compared with one.
        self.memory_format, self._channels_last = memory_format, False
        self._compiled = CompiledAnswers() if compile else None
        self.mixing = Mixing(mixup, cutmix, num_classes)
        architecture = Architecture(model_name, num_classes, image_size, channels, drop_path, model_kwargs)
        self.model = architecture.build()
        if weights is not None:
            start_from(self.model, Path(weights), architecture.build)
        self.normalise = self._normalisation(mean, std, weights)
        from torchmetrics.classification import MulticlassAccuracy

        # Their checks would wait for the device at each batch.
        self.val_acc = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.test_acc = MulticlassAccuracy(num_classes, average="micro", validate_args=False)

    def _normalisation(self, mean: Numbers | None, std: Numbers | None, weights: str | None) -> Normalisation:
        """Keep mean and std among the arguments: the user's, else those of the weights, else the defaults."""
        wanted = {"mean": mean, "std": std}
        named = statistics_of(Path(weights), self.model) if weights is not None and None in wanted.values() else None
        channels, taken = self.arguments["channels"], []
        for name, otherwise in (("mean", MEAN), ("std", STD)):
            if (value := wanted[name]) is None:
                value = suiting(getattr(named, name), channels) if named else otherwise
                taken += [name]
            self.arguments[name] = checked(name, value, channels)
        if named:
            said = " ".join(f"{name}={self.arguments[name]}" for name in taken)
            rank_zero_info(f"taggant: {said} taken from {named.source}")
        return Normalisation(self.arguments["mean"], self.arguments["std"])

    def configure_callbacks(self) -> list[pl.Callback]:
        """Bring the callback that makes a resumed run equal to an uninterrupted one, unless it is there."""
        there = any(isinstance(c, SeededSteps) for c in self.trainer.callbacks)  # type: ignore[attr-defined]  # set at run time
        return [] if there else [SeededSteps()]

    def setup(self, stage: str) -> None:
        """Lay the weights out for the trainer's device, before they move to it and an optimizer refers to them."""
        self.lay_out_for(self.trainer.strategy.root_device.type)

    def lay_out_for(self, device: str) -> None:
        """Lay the weights out as `memory_format` says for a type of device.

        Args:
            device: Such as `cuda`. The weights do not move.
        """
        wanted = wants_channels_last(self.model, self.memory_format, device)
        if wanted != self._channels_last:
            lay_out(self.model, channels_last=wanted)
        self._channels_last = wanted

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, S, S) float in [0, 1] to logits (N, num_classes)."""
        logits: Tensor = self.model(self._prepared(images))
        return logits

    def _prepared(self, images: Tensor) -> Tensor:
        """Return images as the inner model takes them."""
        prepared: Tensor = self.normalise(images)
        if self._channels_last:
            return prepared.contiguous(memory_format=torch.channels_last)
        return prepared.contiguous() if self.memory_format == "contiguous" else prepared

    @property
    def takes_channels_last(self) -> bool:
        """Whether images of training and evaluation are best handed over channels last.

        On a CPU too, where this package's own convolutional networks are up to 1.5 times as fast with them.
        """
        own = any(part in CONVOLUTIONAL for part in self.arguments["model_name"].split("+"))
        return self._channels_last or (self.memory_format == "auto" and own)

    @property
    def members(self) -> list[nn.Module]:
        """Models that each map images in [0, 1] to logits: this one, or those of the ensemble."""
        if isinstance(self.model, Ensemble):
            return [Normalised(m, self.normalise) for m in self.model.models]
        return [self]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch of images in [0, 1] and labels; all members see the same mixed batch."""
        images, labels = self.mixing(*batch)
        loss_of = partial(training_loss, loss=self.arguments["loss"], label_smoothing=self.arguments["label_smoothing"])
        losses = [loss_of(logits, labels) for logits in self.answers(images)]
        loss = torch.stack(losses).sum()  # each member has the gradient it would have alone
        self.log_loss(loss / len(losses), len(labels))
        return loss

    def answers(self, images: Tensor) -> list[Tensor]:
        """Return each member's logits for a training step, compiled where that is asked for."""
        models = list(self.model.models) if isinstance(self.model, Ensemble) else [self.model]
        if self._compiled is None:
            return [model(self._prepared(images)) for model in models]
        return self._compiled(models, self._prepared(images))

    def log_loss(self, loss: Tensor, count: int) -> None:
        """Log the loss of a training step, without waiting for the device.

        Lightning reads a value for the progress bar back from the device at each step; the bar of `taggant` asks when it draws.
        """
        self.log("train/loss", loss, batch_size=count)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log accuracy and, whatever the loss of training, the cross-entropy."""
        images, labels = batch
        logits = self(images)
        self.val_acc.update(logits, labels)
        loss = F.cross_entropy(logits, labels)
        self.log("val/loss", loss, batch_size=len(labels), sync_dist=True)
        self.log("val/acc", self.val_acc, prog_bar=True, batch_size=len(labels))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log accuracy."""
        images, labels = batch
        self.test_acc.update(self(images), labels)
        self.log("test/acc", self.test_acc, batch_size=len(labels))

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return logits (N, num_classes)."""
        logits: Tensor = self(batch[0])
        return logits

    def configure_optimizers(self) -> Any:
        """Build the optimizer with timm's weight-decay groups, and a schedule by step."""
        from timm.optim import create_optimizer_v2

        a = self.arguments
        name = "nesterov" if a["optimizer"] == "sgd" else a["optimizer"]
        momentum = {"momentum": 0.9} if a["optimizer"] == "sgd" else {}
        fused = self._fused(next(self.model.parameters()).device)
        options = {**momentum, **({"fused": True} if fused else {})}
        optimizer = create_optimizer_v2(self.model, opt=name, lr=a["lr"], weight_decay=a["weight_decay"], **options)
        if fused:
            # Lightning refuses to clip the gradients of an optimizer that could unscale them; here nothing scales them.
            optimizer._step_supports_amp_scaling = False
        if a["schedule"] == "constant":
            return optimizer
        total = max(1, int(self.trainer.estimated_stepping_batches))
        rise = round(total * a["warmup"])

        def factor(step: int) -> float:
            if step < rise:
                return float((step + 1) / (rise + 1))
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _fused(self, device: torch.device) -> bool:
        """Return whether the optimizer takes its step in one kernel.

        Not where float16 scales gradients: a fused step unscales them itself, after clipping and callbacks have seen them.
        """
        scales = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        return device.type == "cuda" and not scales and self.arguments["optimizer"] in ("sgd", "adamw")

    def on_train_start(self) -> None:
        """Bring what a resumed optimizer keeps into the layout of the weights."""
        for optimizer in self.trainer.optimizers:
            lay_out_states(optimizer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the constructor's arguments."""
        checkpoint[CHECKPOINT_ENTRY] = dict(self.arguments)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare what was asked for with what the checkpoint was trained with.

        Raises:
            TaggantError: If the architectures differ.
        """
        if self._trainer is not None:
            fused = self._fused(self.trainer.strategy.root_device)
            groups = [group for state in checkpoint.get("optimizer_states", []) for group in state.get("param_groups", [])]
            for group in groups:  # which may have been written on another device
                if "fused" in group:
                    group["fused"] = fused or None
        stored = checkpoint.get(CHECKPOINT_ENTRY, {})
        for name, value in stored.items():
            wanted = self.arguments.get(name)
            if wanted == value:
                continue
            if name in _ARCHITECTURE:
                raise TaggantError(f"{name}={wanted}, and the checkpoint was trained with {value}; use its data and its model")
            log.warning("model.%s=%s as asked for; the checkpoint was trained with %s", name, wanted, value)


def load_classifier(path: str | Path) -> ImageClassifier:
    """Rebuild an ImageClassifier from its checkpoint, in evaluation mode on the CPU.

    Raises:
        TaggantError: If the file is missing, cannot be read safely, or holds another kind of model.
    """
    file = given_path(path, "checkpoint")
    if not file.is_file():
        raise TaggantError(f"checkpoint {file} does not exist; write a .ckpt file that `taggant fit` made")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a file it cannot read
        raise TaggantError(
            f"checkpoint {file} cannot be read ({type(error).__name__}); write a .ckpt file of `taggant fit`"
        ) from None
    if CHECKPOINT_ENTRY not in checkpoint:
        raise TaggantError(f"checkpoint {file} holds no ImageClassifier; only these can be rebuilt from a file")
    model = ImageClassifier(**checkpoint[CHECKPOINT_ENTRY])
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()

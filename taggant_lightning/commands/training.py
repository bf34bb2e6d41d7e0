"""`taggant fit | validate | test | predict`: LightningCLI in subclass mode, one run directory a run."""

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from taggant_lightning import __version__
from taggant_lightning.access.predictions import PredictionWriter
from taggant_lightning.commands.reasons import reason
from taggant_lightning.data.datamodule import ImageDataModule, SignedDataModule  # noqa: F401  # short names in YAML
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.provenance import provenance
from taggant_lightning.models.averaging import AveragedWeights  # noqa: F401  # short name in YAML
from taggant_lightning.models.checkpoints import AtomicCheckpoints
from taggant_lightning.models.classifier import ImageClassifier  # noqa: F401  # short name in YAML
from taggant_lightning.models.seeding import SeededSteps
from taggant_lightning.taggants.detection import KeyDetection
from taggant_lightning.taggants.signing import TaggantSigning  # noqa: F401  # short name in YAML

RUN_DIRECTORY = "TAGGANT_RUN_DIRECTORY"  # processes that Lightning starts inherit it, and so share one directory


class SaveRunConfig(SaveConfigCallback):
    """Writes the resolved configuration to config.yaml in the run directory, whatever the logger."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False, "overwrite": True})

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the file; `test` after `fit` in one directory keeps both."""
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        name = "config.yaml" if stage == "fit" else f"config-{TrainerFn(stage).value}.yaml"
        text = self.parser.dump(self.config, skip_none=False)
        (folder / name).write_text(text)


class TaggantCLI(LightningCLI):
    """LightningCLI with one run directory a run, and the data's properties linked into the model."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the model must know of the data."""
        for name in ("num_classes", "image_size", "channels"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        """Choose the run directory, and put logs and checkpoints into it."""
        trainer = self.config[self.subcommand].trainer
        started = time.strftime("%Y%m%d-%H%M%S")
        chosen = trainer.default_root_dir or os.environ.get(RUN_DIRECTORY) or f"runs/{started}-{self.subcommand}"
        folder = str(chosen)
        trainer.default_root_dir = os.environ[RUN_DIRECTORY] = folder
        if self.subcommand != "fit":
            require_weights(self.config[self.subcommand], Path(folder))
        if trainer.enable_progress_bar is False:  # Lightning refuses the two together
            own = self.trainer_defaults["callbacks"]
            self.trainer_defaults["callbacks"] = [c for c in own if not isinstance(c, TQDMProgressBar)]
        if trainer.logger in (None, True):
            from jsonargparse import Namespace

            # `fit` writes metrics.csv into the run directory itself and keeps an earlier one; the others use sub-folders.
            version = "" if self.subcommand == "fit" else str(self.subcommand)
            arguments = Namespace(save_dir=folder, name="", version=version, prefix="", flush_logs_every_n_steps=100)
            if self.subcommand == "fit" and getattr(rank_zero_only, "rank", 0) == 0:
                keep_metrics(Path(folder))
            trainer.logger = Namespace(class_path="lightning.pytorch.loggers.CSVLogger", init_args=arguments)
        if getattr(rank_zero_only, "rank", 0) == 0:
            facts = provenance()
            seed = self.config[self.subcommand].get("seed_everything")
            print(f"taggant: run={folder} seed={seed} commit={facts['commit']} hardware={facts['hardware']}", flush=True)

    def after_instantiate_classes(self) -> None:
        """Keep checkpoints in the run directory itself, where `--ckpt_path last` of any subcommand finds them, and whole."""
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # unless the user has chosen another
            self.trainer.strategy.checkpoint_io = AtomicCheckpoints()
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(Path(self.trainer.default_root_dir) / "checkpoints")


def require_weights(config: Any, folder: Path) -> None:
    """Refuse to judge a model that nobody trained: Lightning would quietly test its random weights.

    Raises:
        TaggantError: If an ImageClassifier has neither a checkpoint nor weights, or `last` names none.
    """
    path = config.get("ckpt_path")
    last = folder / "checkpoints" / "last.ckpt"
    if path == "last" and not last.is_file():
        raise TaggantError(f"ckpt_path=last, and {last} does not exist; write --ckpt_path FILE")
    own = str(config.get("model.class_path")).endswith("ImageClassifier")
    if path is None and own and config.get("model.init_args.weights") is None:
        raise TaggantError("ckpt_path is not given, and an untrained model has nothing to tell; write --ckpt_path FILE or last")


def keep_metrics(folder: Path) -> None:
    """Set an earlier metrics.csv aside: CSVLogger deletes it, and a resumed run would lose its first part."""
    path = folder / "metrics.csv"
    if path.exists():
        number = next(n for n in range(1, 10_000) if not (folder / f"metrics-{n}.csv").exists())
        path.rename(folder / f"metrics-{number}.csv")


def run(words: list[str]) -> None:
    """Run one of Lightning's subcommands."""
    keep = os.environ.pop(RUN_DIRECTORY, None) if "LOCAL_RANK" not in os.environ else None
    # keep_metrics has set the earlier file aside, so that nothing is deleted.
    warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
    callbacks: list[Any] = [
        SeededSteps(),
        ModelCheckpoint(save_last=True),
        TQDMProgressBar(refresh_rate=1 if sys.stderr.isatty() else 100),
    ]
    if words[0] == "predict":
        callbacks.append(PredictionWriter())
    try:
        cli = TaggantCLI(
            pl.LightningModule,
            ImageDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveRunConfig,
            seed_everything_default=0,
            trainer_defaults={"callbacks": callbacks, "num_sanity_val_steps": 0},
            parser_kwargs={"prog": "taggant", "version": __version__},
            auto_configure_optimizers=False,
            # None where the words are the process's own: given both, Lightning warns.
            args=None if words == sys.argv[1:] else words,
        )
        verdict = words[0] == "test" and any(isinstance(c, KeyDetection) for c in cli.trainer.callbacks)  # type: ignore[attr-defined]  # set at run time
        if cli.trainer.is_global_zero and not verdict:  # a verdict's line names the run itself
            print(f"taggant: run={cli.trainer.default_root_dir}", flush=True)
    except FileNotFoundError as error:
        raise TaggantError(f"{error}; check the path") from None
    except ValueError as error:
        if isinstance(error, TaggantError) or (sentence := reason(error)) is None:
            raise
        raise TaggantError(sentence) from None
    finally:
        os.environ.pop(RUN_DIRECTORY, None)
        if keep is not None:
            os.environ[RUN_DIRECTORY] = keep

"""`taggant fit | validate | test | predict`: LightningCLI in subclass mode, one run directory a run."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from jsonargparse import Namespace
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from taggant_lightning import __version__
from taggant_lightning.access.prediction_writer import PredictionWriter
from taggant_lightning.adversary.distillation import Distillation  # noqa: F401  # short name in YAML
from taggant_lightning.adversary.training import AdversarialClassifier, GradientNoise  # noqa: F401  # short names in YAML
from taggant_lightning.commands import slurm, wandb_runs
from taggant_lightning.commands.chosen_checkpoint import checked
from taggant_lightning.commands.moved import refuse_moved
from taggant_lightning.commands.refusals import refusal
from taggant_lightning.commands.requeue import Requeue
from taggant_lightning.commands.run_directory import (
    RUN_DIRECTORY,
    default_directory,
    keep_metrics,
    require_weights,
    resume_from,
)
from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.data.sources.survey import SURVEYED, surveyed
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.provenance import provenance
from taggant_lightning.files import given_path
from taggant_lightning.methods.taggants.signing import TaggantSigning  # noqa: F401  # short name in YAML
from taggant_lightning.models.averaging import AveragedWeights  # noqa: F401  # short name in YAML
from taggant_lightning.models.checkpoints import AtomicCheckpoints, ThriftyCheckpoint, keep_apart
from taggant_lightning.models.classifier import ImageClassifier  # noqa: F401  # short name in YAML
from taggant_lightning.models.seeding import SeededSteps
from taggant_lightning.outside import say
from taggant_lightning.release.signed import SignedDataModule  # noqa: F401  # short name in YAML
from taggant_lightning.reporting.progress import progress_bar
from taggant_lightning.reporting.throughput import Throughput
from taggant_lightning.verdict.key_detection import KeyDetection

COUNTS = ("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval")


class SaveRunConfig(SaveConfigCallback):
    """Writes the resolved configuration to config.yaml in the run directory, whatever the logger, and to W&B if it is one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False, "overwrite": True})

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the file; `test` after `fit` in one directory, and in one W&B run, keeps both."""
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        name = "config.yaml" if stage == "fit" else f"config-{TrainerFn(stage).value}.yaml"
        text = self.parser.dump(self.config, skip_none=False)
        (folder / name).write_text(text, encoding="utf-8")
        content = yaml.safe_load(text)
        wandb_runs.push(trainer, content if stage == "fit" else {TrainerFn(stage).value: content})


class TaggantCLI(LightningCLI):
    """LightningCLI with one run directory a run, and the data's properties linked into the model."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.chosen: Any = None  # the checkpoint that the run begins with
        try:
            super().__init__(*arguments, **options)  # which parses, builds and runs
        except Exception as error:
            if isinstance(error, TaggantError) or (sentence := refusal(error, self.chosen)) is None:
                raise
            raise TaggantError(sentence) from None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the model must know of the data."""
        for name in ("num_classes", "image_size", "channels"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Keep the checkpoint back until the configuration is complete.

        Between the two, Lightning lets a checkpoint's `hyper_parameters` replace `--model`, the class included: a file of
        somebody else's would choose what is imported and built.
        """
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        self.chosen, config.ckpt_path = config.ckpt_path, None

    def before_instantiate_classes(self) -> None:
        """Choose the run directory, and put logs and checkpoints into it."""
        config = self.config[self.subcommand]
        trainer = config.trainer
        slurm.check_tasks(trainer)
        for name in COUNTS:  # by which Lightning divides
            if isinstance(value := trainer[name], int | float) and not value > 0:
                raise TaggantError(f"{name}={value} must be above 0; write --trainer.{name} 1, or leave it out")
        chosen = trainer.default_root_dir or default_directory(str(self.subcommand))
        folder = str(given_path(chosen, "default_root_dir"))
        trainer.default_root_dir = os.environ[RUN_DIRECTORY] = folder
        config.ckpt_path = self.chosen
        if self.subcommand == "fit":
            config.ckpt_path = resume_from(config.ckpt_path, Path(folder))
        else:
            require_weights(config, Path(folder))
        config.ckpt_path = self.chosen = checked(config.ckpt_path, Path(folder), resume=self.subcommand == "fit")
        if config.weights_only is None:  # Lightning would unpickle code in a file that lies behind an address
            config.weights_only = True
        if not trainer.barebones:  # which Lightning refuses with any logger
            trainer.logger = with_csv(trainer.logger, Path(folder), str(self.subcommand))
        wandb_runs.settle(trainer.logger, Path(folder))
        if getattr(rank_zero_only, "rank", 0) == 0:
            facts, seed = provenance(), config.get("seed_everything")
            say(f"taggant: run={folder} seed={seed} commit={facts['commit']} hardware={facts['hardware']}", flush=True)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Leave out what Lightning would refuse of our own callbacks, and let it take several ModelCheckpoints."""
        trainer, own = self.config_init[self.subcommand].trainer, self.trainer_defaults["callbacks"]
        given = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
        unwanted: tuple[type, ...] = ()
        if trainer.barebones or trainer.enable_progress_bar is False or any(isinstance(c, ProgressBar) for c in given):
            unwanted += (ProgressBar,)
        if trainer.barebones or trainer.enable_checkpointing is False:
            unwanted += (ModelCheckpoint,)
        if trainer.barebones:  # a run without a log
            unwanted += (Throughput,)
        own = self.trainer_defaults["callbacks"] = [c for c in own if not isinstance(c, unwanted)]
        if trainer.check_val_every_n_epoch != 1:
            # Lightning then saves with validations only, and a run that validates rarely would lose all that lies between.
            for callback in own:
                if isinstance(callback, ModelCheckpoint):
                    callback._save_on_train_epoch_end = True
        keep_apart([*own, *given])
        return super().instantiate_trainer(**kwargs)

    def after_instantiate_classes(self) -> None:
        """Keep checkpoints in the run directory itself, where `--ckpt_path last` of any subcommand finds them, and whole."""
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # unless the user has chosen another
            self.trainer.strategy.checkpoint_io = AtomicCheckpoints()
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(Path(self.trainer.default_root_dir) / "checkpoints")
        os.environ[SURVEYED] = surveyed()  # processes that Lightning starts need not look at the data again
        self.trainer.callbacks.insert(0, Requeue())  # type: ignore[attr-defined]  # set at run time


def with_csv(loggers: Any, folder: Path, subcommand: str) -> Any:
    """Add metrics.csv in the run directory to the loggers of a configuration, so that no other one is the only copy."""
    given = [] if loggers in (None, True) else loggers if isinstance(loggers, list) else [loggers]
    if loggers is False or any(str(getattr(logger, "class_path", "")).endswith("CSVLogger") for logger in given):
        return loggers
    # `fit` writes metrics.csv into the run directory itself and keeps an earlier one; the others use sub-folders.
    version = "" if subcommand == "fit" else subcommand
    if subcommand == "fit" and getattr(rank_zero_only, "rank", 0) == 0:
        keep_metrics(folder)
    arguments = Namespace(save_dir=str(folder), name="", version=version, prefix="", flush_logs_every_n_steps=100)
    return [Namespace(class_path="lightning.pytorch.loggers.CSVLogger", init_args=arguments), *given]


def run(words: list[str]) -> None:
    """Run one of Lightning's subcommands."""
    refuse_moved(words)
    keep = os.environ.pop(RUN_DIRECTORY, None) if "LOCAL_RANK" not in os.environ else None
    own_run, status = not wandb_runs.running(), 1
    # keep_metrics has set the earlier file aside, so that nothing is deleted.
    warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
    # Predictions come in the order of the queries; which batch held which is not asked.
    warnings.filterwarnings("ignore", message="Couldn't infer the batch indices")
    callbacks: list[Any] = [SeededSteps(), ThriftyCheckpoint(save_last=True), Throughput(), progress_bar()]
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
            say(f"taggant: run={cli.trainer.default_root_dir}", flush=True)
        status = 0
    except FileNotFoundError as error:
        raise TaggantError(f"{error}; check the path") from None
    finally:
        if own_run:
            wandb_runs.finish(status)
        os.environ.pop(RUN_DIRECTORY, None)
        os.environ.pop(SURVEYED, None)
        if keep is not None:
            os.environ[RUN_DIRECTORY] = keep

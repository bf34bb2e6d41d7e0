r"""Distil a trained model: a student of any architecture learns from the soft answers of a teacher, on images without labels.

    python experiments/steps/distil.py --teacher runs/bob/checkpoints/last.ckpt --model-name small_resnet \
        --config conf/data/cifar100_cpu.yaml --data.augment simple --epochs 8 --lr 2e-3 --weight-decay 0.05 --out runs/student
    taggant test --config … --model.model_name small_resnet --ckpt_path runs/student/model.ckpt

The student sees the training images of the configured data, which may be others than the teacher's (of the same classes, size
and channels): name the unsigned originals to learn what a student takes over from the answers alone. Words --data.NAME VALUE
override the configuration. The same thing within `taggant fit` is --model Distillation --model.teacher FILE.
"""

import argparse
from collections.abc import Sequence

import lightning.pytorch as pl

from taggant_lightning.commands.read_data import read_data
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.checkpoints import checkpoint_in, write_classifier
from taggant_lightning.models.distillation import Distillation


def main(words: Sequence[str] | None = None) -> None:
    """Run the step."""
    parser = _parser()
    arguments, overrides = parser.parse_known_args(words)
    try:
        out = checkpoint_in(arguments.out, [arguments.teacher])
        if strange := [word for word in overrides if word.startswith("-") and not word.startswith("--data")]:
            raise TaggantError(
                f"{strange[0]} is no option of this step; see --help, and write --data.NAME VALUE for the data's"
            )
        write_classifier(_student(arguments, overrides), out)
    except TaggantError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"checkpoint={out} model_name={arguments.model_name} seed={arguments.seed}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--teacher", required=True, metavar="FILE", help="checkpoint of the ImageClassifier to learn from")
    parser.add_argument("--model-name", default="small_resnet", metavar="NAME", help="of the student (%(default)s)")
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="YAML; only its `data` is read")
    parser.add_argument("--epochs", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (%(default)s)")
    parser.add_argument("--weight-decay", type=float, default=0.05, help="(%(default)s)")
    parser.add_argument("--temperature", type=float, default=2.0, help="softens both models' answers (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, and of the data unless --data.seed (%(default)s)")
    parser.add_argument("--accelerator", default="auto", help="cpu, gpu or auto, of Lightning's Trainer (%(default)s)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for model.ckpt")
    return parser


def _student(arguments: argparse.Namespace, overrides: Sequence[str]) -> Distillation:
    """Train the student."""
    if arguments.epochs < 1:
        raise TaggantError(f"epochs={arguments.epochs} must be at least 1")
    data = read_data(arguments.config, [f"--data.seed={arguments.seed}", *overrides])
    pl.seed_everything(arguments.seed, workers=True, verbose=False)
    student = Distillation(
        arguments.teacher,
        arguments.temperature,
        model_name=arguments.model_name,
        num_classes=data.num_classes,
        image_size=data.image_size,
        channels=data.channels,
        lr=arguments.lr,
        weight_decay=arguments.weight_decay,
    )
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        accelerator=arguments.accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    trainer.fit(student, datamodule=data)
    return student


if __name__ == "__main__":
    main()

"""The whole configuration of a `fit` or `test`, without running it. Importing this takes Lightning's seconds."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ArgumentError
from lightning.pytorch.cli import ArgsType, LightningArgumentParser

from taggant_lightning.commands.reasons import reason
from taggant_lightning.commands.training import TaggantCLI
from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.errors import TaggantError


class _ParserOnly(TaggantCLI):
    """Stops once the parser is built."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse nothing."""
        raise _BuiltError(parser)


class _BuiltError(Exception):
    def __init__(self, parser: LightningArgumentParser) -> None:
        self.parser = parser


def resolved_configuration() -> Callable[[list[str]], dict[str, Any]]:
    """Return a function from a command's words to its configuration with all defaults, as `config.yaml` has it.

    Raises:
        TaggantError: By the function, if the command does not take its options.
    """
    quiet = {"exit_on_error": False}
    try:
        _ParserOnly(
            pl.LightningModule,
            ImageDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            trainer_defaults={"num_sanity_val_steps": 0},
            parser_kwargs={"prog": "taggant", **quiet, **dict.fromkeys(("fit", "validate", "test", "predict"), quiet)},
            auto_configure_optimizers=False,
        )
    except _BuiltError as built:
        parser = built.parser

    def resolve(words: list[str]) -> dict[str, Any]:
        try:
            found = parser.parse_args(words)
        except (ArgumentError, ValueError) as error:
            said = reason(error) or " ".join(str(error).split())
            raise TaggantError(f"{said} (in: taggant {' '.join(words)})") from None
        content: dict[str, Any] = found[words[0]].clone().as_dict()
        content.pop("config", None)  # the files that were read; what they say is in the rest
        return {name: _plain(value) for name, value in content.items()}

    return resolve


def _plain(value: Any) -> Any:
    """Return JSON."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)

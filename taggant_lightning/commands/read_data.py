"""The data that configuration files describe, for commands beside LightningCLI's."""

import json
from pathlib import Path
from typing import Any

from taggant_lightning.commands.fragments import path_of
from taggant_lightning.commands.reasons import reason
from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import read_yaml
from taggant_lightning.release.signed import SignedDataModule  # noqa: F401  # short name in YAML


def read_data(configs: list[str], overrides: list[str]) -> ImageDataModule:
    """Build the DataModule that configuration files describe; later files and then the overrides win.

    Args:
        configs: YAML files, or names of fragments; only their `data` is read, itself a mapping or the path of a file beside.
        overrides: Words such as `--data.root FOLDER`.

    Raises:
        TaggantError: If no file describes data, or one is missing.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(prog="taggant", exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    words = []
    for name in configs:
        section = _section(Path(path_of(name))).get("data")
        if isinstance(section, str):
            section = _section(Path(name).parent / section)
        if section is not None:
            words.append(f"--data={json.dumps(section)}")
    if not words:
        raise TaggantError(
            f"config={', '.join(configs)} has no `data` section; add one, or name a fragment such as data/digits"
        )
    try:
        module: ImageDataModule = parser.instantiate_classes(parser.parse_args([*words, *overrides])).data
    except (ArgumentError, ValueError) as error:
        if isinstance(error, TaggantError):
            raise
        raise TaggantError(reason(error) or " ".join(str(error).split())) from None
    return module


def _section(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        TaggantError: If it is missing, or holds no mapping.
    """
    return read_yaml(path, what="config", hint="write a YAML file with a `data` section")

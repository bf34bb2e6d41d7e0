"""`taggant release`: write the signed dataset as files, read it back from disk and check it."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taggant_lightning.commands.reasons import reason
from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.data.release import write_release
from taggant_lightning.data.signature import Signature
from taggant_lightning.errors import TaggantError


def run(words: list[str]) -> None:
    """Run `taggant release`."""
    parser = argparse.ArgumentParser(
        prog="taggant release",
        description=__doc__,
        epilog="Further options --data.NAME VALUE override the configuration, for instance --data.root FOLDER.",
    )
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="a configuration; only `data` is read")
    parser.add_argument("--signature", required=True, metavar="DIR", help="folder that TaggantSigning made")
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder for the files to publish")
    parser.add_argument("--format", default="png", metavar="png|npz", help="png: an ImageFolder; npz: one file")
    parser.add_argument("--statement", default="", metavar="TEXT", help="the dataset in words, for the manifest")
    arguments, overrides = parser.parse_known_args(words[1:])
    data = read_data(arguments.config, overrides)
    signature = Signature.load(arguments.signature)
    report = publish(data, signature, Path(arguments.out), format=arguments.format, statement=arguments.statement)
    print(
        f"{report['num_images']} images in {arguments.out}, {report['num_changed']} changed by at most {report['max_step']}/255"
        f" (bound {report['bound']}/255); read back from disk, labels and classes as in the source"
    )


def publish(
    data: ImageDataModule, signature: Signature, out: Path, *, format: str = "png", statement: str = ""
) -> dict[str, Any]:
    """Write the training images in use with the Signature applied, and check what was written.

    Args:
        data: The original data.
        signature: Made for it.
        out: New folder.
        format: `png` or `npz`.
        statement: The dataset in words.

    Returns:
        What was found on reading back.

    Raises:
        TaggantError: If the Signature belongs to other data, or the files are not as they should be.
    """
    source = signature.apply(data.train_source)
    outside = set(signature.indices.tolist()) - set(data.train_indices.tolist())
    if outside:
        raise TaggantError(
            f"{len(outside)} signed images are outside train_subset={data.train_subset}; release the subset that was signed"
        )
    return write_release(
        source,
        data.train_indices,
        out,
        format=format,  # type: ignore[arg-type]  # checked by write_release, with its message
        commitment=signature.commitment,
        statement=statement,
        progress=_bar,
    )


def _bar(count: int, what: str) -> Iterator[int]:
    from tqdm.auto import tqdm

    return iter(tqdm(range(count), desc=what, unit="image", mininterval=1, leave=False, delay=1))


def read_data(configs: list[str], overrides: list[str]) -> ImageDataModule:
    """Build the DataModule that configuration files describe; later files and then the overrides win.

    Args:
        configs: YAML files; only their `data` is read, itself a mapping or the path of a fragment beside the file.
        overrides: Words such as `--data.root FOLDER`.

    Raises:
        TaggantError: If no file describes data, or one is missing.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(prog="taggant release", exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    words = []
    for name in configs:
        section = _read_yaml(Path(name)).get("data")
        if isinstance(section, str):
            section = _read_yaml(Path(name).parent / section)
        if section is not None:
            words.append(f"--data={json.dumps(section)}")
    if not words:
        raise TaggantError(
            f"config={', '.join(configs)} has no `data` section; add one, or name a fragment such as conf/data/digits.yaml"
        )
    try:
        module: ImageDataModule = parser.instantiate_classes(parser.parse_args([*words, *overrides])).data
    except (ArgumentError, ValueError) as error:
        if isinstance(error, TaggantError):
            raise
        raise TaggantError(reason(error) or " ".join(str(error).split())) from None
    return module


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text()) or {}
    except OSError:
        raise TaggantError(f"config={path} cannot be read; write a YAML file with a `data` section") from None
    except yaml.YAMLError as error:
        raise TaggantError(f"config={path} is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise TaggantError(f"config={path} holds no mapping; write a YAML file with a `data` section")
    return content

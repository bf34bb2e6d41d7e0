"""`taggant release`: write the signed dataset as files, read it back from disk and check it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.data.release import check_release, write_release
from taggant_lightning.data.signature import Signature
from taggant_lightning.errors import TaggantError


def run(words: list[str]) -> None:
    """Run `taggant release`."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="taggant release", description=__doc__)
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="a configuration; only `data` is read")
    parser.add_argument("--signature", required=True, metavar="DIR", help="folder that TaggantSigning made")
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder for the files to publish")
    parser.add_argument("--format", default="png", metavar="png|npz", help="png: an ImageFolder; npz: one file")
    parser.add_argument("--statement", default="", metavar="TEXT", help="the dataset in words, for the manifest")
    parser.add_argument("--data", type=dict, default=None, help="overrides, as --data.root FOLDER")
    overrides = [word for word in words[1:] if word.startswith("--data.")]
    arguments = parser.parse_args([word for word in words[1:] if word not in overrides])
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
        What `check_release` found.

    Raises:
        TaggantError: If the Signature belongs to other data, or the files are not as they should be.
    """
    source = signature.apply(data.train_source)
    outside = set(signature.indices.tolist()) - set(data.train_indices.tolist())
    if outside:
        raise TaggantError(
            f"{len(outside)} signed images are outside train_subset={data.train_subset}; release the subset that was signed"
        )
    write_release(
        source,
        data.train_indices,
        out,
        format=format,  # type: ignore[arg-type]  # checked by write_release, with its message
        commitment=signature.commitment,
        statement=statement,
        progress=_bar("writing"),
    )
    return check_release(out, source, data.train_indices, _bar("reading back"))


def _bar(what: str) -> Any:
    from tqdm.auto import tqdm

    def progress(count: int) -> Iterator[int]:
        return iter(tqdm(range(count), desc=what, unit="image", mininterval=1, leave=False, delay=1))

    return progress


def read_data(configs: list[str], overrides: list[str]) -> ImageDataModule:
    """Build the DataModule that configuration files describe; later files and then the overrides win.

    Args:
        configs: YAML files; only their `data` is read, itself a mapping or the path of a fragment beside the file.
        overrides: Words such as `--data.root=FOLDER`.

    Raises:
        TaggantError: If no file describes data, or one is missing.
    """
    import yaml
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="taggant release", exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    words = []
    for name in configs:
        path = Path(name)
        if not path.is_file():
            raise TaggantError(f"config={name} is no file; write a YAML file with a `data` section")
        section = (yaml.safe_load(path.read_text()) or {}).get("data")
        if isinstance(section, str):
            section = yaml.safe_load((path.parent / section).read_text())
        if section is not None:
            words.append(f"--data={yaml.safe_dump(section, default_flow_style=True, width=10**6).strip()}")
    if not words:
        raise TaggantError(
            f"config={', '.join(configs)} has no `data` section; add one, for instance data: ../conf/data/digits.yaml"
        )
    built = parser.instantiate_classes(parser.parse_args([*words, *overrides]))
    module: ImageDataModule = built.data
    return module

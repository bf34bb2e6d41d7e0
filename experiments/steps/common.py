"""What the steps share: the data that configurations describe, training images as one array, and writing data.npz."""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.commands.read_data import read_data
from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.data.npz import stacked, write_npz
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import write_json
from taggant_lightning.release.signature import Signature
from taggant_lightning.release.visibility import visibility

READING = (
    "Further options --data.NAME VALUE override the configuration. A data.npz is read in place of the configured source by "
    "--data.source npz --data.root DIR/data.npz --data.train_subset null after the same --config."
)
DATA, METRICS, SIGNATURE = "data.npz", "metrics.json", "signature"


def parser_of(doc: str | None, *, seed: str | None = None) -> argparse.ArgumentParser:
    """Return a parser with what every step takes.

    Args:
        doc: The script's docstring, its help.
        seed: What the seed draws; None for a step without randomness, which takes none.
    """
    # Without abbreviations: `--data.…` goes to the configuration and must be taken for no option of the step.
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        description=doc, epilog=textwrap.fill(READING, 100), formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument(
        "--config", action="append", required=True, metavar="FILE", help="YAML whose `data` is read; may repeat"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    if seed is not None:
        parser.add_argument("--seed", type=int, default=0, metavar="N", help=f"seed of {seed} (default: 0)")
    return parser


@contextmanager
def one_sentence() -> Iterator[None]:
    """Tell wrong input in one sentence and leave with code 2, as `taggant` does."""
    try:
        yield
    except TaggantError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def parse(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> tuple[argparse.Namespace, ImageDataModule]:
    """Read the arguments, and the data: what the step itself does not know, such as --data.root DIR, goes to the data."""
    arguments, overrides = parser.parse_known_args(words)
    return arguments, read_data(arguments.config, overrides)


def training(data: ImageDataModule) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the training images in use (N, C, H, W) uint8, ascending by their index, and their labels (N,) int64."""
    return stacked(data.train_source, data.train_indices), data.train_source.labels[data.train_indices]


def write_data(out: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], data: ImageDataModule) -> None:
    """Write data.npz: these training images, the whole test split, and the names of all classes.

    Raises:
        TaggantError: If the test images have several shapes.
    """
    test = data.test_source
    everything = stacked(test, np.arange(len(test)))
    out.mkdir(parents=True, exist_ok=True)
    write_npz(out / DATA, images, labels, everything, test.labels, data.train_source.classes)
    print(f"wrote {out / DATA}: {len(images)} training images, {len(test)} test images, {data.num_classes} classes")


def read_signature(folder: Path, source: ImageSource) -> Signature:
    """Read the Signature whose images a baseline changes in its own way.

    Raises:
        TaggantError: If it was made for another dataset than the one that is configured.
    """
    signature = Signature.load(folder)
    signature.apply(source)  # compares the datasets
    return signature


def write_signature(out: Path, signature: Signature, source: ImageSource) -> None:
    """Write DIR/signature, secret, and metrics.json with psnr and ssim of the images that it changes, means over them."""
    overlay = signature.apply(source)
    found = visibility((source.pixels(i), overlay.pixels(i)) for i in map(int, signature.indices))
    signature.save(out / SIGNATURE)
    told = {"psnr": found["psnr_mean"], "ssim": found["ssim_mean"]}
    write_metrics(out, {name: value for name, value in told.items() if value is not None})
    print(f"wrote {out / SIGNATURE} ({signature.method}) and {out / METRICS}")


def write_metrics(out: Path, metrics: dict[str, float]) -> None:
    """Write metrics.json, names and numbers."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / METRICS, metrics)

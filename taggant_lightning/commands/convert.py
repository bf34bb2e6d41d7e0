"""`taggant convert`: write the .beton files of the ffcv backend before training wants them, on a machine without a GPU."""

import argparse
from pathlib import Path

from taggant_lightning.commands.read_data import read_data
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_paths
from taggant_lightning.outside import say
from taggant_lightning.parallel import cores


def run(words: list[str]) -> None:
    """Run `taggant convert`."""
    parser = argparse.ArgumentParser(
        prog="taggant convert",
        description=__doc__,
        epilog="Images are brought to load_size and stored as raw bytes, never re-compressed. `taggant fit` with the same data "
        "and --data.backend ffcv finds the files by their content, and makes them itself where they are missing. Further "
        "options --data.NAME VALUE override the configuration; a release is --data SignedDataModule --data.release DIR.",
    )
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="a configuration; only `data` is read")
    parser.add_argument("--out", metavar="DIR", help="folder for the files (default: data.beton of the configuration)")
    parser.add_argument("--workers", type=int, default=cores(), metavar="N", help="processes (default: all cores, %(default)s)")
    arguments, overrides = parser.parse_known_args(words[1:])
    given_paths(arguments, "config", "out")
    if arguments.workers < 1:
        raise TaggantError(f"workers={arguments.workers} must be at least 1")
    data = read_data(arguments.config, overrides)
    data.backend, data.num_workers = "ffcv", arguments.workers
    if arguments.out is not None:
        data.beton = arguments.out
    data.prepare_data()
    for path in (data.beton_path("train"), data.beton_path("test")):
        say(f"taggant: beton={path} bytes={path.stat().st_size}")
    say(f"Train with --data.backend ffcv --data.beton {Path(data.beton)}")

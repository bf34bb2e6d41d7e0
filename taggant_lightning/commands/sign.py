"""`taggant sign`: mark a dataset by a method that needs no surrogate in training."""

import argparse

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_path, given_paths
from taggant_lightning.outside import say


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="taggant sign",
        description=__doc__,
        epilog="The method is the one that the keys were drawn for (taggant keys new --method). Options --data.NAME VALUE "
        "override the configuration. Data taggants are crafted by `taggant fit` with TaggantSigning.",
        allow_abbrev=False,
    )
    parser.add_argument("--keys", required=True, metavar="DIR", help="folder of the KeySet")
    parser.add_argument(
        "--config", action="append", required=True, metavar="FILE", help="YAML whose `data` is read; may repeat"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="new secret folder for the Signature")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what the method draws (%(default)s)")
    return parser


def run(words: list[str]) -> None:
    """Run `taggant sign`."""
    arguments, overrides = _parser().parse_known_args(words[1:])
    given_paths(arguments, "keys", "out")
    from taggant_lightning.commands.read_data import read_data
    from taggant_lightning.methods.base import find
    from taggant_lightning.methods.taggants.keys import KeySet
    from taggant_lightning.release.places import refuse_within_data

    keys = KeySet.load(arguments.keys)
    method, data, out = find(keys.method), read_data(arguments.config, overrides), given_path(arguments.out, "out")
    refuse_within_data(out, data)
    if (out / "signature.json").exists():
        raise TaggantError(f"out={out} holds a Signature already; name a new folder")
    if data.num_classes != keys.num_classes:
        raise TaggantError(f"keys={arguments.keys} are of {keys.num_classes} classes, and the data have {data.num_classes}")
    signature = method.craft(data.train_source, data.train_indices, keys, seed=arguments.seed)
    if signature.method != keys.method or signature.commitment != keys.commitment:
        raise TaggantError(f"method={keys.method} made a Signature of another method or other keys; tell its authors")
    signature.apply(data.train_source)  # what does not fit is told before it is stored
    signature.save(out)
    say(f"{len(signature)} images replaced and {len(signature.additions)} added; the Signature is in {out}, and secret")

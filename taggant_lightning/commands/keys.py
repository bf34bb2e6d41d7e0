"""`taggant keys …`: draw a KeySet, at once or by a promise and a public beacon; show and check it; hand its queries out."""

import argparse
import secrets
from pathlib import Path
from typing import Any

from taggant_lightning.commands.asking_again import add_options
from taggant_lightning.commands.given import parse_batches, parse_shape, read_images, read_secret, source_of
from taggant_lightning.commands.promises import promised_header
from taggant_lightning.commands.verification import verify
from taggant_lightning.commitment.beacon import promise_of
from taggant_lightning.commitment.guessable import DEMO_SEED, demo_secret
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger, revealed, uses
from taggant_lightning.files import given_paths, read_json, secret_directory, write_secret, write_secret_json
from taggant_lightning.methods.base import USUAL as USUAL_METHOD
from taggant_lightning.methods.base import find
from taggant_lightning.methods.taggants.batches import choices, choose_batches
from taggant_lightning.methods.taggants.exported import MAP, write_map
from taggant_lightning.methods.taggants.header import USES
from taggant_lightning.methods.taggants.keys import KeySet, redraw
from taggant_lightning.outside import say
from taggant_lightning.statistics.tests import TESTS, USUAL

PROMISED = "promised.json"


def parser_of_keys() -> argparse.ArgumentParser:
    """Return the parser of all actions."""
    parser = argparse.ArgumentParser(prog="taggant keys", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    new = actions.add_parser("new", help="draw keys into a new secret folder and print the commitment to publish")
    _drawing_options(new)
    promised = actions.add_parser(
        "promise",
        help="promise keys before a public random value is known, so that nobody can say that secrets were tried",
        description="Takes what `keys new` takes, and which public random value will complete the keys. Publish the promise "
        "with a timestamp, wait for the value, then run `taggant keys fulfil` (docs/evidence.md).",
    )
    _drawing_options(promised)
    promised.add_argument("--beacon-source", required=True, metavar="TEXT", help="which public value, and when it is published")
    fulfil = actions.add_parser("fulfil", help="draw the keys that were promised, now that the public value is known")
    fulfil.add_argument("directory", metavar="PROMISED", help="folder that `keys promise` made")
    fulfil.add_argument("--beacon", required=True, metavar="VALUE", help="the public value, letters and digits")
    fulfil.add_argument("--out", required=True, metavar="DIR", help="new folder for the KeySet")
    fulfil.add_argument("--source", metavar="DIR", help="for real-image keys: the folder that was promised")
    show = actions.add_parser("show", help="print the public part of a KeySet")
    show.add_argument("directory", metavar="DIR")
    verify = actions.add_parser(
        "verify",
        help="recompute keys and commitment from the secret or from revealed batches, and check a claim",
        description="Recomputes keys and commitment. With --claim, says of somebody's claim whether its keys, test and batches "
        "were fixed before the release, whether its number is right, and what is left of it after all corrections. Exit code 2 "
        "where something fails or is unknown, 3 where nothing speaks against the claim but nobody asked the model (--ask), 0 "
        "otherwise (docs/evidence.md).",
    )
    verify.add_argument("directory", metavar="DIR", nargs="?", help="folder of the KeySet")
    verify.add_argument("--commitment", metavar="HEX", help="the published commitment to compare with")
    verify.add_argument("--secret-file", metavar="F", help="instead of DIR: the revealed secret …")
    verify.add_argument("--header", metavar="F", help="… and the published header (keyset.json beside the secret unless given)")
    verify.add_argument("--source", metavar="DIR", help="the folder that real-image keys were chosen from")
    verify.add_argument("--reveal", action="append", metavar="FILE", help="instead of DIR: a revealed batch; repeat for each")
    claim = verify.add_argument_group("to check a claim")
    claim.add_argument("--claim", metavar="FILE", help="detection.json of the claim")
    claim.add_argument("--answers", metavar="FILE", help="detection.secret.json, which the claimant shows with the reveal")
    claim.add_argument("--manifest", action="append", metavar="FILE", help="manifest.json of a release; repeat for each")
    claim.add_argument("--promised", metavar="DATE", help="with a beacon: when the promise was published")
    claim.add_argument("--beacon", metavar="DATE", help="with a beacon: when its value was published")
    claim.add_argument("--committed", metavar="DATE", help="when the commitment was published, by a public timestamp")
    claim.add_argument("--released", metavar="DATE", help="when the release was published")
    claim.add_argument("--first-seen", metavar="DATE", help="when the model was first seen, by what you know yourself")
    claim.add_argument("--ledger", metavar="FILE", help="the KeySet's ledger (that in DIR)")
    claim.add_argument(
        "--head", action="append", metavar="HEX", help="a head of the ledger that was published; repeat for each"
    )
    claim.add_argument("--level", type=float, default=1e-3, metavar="P", help="largest corrected p that holds (%(default)g)")
    add_options(verify.add_argument_group("to ask the model of a claim again, with the settings that its record names"))
    export = actions.add_parser(
        "export-queries",
        help="write the keys as PNG files among decoys, for a model that must be asked by hand",
        description="Writes keys and decoys of the same kind as PNG files with neutral names in shuffled order. Which is which "
        "stays in queries.csv in the KeySet's folder. Collect the model's ranked labels by file name, and hand them to "
        "`taggant detect --keys DIR --predictions FILE`. The images are secret: show them to nobody but the model.",
    )
    export.add_argument("directory", metavar="DIR", help="folder of the KeySet")
    export.add_argument("--out", required=True, metavar="FOLDER", help="new folder for the images, made with mode 0700")
    export.add_argument("--batches", metavar="B,B", help="numbers of the batches to ask (all that are still secret)")
    export.add_argument("--decoys", type=int, default=1, metavar="D", help="decoys for each key (%(default)s)")
    export.add_argument("--source", metavar="DIR", help="for real-image keys: the folder they were chosen from")
    return parser


def _drawing_options(new: argparse.ArgumentParser) -> None:
    new.add_argument("--out", required=True, metavar="DIR", help="new folder, made with mode 0700")
    new.add_argument("--num-keys", type=int, required=True, metavar="K", help="number of keys; 10 to 20 is usual")
    new.add_argument("--num-classes", type=int, required=True, metavar="C", help="number of classes of the dataset")
    new.add_argument("--shape", required=True, metavar="C,H,W", help="channels, height, width of the keys, as 3,32,32")
    new.add_argument("--grid", type=int, metavar="G", help="side of the noise grid (an eighth of the side, at least 4)")
    new.add_argument("--source", metavar="DIR", help="folder of real held-out images to choose keys from, instead of noise")
    new.add_argument("--blend", type=int, default=1, metavar="B", help="average B of the source images to make a key (1)")
    new.add_argument(
        "--test",
        default=USUAL,
        metavar="T",
        help=f"the one primary test: {', '.join(TESTS)} (%(default)s). rank_score needs whole rankings; "
        "sequential_top_k asks key by key and may stop early (docs/evidence.md)",
    )
    new.add_argument("--top-k", type=int, metavar="k", help="a hit is a key label among the first k answers (1)")
    new.add_argument("--bet", type=float, metavar="Q", help="rate of hits that sequential_top_k bets on (0.5)")
    new.add_argument("--stop", type=float, metavar="L", help="log10 p at which sequential_top_k stops (-6)")
    new.add_argument("--batch-size", type=int, metavar="B", help="keys a batch, for reveals in parts; one batch unless given")
    new.add_argument(
        "--uses",
        choices=USES,
        default=USES[0],
        help="with batches, what each use asks: all that are still secret, or one batch. Either way p-values are multiplied by "
        "the number of batches, as the choice is the claimant's (%(default)s)",
    )
    new.add_argument("--method", default=USUAL_METHOD, metavar="M", help="the method that marks with them (%(default)s)")
    new.add_argument("--statement", default="", metavar="TEXT", help="the dataset in words; goes into the commitment")
    secret = new.add_mutually_exclusive_group()
    secret.add_argument("--secret-file", metavar="F", help="file with the secret in hexadecimal; a fresh one unless given")
    secret.add_argument(
        "--demo-seed", type=int, metavar="N", help="keys that anybody can draw again, for experiments; claims refuse them"
    )


def run(words: list[str]) -> None:
    """Run `taggant keys`."""
    arguments = parser_of_keys().parse_args(words[1:])
    given_paths(
        arguments, "directory", "out", "source", "secret_file", "header", "claim", "answers", "manifest", "ledger", "reveal"
    )
    actions = {"new": _new, "promise": _promise, "fulfil": _fulfil, "show": _show, "verify": verify, "export-queries": _export}
    actions[arguments.action](arguments)


def _new(arguments: argparse.Namespace) -> None:
    keys = KeySet.draw(**_drawing(arguments, _secret(arguments)))
    _tell(keys, keys.save(arguments.out))


def _secret(arguments: argparse.Namespace) -> bytes:
    if arguments.demo_seed is not None:
        return demo_secret(DEMO_SEED, arguments.demo_seed)
    return secrets.token_bytes(32) if arguments.secret_file is None else read_secret(Path(arguments.secret_file))


def _drawing(arguments: argparse.Namespace, secret: bytes) -> dict[str, Any]:
    """Return the arguments of `KeySet.draw`."""
    if arguments.method != USUAL_METHOD:
        find(arguments.method)
    shape = parse_shape(arguments.shape)
    size = arguments.batch_size
    if size is not None and (size < 1 or arguments.num_keys % size):
        raise TaggantError(f"batch-size={size} does not divide num-keys={arguments.num_keys}; all batches have one size")
    return {
        "num_keys": arguments.num_keys,
        "num_classes": arguments.num_classes,
        "shape": shape,
        "top_k": arguments.top_k,
        "test": arguments.test,
        "bet": arguments.bet,
        "stop": arguments.stop,
        "blend": arguments.blend,
        "grid": arguments.grid,
        "source_images": None if arguments.source is None else read_images(Path(arguments.source), shape),
        "batches": None if size is None else [size] * (arguments.num_keys // size),
        "statement": arguments.statement,
        "uses": arguments.uses,
        "secret": secret,
        "demo_only": arguments.demo_seed is not None,
        "method": arguments.method,
    }


def _promise(arguments: argparse.Namespace) -> None:
    # The value is not known yet; any stands in for it, and none is in the promise.
    header = KeySet.draw(**_drawing(arguments, secret := _secret(arguments)), beacon=("0", arguments.beacon_source)).header
    folder = Path(arguments.out)
    if (folder / PROMISED).exists():
        raise TaggantError(f"out={folder} holds a promise already; name a new folder")
    write_secret(folder / "secret.hex", secret.hex().encode() + b"\n")
    write_secret_json(folder / PROMISED, {"header": header, "promise": promise_of(header)})
    say(f"the secret is in {folder}: keep it, copy it, never publish it")
    say(f"publish this before {arguments.beacon_source} is known:")
    say(f"promise {promise_of(header)}")


def _fulfil(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.directory)
    stored = read_json(folder / PROMISED, what="promise")
    try:
        header, made = promised_header(stored), stored["promise"]
        shape = (header["shape"][0], header["shape"][1], header["shape"][2])
        source = None if arguments.source is None else read_images(Path(arguments.source), shape)
        keys = redraw(header, read_secret(folder / "secret.hex"), beacon=arguments.beacon, source_images=source)
    except (KeyError, TypeError, IndexError) as error:
        raise TaggantError(f"promised={folder} is damaged ({error}); restore it from a copy") from None
    value = keys.header["beacon"]["value"]
    if stored.get("value", value) != value:
        raise TaggantError(
            f"beacon={arguments.beacon!r}: the promise was fulfilled with {stored['value']!r}, and a promise has one value"
        )
    if promise_of(keys.header) != made:
        raise TaggantError(f"promised={folder}: these keys are not those of the promise {made}; restore the folder from a copy")
    saved = keys.save(arguments.out)
    write_secret_json(folder / PROMISED, {**stored, "value": value})
    _tell(keys, saved)


def _tell(keys: KeySet, folder: Path) -> None:
    if keys.header["demo_only"]:
        say(f"{len(keys)} keys in {folder}, for experiments only: anybody can draw them, and claims refuse them")
        return
    say(f"{len(keys)} keys in {folder} (secret: keep it, copy it, never publish it)")
    if (ways := choices(keys.header)) > 1:
        say(f"which batches a use asks can be chosen in {ways} ways, so every p-value is multiplied by {ways}")
    say("publish this before the release:")
    say(f"commitment {keys.commitment}")


def _show(arguments: argparse.Namespace) -> None:
    keys = KeySet.load(arguments.directory)
    for name, value in keys.header.items():
        say(f"{name:<12} {value}")
    say(f"{'rate':<12} {keys.rate:g}  (chance of one hit for a model that owes nothing to the keys)")
    say(f"{'commitment':<12} {keys.commitment}")
    entries = Ledger(arguments.directory, keys.commitment).entries()
    for use in uses(entries):
        if use.look:
            say(f"look         {use.time} {use.suspect}: counts as a use (with p = 1)")
            continue
        outcome = f"log10 p {use.log10_p:.2f}" if use.finished else "not finished (counts as p = 1)"
        say(f"use          {use.time} {use.suspect}: batches {list(use.batches)}, {outcome}")
    for batch, time in revealed(entries).items():
        say(f"revealed     batch {batch} on {time}: supports no claim against models first seen later")


def _export(arguments: argparse.Namespace) -> None:
    from taggant_lightning.access.png import png
    from taggant_lightning.methods.taggants.queries import plan_queries

    keys = KeySet.load(arguments.directory)
    chosen = choose_batches(keys, Ledger(arguments.directory, keys.commitment), parse_batches(arguments.batches))
    plan = plan_queries(keys, chosen, arguments.decoys, source_of(keys, arguments.source))
    folder = Path(arguments.out)
    if folder.exists() and any(folder.iterdir()):
        raise TaggantError(f"out={folder} is not empty; name a new folder")
    secret_directory(folder)
    pairs = sorted((query.name, key) for query, key in zip(plan.queries, plan.keys, strict=True))
    images = {query.name: query.image for query in plan.queries}
    write_map(Path(arguments.directory), pairs)  # first: images without it would be of no use
    for name, _ in pairs:
        write_secret(folder / f"{name}.png", png(images[name]))
    say(f"{len(pairs)} images in {folder}, {len(pairs) - len(keys.numbers(chosen))} of them decoys (batches {chosen})")
    say(f"which is which: {Path(arguments.directory) / MAP} (secret)")

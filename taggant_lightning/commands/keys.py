"""`taggant keys new | show | verify`: draw a KeySet, show its public part, check it."""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError
from taggant_lightning.taggants.keys import KeySet


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="taggant keys", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    new = actions.add_parser("new", help="draw keys into a new secret folder and print the commitment to publish")
    new.add_argument("--out", required=True, metavar="DIR", help="new folder, made with mode 0700")
    new.add_argument("--num-keys", type=int, required=True, metavar="K", help="number of keys; 10 to 20 is usual")
    new.add_argument("--num-classes", type=int, required=True, metavar="C", help="number of classes of the dataset")
    new.add_argument("--shape", required=True, metavar="C,H,W", help="channels, height, width of the keys, as 3,32,32")
    new.add_argument("--grid", type=int, metavar="G", help="side of the noise grid (an eighth of the side, at least 4)")
    new.add_argument("--source", metavar="DIR", help="folder of real held-out images to choose keys from, instead of noise")
    new.add_argument("--top-k", type=int, default=1, metavar="k", help="a hit is a key label among the first k answers")
    new.add_argument("--batch-size", type=int, metavar="B", help="keys a batch, for reveals in parts; one batch unless given")
    new.add_argument("--statement", default="", metavar="TEXT", help="the dataset in words; goes into the commitment")
    new.add_argument("--secret-file", metavar="F", help="file with the secret in hexadecimal; a fresh one unless given")
    show = actions.add_parser("show", help="print the public part of a KeySet")
    show.add_argument("directory", metavar="DIR")
    verify = actions.add_parser("verify", help="recompute keys and commitment from the secret")
    verify.add_argument("directory", metavar="DIR", nargs="?", help="folder of the KeySet")
    verify.add_argument("--commitment", metavar="HEX", help="the published commitment to compare with")
    verify.add_argument("--secret-file", metavar="F", help="instead of DIR: the revealed secret …")
    verify.add_argument("--header", metavar="F", help="… and the published header (keyset.json beside the secret unless given)")
    verify.add_argument("--source", metavar="DIR", help="the folder that real-image keys were chosen from")
    return parser


def run(words: list[str]) -> None:
    """Run `taggant keys`."""
    arguments = _parser().parse_args(words[1:])
    {"new": _new, "show": _show, "verify": _verify}[arguments.action](arguments)


def _new(arguments: argparse.Namespace) -> None:
    shape = parse_shape(arguments.shape)
    size = arguments.batch_size
    if size is not None and (size < 1 or arguments.num_keys % size):
        raise TaggantError(f"batch-size={size} does not divide num-keys={arguments.num_keys}; all batches have one size")
    keys = KeySet.draw(
        num_keys=arguments.num_keys,
        num_classes=arguments.num_classes,
        shape=shape,
        top_k=arguments.top_k,
        grid=arguments.grid,
        source_images=None if arguments.source is None else read_images(Path(arguments.source), shape),
        batches=None if size is None else [size] * (arguments.num_keys // size),
        statement=arguments.statement,
        secret=None if arguments.secret_file is None else read_secret(Path(arguments.secret_file)),
    )
    folder = keys.save(arguments.out)
    print(f"{len(keys)} keys in {folder} (secret: keep it, copy it, never publish it)")
    print(f"publish this before the release:\ncommitment {keys.commitment}")


def _show(arguments: argparse.Namespace) -> None:
    keys = KeySet.load(arguments.directory)
    for name, value in keys.header.items():
        print(f"{name:<12} {value}")
    print(f"{'rate':<12} {keys.rate:g}  (chance of one hit for a model that owes nothing to the keys)")
    print(f"{'commitment':<12} {keys.commitment}")


def _verify(arguments: argparse.Namespace) -> None:
    if (arguments.directory is None) == (arguments.secret_file is None):
        raise TaggantError("name a KeySet's folder, or --secret-file with --header and --commitment")
    keys = _from_secret(arguments) if arguments.directory is None else KeySet.load(arguments.directory)
    real = keys.header["derivation"]["source"] == "images"
    images = None
    if arguments.source is not None:
        if not real:
            raise TaggantError(f"source={arguments.source} is given, and these keys are noise; leave it out")
        images = read_images(Path(arguments.source), (keys.images.shape[1], keys.images.shape[2], keys.images.shape[3]))
    keys.check(arguments.commitment, images)
    print("verified: labels follow from the secret" if real and images is None else "verified: keys follow from the secret")
    if real and images is None:
        print("the images are real ones, held by the commitment alone; add --source DIR to recompute the choice")
    if arguments.commitment:
        print("verified: the commitment is that of these keys")
    print(f"commitment {keys.commitment}")


def _from_secret(arguments: argparse.Namespace) -> KeySet:
    from taggant_lightning.files import read_json

    if arguments.commitment is None:
        raise TaggantError("--secret-file needs --commitment HEX, the one that was published")
    path = Path(arguments.header or Path(arguments.secret_file).parent / "keyset.json")
    if not path.is_file():
        raise TaggantError(f"header={path} does not exist; write --header FILE with the published header of the KeySet")
    header = read_json(path, what="header")
    header = header.get("header", header)
    if header.get("derivation", {}).get("source") != "noise":
        raise TaggantError("keys chosen from real images cannot be recomputed from the secret alone; verify their folder")
    try:
        return KeySet.draw(
            num_keys=header["num_keys"],
            num_classes=header["num_classes"],
            shape=tuple(header["shape"]),
            top_k=header["test"]["top_k"],
            grid=header["derivation"]["grid"],
            batches=header["batches"],
            statement=header["statement"],
            demo_only=header["demo_only"],
            secret=read_secret(Path(arguments.secret_file)),
        )
    except (KeyError, TypeError) as error:
        raise TaggantError(f"header={arguments.header} lacks or garbles {error}; take the `header` of keyset.json") from None


def parse_shape(text: str) -> tuple[int, int, int]:
    """Read `C,H,W`.

    Raises:
        TaggantError: If the text is not three whole numbers.
    """
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise TaggantError(f"shape={text!r} must be three whole numbers: channels,height,width, for instance 3,32,32") from None
    return channels, height, width


def read_secret(path: Path) -> bytes:
    """Read a secret in hexadecimal.

    Raises:
        TaggantError: If the file is missing or holds something else.
    """
    try:
        return bytes.fromhex(path.read_text())
    except OSError:
        raise TaggantError(f"secret-file={path} cannot be read; name a file with the secret in hexadecimal") from None
    except ValueError:
        raise TaggantError(
            f"secret-file={path} is not hexadecimal; write 64 digits, for instance from `openssl rand -hex 32`"
        ) from None


def read_images(folder: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Read all images of a folder, resized to one shape.

    Args:
        folder: Searched with its sub-folders, files in alphabetical order.
        shape: (C, H, W) of the result, C 1 (grey) or 3 (RGB).

    Returns:
        (N, C, H, W) uint8.

    Raises:
        TaggantError: If the folder holds no image or one cannot be read.
    """
    from PIL import Image

    from taggant_lightning.data.sources import SUFFIXES

    if not folder.is_dir():
        raise TaggantError(f"source={folder} is no folder; name one with held-out images")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
    if not files or shape[0] not in (1, 3):
        raise TaggantError(f"source={folder} holds {len(files)} images and shape={shape}; give images, and 1 or 3 channels")
    arrays = []
    for file in files:
        try:
            with Image.open(file) as image:
                resized = image.convert("L" if shape[0] == 1 else "RGB").resize((shape[2], shape[1]), Image.Resampling.BICUBIC)
        except OSError as error:
            raise TaggantError(f"image {file} cannot be read ({error}); replace or remove it") from None
        array = np.asarray(resized, dtype=np.uint8)
        arrays.append(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
    return np.ascontiguousarray(np.stack(arrays))

"""Revealing a batch of keys: enough for anybody to check against the commitment, while the other batches stay secret."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.commitment import beacon, seeds
from taggant_lightning.commitment.guessable import guessable, guessable_seed
from taggant_lightning.commitment.merkle import commitment_of_root, leaf, merkle_path, root_from_path, spelled_place
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger, revealed
from taggant_lightning.files import read_json
from taggant_lightning.methods.taggants.header import check_header, is_first_version
from taggant_lightning.methods.taggants.key_images import batch_secret, draw_label, draw_salt, noise_image
from taggant_lightning.methods.taggants.keys import MIN_SECRET_BYTES, KeySet
from taggant_lightning.methods.taggants.reveal_fields import check_reveal
from taggant_lightning.outside import shown
from taggant_lightning.outside.documents import HEAVY
from taggant_lightning.statistics.tests import SignificanceTest, read_test

FORMAT, FORMAT_1 = "taggant-lightning/reveal/v2", "taggant-lightning/reveal/v1"


@dataclass(frozen=True)
class Revealed:
    """Keys that a third party has, and has checked.

    Attributes:
        header: The KeySet's public header.
        commitment: What header and keys lead to, 64 hexadecimal digits.
        images: (C, H, W) uint8 by the key's number.
        labels: Label by the key's number.
        tied: Whether it is shown that the secrets of all batches were fixed together.
        guessable: Whether the secret is seen to be one that anybody can guess.
    """

    header: dict[str, Any]
    commitment: str
    images: dict[int, NDArray[np.uint8]]
    labels: dict[int, int]
    tied: bool = True
    guessable: bool = False

    @classmethod
    def of(cls, keys: KeySet) -> "Revealed":
        """Everything that a whole secret reveals."""
        numbers = range(len(keys))
        return cls(
            keys.header,
            keys.commitment,
            {i: keys.images[i] for i in numbers},
            {i: int(keys.labels[i]) for i in numbers},
            guessable=keys.demo_only,
        )

    @cached_property
    def test(self) -> SignificanceTest:
        """The test that the header fixes."""
        return read_test(self.header["test"], self.header["num_classes"])

    @property
    def batches(self) -> list[range]:
        """The numbers of the keys of each batch of the KeySet, revealed or not."""
        ends = np.cumsum(self.header["batches"]).tolist()
        return [range(end - size, end) for size, end in zip(self.header["batches"], ends, strict=True)]


def reveal(keys: KeySet, batch: int, ledger: Ledger) -> dict[str, Any]:
    """Reveal a batch: return what is to be published, and mark the batch spent.

    Args:
        keys: The keys.
        batch: Number of the batch, from 0; all before it have been revealed.
        ledger: The KeySet's; a batch that was revealed before is not entered twice.

    Returns:
        JSON: header, commitment, the batch's seed with its path to the root of all seeds, and each of its keys with image,
        label, salt and path to the root. Of a KeySet of format v1: the batch's secret, and its seed where it has one.

    Raises:
        TaggantError: If the batch does not exist, or one before it is still secret.
    """
    numbers = keys.numbers([batch])
    spent = revealed(ledger.entries())
    if missing := [earlier for earlier in range(batch) if earlier not in spent]:
        raise TaggantError(
            f"reveal={batch}: batch {missing[0]} is still secret, and batches are revealed in order; reveal it first"
        )
    if batch not in spent:
        ledger.append("reveal", batch=batch)
    leaves, salts = keys.leaves(), keys.salts()
    return {
        "header": keys.header,
        "commitment": keys.commitment,
        "batch": batch,
        **_opening(keys, batch),
        "keys": [
            {
                "number": number,
                "image": base64.b64encode(keys.images[number].tobytes(order="C")).decode(),
                "label": int(keys.labels[number]),
                "salt": salts[number].hex(),
                "path": [[side, node.hex()] for side, node in merkle_path(leaves, number)],
            }
            for number in numbers
        ],
    }


def _opening(keys: KeySet, batch: int) -> dict[str, Any]:
    """Return what the keys of a batch are derived from, as a reveal shows it."""
    header, secret = keys.header, keys.secret
    if not is_first_version(header):
        path = seeds.seed_path(secret, len(keys.batches), batch)
        steps = [[side, node.hex()] for side, node in path]
        return {"format": FORMAT, "seed": seeds.batch_seed(secret, batch).hex(), "seed_path": steps}
    seed = {"seed": beacon.batch_seed(secret, batch).hex()} if "beacon" in header else {}
    return {"format": FORMAT_1, "secret": batch_secret(header, secret, batch).hex(), **seed}


def read_reveals(paths: Sequence[str | Path]) -> Revealed:
    """Read revealed batches and check every key against the commitment.

    Args:
        paths: One file or more that `taggant report --reveal` wrote, all of one KeySet.

    Raises:
        TaggantError: If a file is damaged, holds a part of a batch only, or a key does not lead to the commitment.
    """
    found = [_read(Path(path)) for path in paths]
    first = found[0]
    for path, other in zip(paths, found, strict=True):
        if other.commitment != first.commitment:
            raise TaggantError(
                f"reveal={path} belongs to the commitment {other.commitment}, and {paths[0]} to {first.commitment}"
            )
    images = {number: image for one in found for number, image in one.images.items()}
    labels = {number: label for one in found for number, label in one.labels.items()}
    return Revealed(first.header, first.commitment, images, labels, first.tied, any(one.guessable for one in found))


def _read(path: Path) -> Revealed:
    stored = read_json(path, what="reveal", limit=HEAVY)
    try:
        check_reveal(stored)
        if stored["format"] not in (FORMAT, FORMAT_1):
            said = f"has the format {shown(repr(stored['format']))}; this program reads {FORMAT} and {FORMAT_1}"
            raise TaggantError(f"reveal={path} {said}")
        header, batch = stored["header"], stored["batch"]
        check_header(header)
        if type(batch) is not int or not 0 <= batch < len(header["batches"]):
            raise TaggantError(f"reveal={path}: batch={batch!r} does not exist in this KeySet")
        if (stored["format"] == FORMAT_1) != is_first_version(header):
            raise TaggantError(f"reveal={path} has the format {stored['format']!r}, and its header {header['format']!r}")
        shape, of_batch = tuple(header["shape"]), _secret_of(stored, path)
        images, labels = {}, {}
        for key in stored["keys"]:
            number, label = key["number"], key["label"]
            if type(number) is not int or type(label) is not int or not 0 <= label < header["num_classes"] or number < 0:
                raise TaggantError(f"reveal={path}: number={number!r} and label={label!r} do not describe a key")
            image = np.frombuffer(_pixels(key["image"]), dtype=np.uint8).reshape(shape)
            start = leaf(number, image, label, _bytes(key["salt"]))
            root = root_from_path(start, [(side, _bytes(node)) for side, node in key["path"]])
            if not _follows(header, of_batch, number, image, label, _bytes(key["salt"])):
                raise TaggantError(
                    f"reveal={path}: key {number} does not follow from the batch's secret; it is forged or damaged"
                )
            if (
                spelled_place([side for side, _ in key["path"]], header["num_keys"]) != number
                or commitment_of_root(header, root) != stored["commitment"]
            ):
                raise TaggantError(f"reveal={path}: key {number} does not lead to the commitment; it is forged or damaged")
            images[number], labels[number] = image, label
        tied = not is_first_version(header) or "beacon" in header or len(header["batches"]) == 1
        open_secret = _is_guessable(stored)
        revealed_keys = Revealed(header, stored["commitment"], images, labels, tied, open_secret)
        if sorted(images) != list(revealed_keys.batches[batch]) or len(images) != len(stored["keys"]):
            raise TaggantError(f"reveal={path} holds keys {sorted(images)} and not the whole batch {stored['batch']}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, TaggantError):
            raise
        raise TaggantError(f"reveal={path} is damaged ({error!r}); ask for it again") from None
    return revealed_keys


def _secret_of(stored: dict[str, Any], path: Path) -> bytes:
    """Return the batch's secret that a reveal shows, if it is the one that the header fixes."""
    header, batch = stored["header"], stored["batch"]
    if not is_first_version(header):
        seed, steps = _bytes(stored["seed"]), [(side, _bytes(node)) for side, node in stored["seed_path"]]
        if not seeds.belongs(header, seed, batch, steps):
            raise TaggantError(
                f"reveal={path}: the batch's seed does not lead to the seeds of the header; it is forged or damaged"
            )
        return beacon.secret_of_seed(header, seed, batch)
    secret = _bytes(stored["secret"])
    if len(secret) < MIN_SECRET_BYTES:
        raise TaggantError(
            f"reveal={path}: a secret of {len(secret)} bytes is too short; at least {MIN_SECRET_BYTES} are needed"
        )
    if "beacon" in header:
        seed = _bytes(stored["seed"])
        promised = header["beacon"]["seeds"][batch] == beacon.seed_digest(seed, batch)
        if not promised or beacon.secret_of_seed(header, seed, batch) != secret:
            raise TaggantError(f"reveal={path}: the batch's secret does not follow from the promised seed and the beacon")
    return secret


def _bytes(text: str) -> bytes:
    """Read hexadecimal in its one spelling: lower case, no blanks."""
    read = bytes.fromhex(text)
    if read.hex() != text:
        raise ValueError(f"{text[:20]!r} is not hexadecimal in lower case without blanks")
    return read


def _pixels(text: str) -> bytes:
    """Read base64 in its one spelling."""
    read = base64.b64decode(text, validate=True)
    if base64.b64encode(read).decode() != text:
        raise ValueError(f"{text[:20]!r} is not base64 as it is written")
    return read


def _is_guessable(stored: dict[str, Any]) -> bool:
    """Return whether what a reveal shows follows from a secret that anybody can guess."""
    header = stored["header"]
    if header["demo_only"]:
        return True
    if not is_first_version(header):
        return guessable_seed(_bytes(stored["seed"]), stored["batch"])
    return "beacon" not in header and len(header["batches"]) == 1 and guessable(_bytes(stored["secret"]))


def _follows(header: dict[str, Any], of_batch: bytes, number: int, image: NDArray[np.uint8], label: int, salt: bytes) -> bool:
    """Return whether a key is what its batch's secret gives: a claimant has no say in the labels."""
    noise = header["derivation"]["source"] == "noise"
    return (
        draw_label(header, of_batch, number) == label
        and draw_salt(header, of_batch, number) == salt
        and (not noise or np.array_equal(noise_image(header, of_batch, number), image))
    )

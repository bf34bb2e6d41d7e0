"""Revealing a batch of keys: enough for anybody to check against the commitment, while the other batches stay secret."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger, revealed
from taggant_lightning.files import read_json
from taggant_lightning.outside import shown
from taggant_lightning.outside.documents import HEAVY
from taggant_lightning.taggants.beacon import batch_seed, beacon_secret, seed_digest
from taggant_lightning.taggants.commitment import commitment_of_root, leaf, merkle_path, root_from_path
from taggant_lightning.taggants.header import check_header
from taggant_lightning.taggants.key_images import batch_secret, draw_label, draw_salt, noise_image
from taggant_lightning.taggants.keys import KeySet
from taggant_lightning.taggants.reveal_fields import check_reveal

FORMAT = "taggant-lightning/reveal/v1"


@dataclass(frozen=True)
class Revealed:
    """Keys that a third party has, and has checked.

    Attributes:
        header: The KeySet's public header.
        commitment: What header and keys lead to, 64 hexadecimal digits.
        images: (C, H, W) uint8 by the key's number.
        labels: Label by the key's number.
    """

    header: dict[str, Any]
    commitment: str
    images: dict[int, NDArray[np.uint8]]
    labels: dict[int, int]

    @classmethod
    def of(cls, keys: KeySet) -> "Revealed":
        """Everything that a whole secret reveals."""
        numbers = range(len(keys))
        return cls(
            keys.header, keys.commitment, {i: keys.images[i] for i in numbers}, {i: int(keys.labels[i]) for i in numbers}
        )

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
        JSON: header, commitment, the batch's secret, and each of its keys with image, label, salt and path to the root.

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
        "format": FORMAT,
        "header": keys.header,
        "commitment": keys.commitment,
        "batch": batch,
        "secret": batch_secret(keys.header, keys.secret, batch).hex(),
        **({"seed": batch_seed(keys.secret, batch).hex()} if "beacon" in keys.header else {}),
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
    return Revealed(first.header, first.commitment, images, labels)


def _read(path: Path) -> Revealed:
    stored = read_json(path, what="reveal", limit=HEAVY)
    try:
        check_reveal(stored)
        if stored["format"] != FORMAT:
            raise TaggantError(f"reveal={path} has the format {shown(repr(stored['format']))}; this program reads {FORMAT}")
        header, batch = stored["header"], stored["batch"]
        check_header(header)
        if type(batch) is not int or not 0 <= batch < len(header["batches"]):
            raise TaggantError(f"reveal={path}: batch={batch!r} is none of this KeySet")
        shape, of_batch = tuple(header["shape"]), bytes.fromhex(stored["secret"])
        if "beacon" in header and not _promised(header, bytes.fromhex(stored["seed"]), of_batch, batch):
            raise TaggantError(f"reveal={path}: the batch's secret does not follow from the promised seed and the beacon")
        images, labels = {}, {}
        for key in stored["keys"]:
            number, label = key["number"], key["label"]
            if type(number) is not int or type(label) is not int or not 0 <= label < header["num_classes"] or number < 0:
                raise TaggantError(f"reveal={path}: number={number!r} and label={label!r} are none of a key")
            image = np.frombuffer(base64.b64decode(key["image"], validate=True), dtype=np.uint8).reshape(shape)
            start = leaf(number, image, label, bytes.fromhex(key["salt"]))
            root = root_from_path(start, [(side, bytes.fromhex(node)) for side, node in key["path"]])
            if not _follows(header, of_batch, number, image, label, bytes.fromhex(key["salt"])):
                raise TaggantError(
                    f"reveal={path}: key {number} does not follow from the batch's secret; it is forged or damaged"
                )
            if (
                not _leads_from(number, key["path"], header["num_keys"])
                or commitment_of_root(header, root) != stored["commitment"]
            ):
                raise TaggantError(f"reveal={path}: key {number} does not lead to the commitment; it is forged or damaged")
            images[number], labels[number] = image, label
        revealed_keys = Revealed(header, stored["commitment"], images, labels)
        if sorted(images) != list(revealed_keys.batches[batch]) or len(images) != len(stored["keys"]):
            raise TaggantError(f"reveal={path} holds keys {sorted(images)} and not the whole batch {stored['batch']}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, TaggantError):
            raise
        raise TaggantError(f"reveal={path} is damaged ({error!r}); ask for it again") from None
    return revealed_keys


def _promised(header: dict[str, Any], seed: bytes, of_batch: bytes, batch: int) -> bool:
    """Return whether a batch's secret is what its promised seed and the beacon give."""
    return header["beacon"]["seeds"][batch] == seed_digest(seed, batch) and beacon_secret(header, seed, batch) == of_batch


def _follows(header: dict[str, Any], of_batch: bytes, number: int, image: NDArray[np.uint8], label: int, salt: bytes) -> bool:
    """Return whether a key is what its batch's secret gives: a claimant has no say in the labels."""
    noise = header["derivation"]["source"] == "noise"
    return (
        draw_label(header, of_batch, number) == label
        and draw_salt(header, of_batch, number) == salt
        and (not noise or np.array_equal(noise_image(header, of_batch, number), image))
    )


def _leads_from(place: int, path: Sequence[Sequence[str]], count: int) -> bool:
    """Return whether a path has the sides of a leaf's place in a tree over `count` leaves; no two places share them."""
    sides, position, width = [], place, count
    while width > 1:
        if position ^ 1 < width:
            sides.append("left" if position & 1 else "right")
        position, width = position // 2, (width + 1) // 2
    return place < count and sides == [side for side, _ in path]

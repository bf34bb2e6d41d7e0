"""KeySet: the secret key images with their labels, and the one test they are made for."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.commitment.beacon import describe_beacon, describe_seeds
from taggant_lightning.commitment.guessable import guessable
from taggant_lightning.commitment.merkle import commitment, leaf
from taggant_lightning.commitment.seeds import FORMAT, seeds_root
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.record_fields import HEX
from taggant_lightning.files import (
    given_path,
    read_json,
    secret_directory,
    sha256_hex,
    write_secret,
    write_secret_json,
)
from taggant_lightning.methods.base import NAME, method_of
from taggant_lightning.methods.base import USUAL as TAGGANTS
from taggant_lightning.methods.taggants.header import FORMAT_1, USES, check_header, check_words, is_first_version
from taggant_lightning.methods.taggants.key_images import describe, draw_label, draw_salt, key_secrets, noise_image, real_images
from taggant_lightning.methods.taggants.limits import MOST_BYTES, check_limits
from taggant_lightning.outside.documents import DOCUMENT, read_bounded
from taggant_lightning.statistics.tests import USUAL, SignificanceTest, make_test, read_test

MIN_SECRET_BYTES = 16
_FILES = ("keyset.json", "keys.safetensors", "secret.hex")


@dataclass(frozen=True)
class KeySet:
    """K key images with labels, derived from a secret. Draw one with `KeySet.draw`, read one with `KeySet.load`.

    Attributes:
        images: (K, C, H, W) uint8.
        labels: (K,) int64 in 0..num_classes−1, independent and uniform.
        header: What the commitment says in the open: number of keys, classes, shape, test, batches, derivation, statement.
        secret: The secret, 16 bytes or more.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    header: dict[str, Any]
    secret: bytes

    @classmethod
    def draw(
        cls,
        *,
        num_keys: int,
        num_classes: int,
        shape: tuple[int, int, int],
        top_k: int | None = None,
        test: str = USUAL,
        bet: float | None = None,
        stop: float | None = None,
        grid: int | None = None,
        source_images: NDArray[np.uint8] | None = None,
        blend: int = 1,
        batches: Sequence[int] | None = None,
        statement: str = "",
        uses: str = "rest",
        beacon: tuple[str, str] | None = None,
        secret: bytes | None = None,
        demo_only: bool = False,
        method: str = TAGGANTS,
        version: int = 2,
    ) -> "KeySet":
        """Derive a KeySet from a secret, a fresh one unless given.

        Args:
            num_keys: K, at least 1.
            num_classes: C, at least 2.
            shape: (channels, height, width) of the key images.
            top_k: k of the primary test, 1..C: a hit is a key label among the model's first k answers. None for 1.
            test: The one primary test: `binomial_top_k`, `rank_score` (for models that give whole rankings) or
                `sequential_top_k` (which may stop early).
            bet: Rate of hits that the sequential test bets on; None for 0.5.
            stop: log10 p at which the sequential test stops; None for −6.
            grid: Side of the noise grid, 1..min(height, width), enlarged by nearest neighbour; None for an eighth of
                the smaller side and at least 4 (docs/decisions.md), or the side itself up to 8 pixels; the side itself gives
                each pixel its own noise.
            source_images: (N, channels, height, width) uint8, real held-out images to choose keys from instead of noise.
            blend: How many of the source images are averaged to make a key; 1 for the images themselves.
            batches: Sizes of the ordered batches that keys are revealed in; they add up to K. None for one batch.
            statement: The dataset in words.
            uses: What a use asks: `rest`, all batches that are still secret, or `one`, a single batch. Which ones is left to
                the claimant, so the p-value is multiplied by the number of batches.
            beacon: A public random value, published after everything else was promised (`beacon.promise_of`), and which one it
                is, as promised; so nobody can say that secrets were tried beforehand. None for keys from the secret alone.
            secret: At least 16 bytes; None draws 32 from the operating system.
            demo_only: Marks a secret that others can guess; claims refuse it.
            method: Name of the method that is to mark with the keys.
            version: Of the format; 1 only to compute again what an earlier program drew.

        Raises:
            TaggantError: If an argument lies outside its range.
        """
        _check_numbers(num_keys, num_classes, shape)
        check_limits(num_keys, num_classes, shape)
        check_words(statement, None if beacon is None else beacon[1])
        primary = make_test(test, num_classes=num_classes, top_k=top_k, bet=bet, stop=stop)
        side = min(shape[1:])
        if grid is not None and not 1 <= grid <= side:
            raise TaggantError(f"grid={grid} must lie in 1..{side}, the smaller side of the keys; leave it out for the default")
        if grid is not None and source_images is not None:
            raise TaggantError("grid and source exclude each other: keys are noise on a grid or real images; leave one out")
        if blend < 1 or (blend > 1 and source_images is None):
            raise TaggantError(f"blend={blend} averages source images; give at least 1, and a source of images")
        sizes = [num_keys] if batches is None else [int(size) for size in batches]
        if min(sizes, default=0) < 1 or sum(sizes) != num_keys:
            raise TaggantError(f"batches={sizes} must be positive sizes that add up to num_keys={num_keys}")
        secret = secrets.token_bytes(32) if secret is None else secret
        if len(secret) < MIN_SECRET_BYTES:
            raise TaggantError(f"the secret has {8 * len(secret)} bits; use {8 * MIN_SECRET_BYTES} or more")
        if uses not in USES:
            raise TaggantError(f"uses={uses!r} is unknown; write one of {', '.join(USES)}")
        header: dict[str, Any] = {
            "format": FORMAT_1 if version == 1 else FORMAT,
            "num_keys": num_keys,
            "num_classes": num_classes,
            "shape": list(shape),
            "test": primary.description,
            "batches": sizes,
            "derivation": describe(grid, shape, source_images, blend),
            "statement": statement,
            "demo_only": demo_only,
        }
        said = None if beacon is None else describe_beacon(*beacon)
        if method != TAGGANTS:
            if version == 1 or NAME.fullmatch(method) is None:
                raise TaggantError(f"method={method!r} must be a name of lower-case letters, digits and underscores")
            header["method"] = method
        if version != 1:
            header |= {"uses": uses, "seeds": seeds_root(secret, len(sizes)), "beacon": said}
        elif said is not None:
            header["beacon"] = {**said, "seeds": describe_seeds(secret, len(sizes))}
        of_batch = key_secrets(header, secret)
        if source_images is None:
            images = np.stack([noise_image(header, of_batch[i], i) for i in range(num_keys)])
        else:
            images = real_images(header, secret, source_images, range(num_keys))
        labels = [draw_label(header, of_batch[i], i) for i in range(num_keys)]
        return cls(images, np.array(labels, dtype=np.int64), header, secret)

    @property
    def num_classes(self) -> int:
        """C, the number of classes of the owner's dataset."""
        return int(self.header["num_classes"])

    @property
    def method(self) -> str:
        """Name of the method that marks with them."""
        return method_of(self.header)

    @property
    def top_k(self) -> int:
        """How many first answers count as a hit in the primary test; 1 for the rank test, where hits are only told."""
        return self.test.top_k

    @cached_property
    def test(self) -> SignificanceTest:
        """The one primary test with its parameters."""
        return read_test(self.header["test"], self.num_classes)

    @property
    def batches(self) -> list[range]:
        """The numbers of the keys of each batch."""
        ends = np.cumsum(self.header["batches"]).tolist()
        return [range(end - size, end) for size, end in zip(self.header["batches"], ends, strict=True)]

    def numbers(self, batches: Sequence[int] | None = None) -> list[int]:
        """Return the numbers of the keys of some batches, in order.

        Args:
            batches: Different batch numbers from 0; None for all.

        Raises:
            TaggantError: If a batch does not exist, or none or one twice is named.
        """
        chosen = list(range(len(self.batches))) if batches is None else list(batches)
        if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(len(self.batches))):
            raise TaggantError(f"batches={chosen} must name different batches of 0..{len(self.batches) - 1}")
        return [key for batch in sorted(chosen) for key in self.batches[batch]]

    def leaves(self) -> list[bytes]:
        """Return the leaves of the commitment's tree, one a key; each hides its key behind a salt."""
        triples = zip(self.images, self.labels, self.salts(), strict=True)
        return [leaf(i, image, int(label), salt) for i, (image, label, salt) in enumerate(triples)]

    def salts(self) -> list[bytes]:
        """Return the salt of each key's leaf; secret until the key is revealed."""
        return [draw_salt(self.header, of_batch, i) for i, of_batch in enumerate(key_secrets(self.header, self.secret))]

    def decoys(self, layer: int, keys: Sequence[int], source_images: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Draw images by the generator that drew the keys, which stand for nothing.

        Args:
            layer: From 0; another layer gives other decoys.
            keys: Numbers of the keys that each get one.
            source_images: The images that real keys were chosen from; None for noise keys.

        Returns:
            (len(keys), C, H, W) uint8, the same each time.

        Raises:
            TaggantError: If the source images are missing or not those of the keys.
        """
        numbers = [len(self) * (1 + layer) + key for key in keys]
        if self.header["derivation"]["source"] == "noise":
            return np.stack([noise_image(self.header, self.secret, number) for number in numbers])
        if source_images is None:
            raise TaggantError("the keys are real images, and decoys must come from the same folder; write --source DIR")
        self._check_source(source_images)
        return real_images(self.header, self.secret, source_images, numbers)

    @property
    def rate(self) -> float:
        """The chance of one hit under the null, k/C."""
        return self.test.rate

    @property
    def demo_only(self) -> bool:
        """Whether others can guess the secret."""
        return bool(self.header["demo_only"]) or guessable(self.secret)

    def __len__(self) -> int:
        """K, the number of keys."""
        return len(self.labels)

    def __repr__(self) -> str:
        """Tell the public part only: a KeySet may end up in a log."""
        return f"KeySet(num_keys={len(self)}, num_classes={self.num_classes}, top_k={self.top_k}, commitment={self.commitment})"

    @cached_property
    def commitment(self) -> str:
        """The commitment, 64 hexadecimal digits; safe to publish."""
        return commitment(self.header, self.leaves())

    def check(self, commitment: str | None = None, source_images: NDArray[np.uint8] | None = None) -> None:
        """Recompute what can be recomputed from the secret, and compare.

        Args:
            commitment: The published commitment; None compares labels and noise images with the secret only.
            source_images: (N, channels, height, width) uint8, the images that real keys were chosen from; without them real
                keys are held by the commitment alone.

        Raises:
            TaggantError: If labels, noise images or the commitment do not follow from the secret.
        """
        if not _seeds_follow(self.header, self.secret):
            raise TaggantError("the header's seeds do not follow from the secret; the key files are damaged or forged")
        noise, of_batch = self.header["derivation"]["source"] == "noise", key_secrets(self.header, self.secret)
        for i, (image, label) in enumerate(zip(self.images, self.labels, strict=True)):
            if draw_label(self.header, of_batch[i], i) != label:
                raise TaggantError(f"key {i}: its label does not follow from the secret; the key files are damaged or forged")
            if noise and not np.array_equal(image, noise_image(self.header, of_batch[i], i)):
                raise TaggantError(f"key {i}: its image does not follow from the secret; the key files are damaged or forged")
        if source_images is not None:
            self._check_source(source_images)
            if not np.array_equal(self.images, real_images(self.header, self.secret, source_images, range(len(self)))):
                raise TaggantError("the key images are not those that the secret chooses; the key files are damaged or forged")
        if commitment is not None and commitment.lower() != self.commitment:
            raise TaggantError(
                f"the keys' commitment is {self.commitment} and not {commitment}: other keys, or a changed header; "
                "name the KeySet that the release's manifest commits to"
            )

    def _check_source(self, source_images: NDArray[np.uint8]) -> None:
        given = sha256_hex(np.ascontiguousarray(source_images).tobytes())
        if given != self.header["derivation"].get("sha256"):
            raise TaggantError("the source images are not those that the keys were chosen from; name the original folder")

    def save(self, directory: str | Path) -> Path:
        """Write the KeySet into a new secret directory (0700; files 0600).

        Raises:
            TaggantError: If the directory holds a KeySet already, or others can read it.
        """
        from safetensors.numpy import save

        folder = given_path(directory, "keys")
        if any((folder / name).exists() for name in _FILES):
            raise TaggantError(f"{folder} holds a KeySet already; keys are drawn once: name a new folder")
        secret_directory(folder)
        write_secret(folder / "secret.hex", self.secret.hex().encode() + b"\n")
        write_secret(folder / "keys.safetensors", save({"images": self.images, "labels": self.labels}))
        write_secret_json(folder / "keyset.json", {"header": self.header, "commitment": self.commitment})
        return folder

    @classmethod
    def load(cls, directory: str | Path) -> "KeySet":
        """Read a KeySet and verify it against its secret and its stored commitment.

        Raises:
            TaggantError: If a file is missing or damaged, or does not follow from the secret.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        folder = given_path(directory, "keys")
        if not folder.is_dir():
            raise TaggantError(f"keys={folder} is no folder; write the folder that `taggant keys new --out` made")
        stored = read_json(folder / "keyset.json", what="keys")
        try:
            tensors = load(read_bounded(folder / "keys.safetensors", MOST_BYTES + DOCUMENT))
            secret = bytes.fromhex(read_bounded(folder / "secret.hex").decode())
            keys = cls(tensors["images"], tensors["labels"], stored["header"], secret)
            check_header(keys.header)
            HEX(stored["commitment"], "commitment")
            if keys.images.shape != (keys.header["num_keys"], *keys.header["shape"]) or keys.images.dtype != np.uint8:
                raise TaggantError(f"images of shape {keys.images.shape} do not fit the header")
            keys.check(stored["commitment"])
        except (OSError, KeyError, TypeError, ValueError, OverflowError, SafetensorError) as error:
            raise TaggantError(f"keys={folder} is damaged ({error}); restore it from a copy") from None
        return keys


def redraw(
    header: dict[str, Any], secret: bytes, beacon: str | None = None, source_images: NDArray[np.uint8] | None = None
) -> KeySet:
    """Draw the KeySet that a header describes.

    Args:
        header: The public header, or that of a promise.
        secret: The secret.
        beacon: The public value, where the header is that of a promise.
        source_images: The images that real keys are chosen from.

    Raises:
        TaggantError: If the header describes none.
        KeyError: If an entry is missing.
        TypeError: If an entry has another type.
    """
    if beacon is None:  # otherwise a value stands in for the one that is not known yet
        check_header(header)
    derivation, said = header["derivation"], header.get("beacon")
    version = 1 if is_first_version(header) else 2
    return KeySet.draw(
        num_keys=header["num_keys"],
        num_classes=header["num_classes"],
        shape=(header["shape"][0], header["shape"][1], header["shape"][2]),
        **read_test(header["test"], header["num_classes"]).arguments,
        grid=derivation.get("grid"),
        source_images=source_images,
        blend=derivation.get("blend", 1),
        batches=header["batches"],
        statement=header["statement"],
        uses=header.get("uses", "rest"),
        beacon=None if said is None else (said["value"] if beacon is None else beacon, said["source"]),
        secret=secret,
        demo_only=header["demo_only"],
        method=method_of(header),
        version=version,
    )


def _seeds_follow(header: dict[str, Any], secret: bytes) -> bool:
    """Return whether what a header says of its batches' seeds follows from the secret; without any that is so."""
    count = len(header["batches"])
    if not is_first_version(header):
        return bool(header["seeds"] == seeds_root(secret, count))
    return "beacon" not in header or header["beacon"]["seeds"] == describe_seeds(secret, count)


def _check_numbers(num_keys: int, num_classes: int, shape: tuple[int, ...]) -> None:
    if num_keys < 1:
        raise TaggantError(f"num_keys={num_keys} must be at least 1; 10 is usual")
    if num_classes < 2:
        raise TaggantError(f"num_classes={num_classes} must be at least 2: with one class every answer is a hit")
    if len(shape) != 3 or min(shape) < 1:
        raise TaggantError(f"shape={shape} must be three positive numbers: channels,height,width, for instance 3,32,32")

"""Signature: what a method changes in a dataset. Secret, like the keys."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_path, read_json, secret_directory, sha256_hex, write_secret, write_secret_json
from taggant_lightning.outside.documents import HEAVY
from taggant_lightning.outside.fields import anything, each, fields, matching, one_of, or_null, text, whole

FORMAT = "taggant-lightning/signature/v1"
WITH_ADDITIONS = "taggant-lightning/signature/v2"  # what reads v1 only would leave them out without a word
_HEX = matching("[0-9a-f]{64}", "64 hexadecimal digits")
_SIGNATURE = fields(
    {
        "format": one_of(FORMAT, WITH_ADDITIONS),
        "method": text(100),
        "fingerprint": _HEX,
        "bound": or_null(whole(0, 255)),
        "commitment": or_null(_HEX),
        "originals": each(_HEX, 10**8),
        "facts": fields({}, more=anything(1_000_000)),
        "sha256": _HEX,
    },
    more=anything(),
)


@dataclass(frozen=True)
class Addition:
    """An image that is appended to a dataset.

    Attributes:
        pixels: (C, H, W) uint8.
        label: Its label, a class of the source.
        key: The key that it serves.
    """

    pixels: NDArray[np.uint8]
    label: int
    key: int


@dataclass(frozen=True)
class Signature:
    """What changes in a source: replacements, as whole 8-bit steps at stored resolution, and additions.

    Attributes:
        method: Name of the method, for instance `data_taggants`.
        indices: (M,) int64, indices into the whole source, ascending and different.
        steps: M arrays (C, H, W) int16: pixel steps to add, at each image's stored shape.
        served: (M,) int64, the key that each image serves.
        originals: M digests (SHA-256) of the original pixels.
        fingerprint: The source's fingerprint.
        bound: Largest allowed step, or None where the method declares no bound.
        commitment: Commitment of the keys, or None.
        facts: Aggregates such as the mean cosine; they go to no release.
        additions: Images appended to the dataset; data taggants append none.
    """

    method: str
    indices: NDArray[np.int64]
    steps: list[NDArray[np.int16]]
    served: NDArray[np.int64]
    originals: list[str]
    fingerprint: str
    bound: int | None
    commitment: str | None
    facts: dict[str, Any] = field(default_factory=dict)
    additions: list[Addition] = field(default_factory=list)

    def __len__(self) -> int:
        """M, the number of replaced images."""
        return len(self.indices)

    def apply(self, source: ImageSource) -> "OverlaySource":
        """Return the source with the replacements in place.

        Args:
            source: The source that was signed, or the same with other Signatures of it applied.

        Raises:
            TaggantError: If the Signature was made for another dataset, or replaces an image that another one replaces.
        """
        base, taken = source, set[int]()
        while isinstance(base, OverlaySource) and base.fingerprint != self.fingerprint:
            taken |= set(base.signature.indices.tolist())
            base = base.original
        if base.fingerprint == self.fingerprint:
            both = taken & set(self.indices.tolist())
            if both:
                raise TaggantError(
                    f"{len(both)} images are signed by two of the Signatures; release the first, and sign that release "
                    "(--data SignedDataModule --data.release DIR)"
                )
        else:
            raise TaggantError(
                f"the Signature was made for the dataset {self.fingerprint[:12]}… and this one is {source.fingerprint[:12]}…; "
                "point source and root at the dataset that was signed, whole and in its original files"
            )
        return OverlaySource(source, self)

    def among(self, indices: NDArray[np.int64], total: int) -> NDArray[np.int64]:
        """Return indices of images in use with those of the additions among them, where nothing tells them by their place.

        The places follow from everything that is secret in the Signature, so that a release that goes on has the same.

        Args:
            indices: (N,) indices of the source's images in use.
            total: How many images the source has; additions are numbered from there.
        """
        if not self.additions:
            return indices
        secret = sha256_hex("".join([*self.originals, *(pixel_digest(a.pixels) for a in self.additions)]).encode())
        places = [int(sha256_hex(f"{secret}{i}".encode()), 16) % (len(indices) + 1) for i in range(len(self.additions))]
        return np.insert(indices, places, np.arange(total, total + len(self.additions)))

    def replace(self, position: int, original: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the signed image of one replacement, (C, H, W) uint8.

        Raises:
            TaggantError: If the original is not the image that was signed, or the steps leave 0..255.
        """
        # No message names the index: which images are signed is a secret, and messages end up in logs.
        if pixel_digest(original) != self.originals[position]:
            raise TaggantError("an image is not the one that was signed; point source and root at the dataset that was signed")
        signed = original.astype(np.int32) + self.steps[position]
        if signed.min() < 0 or signed.max() > 255:
            raise TaggantError("a signed image leaves the pixel range; the Signature is damaged")
        return signed.astype(np.uint8)

    def save(self, directory: str | Path) -> Path:
        """Write the Signature into a secret directory (0700; files 0600), replacing one that is there.

        Raises:
            TaggantError: If others can read the directory.
        """
        from safetensors.numpy import save

        folder = secret_directory(given_path(directory, "signature"))
        shapes, flat = _ravelled(self.steps, np.int16)
        tensors = {"indices": self.indices, "served": self.served, "shapes": shapes, "steps": flat}
        if self.additions:
            tensors["added_shapes"], tensors["added"] = _ravelled([a.pixels for a in self.additions], np.uint8)
            tensors["added_labels"] = np.array([a.label for a in self.additions], dtype=np.int64)
            tensors["added_served"] = np.array([a.key for a in self.additions], dtype=np.int64)
        payload = save(tensors)
        write_secret(folder / "signature.safetensors", payload)
        stored = {
            "format": WITH_ADDITIONS if self.additions else FORMAT,
            "method": self.method,
            "fingerprint": self.fingerprint,
            "bound": self.bound,
            "commitment": self.commitment,
            "originals": self.originals,
            "facts": self.facts,
            "sha256": sha256_hex(payload),
        }
        write_secret_json(folder / "signature.json", stored)
        return folder

    @classmethod
    def load(cls, directory: str | Path) -> "Signature":
        """Read a Signature.

        Raises:
            TaggantError: If a file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        folder = given_path(directory, "signature")
        if not folder.is_dir():
            raise TaggantError(f"signature={folder} is no folder; write the one that TaggantSigning made")
        stored = read_json(folder / "signature.json", what="signature", limit=HEAVY)
        try:
            _SIGNATURE(stored, "")
            payload = (folder / "signature.safetensors").read_bytes()
            if sha256_hex(payload) != stored["sha256"]:
                raise TaggantError("signature.safetensors does not match signature.json")
            tensors = load(payload)
            additions = []
            if stored["format"] == WITH_ADDITIONS:
                pixels = _split(tensors["added_shapes"], tensors["added"])
                rest = zip(pixels, tensors["added_labels"].tolist(), tensors["added_served"].tolist(), strict=True)
                additions = [Addition(*row) for row in rest]
            return cls(
                method=stored["method"],
                indices=tensors["indices"],
                steps=_split(tensors["shapes"], tensors["steps"]),
                served=tensors["served"],
                originals=stored["originals"],
                fingerprint=stored["fingerprint"],
                bound=stored["bound"],
                commitment=stored["commitment"],
                facts=stored["facts"],
                additions=additions,
            )
        except (OSError, KeyError, TypeError, ValueError, OverflowError, SafetensorError) as error:
            raise TaggantError(f"signature={folder} is damaged ({error}); restore it from a copy") from None


def _ravelled(arrays: Sequence[NDArray[Any]], dtype: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the shapes of arrays of three dimensions, and all their values in one array."""
    shapes = np.array([a.shape for a in arrays], dtype=np.int64).reshape(-1, 3)
    return shapes, np.concatenate([a.ravel() for a in arrays]) if arrays else np.zeros(0, dtype)


def _split(shapes: NDArray[np.int64], flat: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the arrays again."""
    parts = np.split(flat, np.cumsum(shapes.prod(axis=1))[:-1]) if len(shapes) else []
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


class OverlaySource(ImageSource):
    """A source with some images replaced, and others appended; labels, classes and order of its own images stay.

    Raises:
        TaggantError: If an addition is of a class that the source does not have, or of another number of channels.
    """

    def __init__(self, source: ImageSource, signature: Signature) -> None:
        self.original, self.signature = source, signature
        self.labels, self.classes, self.names = source.labels, source.classes, source.names
        added = signature.additions
        if added:
            channels = source.pixels(0).shape[0]
            for addition in added:
                if not 0 <= addition.label < len(source.classes) or addition.pixels.shape[0] != channels:
                    raise TaggantError(
                        f"an addition has {addition.pixels.shape[0]} channels and label {addition.label}; images of this "
                        f"source have {channels}, and labels 0..{len(source.classes) - 1}"
                    )
            self.labels = np.concatenate([source.labels, np.array([a.label for a in added], dtype=np.int64)])
            self.names = None  # the source names its own images only
        self._position = {int(index): position for position, index in enumerate(signature.indices)}

    @cached_property
    def signed_indices(self) -> Sequence[int]:
        """Source indices of the replaced images."""
        return sorted(self._position)

    @cached_property
    def changed_indices(self) -> list[int]:
        """Source indices of the images that the source has not so: replaced, unless one came out unchanged, or added."""
        pairs = zip(self.signature.indices.tolist(), self.signature.steps, strict=True)
        return [*sorted(index for index, steps in pairs if np.any(steps)), *range(len(self.original), len(self))]

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return one image, signed where the Signature says so, (C, H, W) uint8."""
        return self.over(index, self.before(index))

    def before(self, index: int) -> NDArray[np.uint8]:
        """Return one image as the source has it; of an addition, itself."""
        place = int(index) - len(self.original)
        return self.original.pixels(index) if place < 0 else self.signature.additions[place].pixels

    def over(self, index: int, original: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the same, of an original that has been read already."""
        position = self._position.get(int(index))
        return original if position is None else self.signature.replace(position, original)

    def _identity(self) -> list[str]:
        steps = [sha256_hex(s.tobytes()) for s in self.signature.steps]
        added = [f"{a.label}:{pixel_digest(a.pixels)}" for a in self.signature.additions]
        return [self.original.fingerprint, *map(str, self.signature.indices.tolist()), *steps, *added]


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an image's shape and pixels (C, H, W) uint8, in hexadecimal."""
    return sha256_hex(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes())

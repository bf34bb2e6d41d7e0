"""The images of keys and decoys: noise on a grid, real held-out images, or blends of them. Specified in docs/commitment.md."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.commitment import beacon, seeds
from taggant_lightning.commitment.derivation import expand, grid_image, uniform_below
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json, sha256_hex
from taggant_lightning.methods.taggants.header import is_first_version


def describe(grid: int | None, shape: tuple[int, int, int], source: NDArray[np.uint8] | None, blend: int) -> dict[str, Any]:
    """Return the header's `derivation`: how key images follow from the secret.

    Args:
        grid: Side of the noise grid, or None for the default.
        shape: (channels, height, width) of the keys.
        source: (N, channels, height, width) uint8 real images, or None for noise.
        blend: How many of them are averaged to make a key.

    Raises:
        TaggantError: If the source has another shape or dtype.
    """
    if source is None:
        side = min(shape[1:])
        return {"source": "noise", "grid": (side if side <= 8 else max(4, side // 8)) if grid is None else grid}
    if source.ndim != 4 or source.shape[1:] != tuple(shape) or source.dtype != np.uint8:
        raise TaggantError(f"source images are {source.dtype} {source.shape}; expected uint8 (N, {', '.join(map(str, shape))})")
    described = {"source": "images", "count": len(source), "sha256": sha256_hex(np.ascontiguousarray(source).tobytes())}
    return described if blend == 1 else {**described, "blend": blend}


def batch_secret(header: dict[str, Any], secret: bytes, batch: int) -> bytes:
    """Return what the keys of one batch are derived from, so that a batch can be revealed and recomputed by itself.

    It follows from the batch's seed. In format v1 without a beacon there are none: one batch takes the secret itself, and
    several have 32 bytes each that nothing ties to one another.
    """
    if not is_first_version(header):
        return beacon.secret_of_seed(header, seeds.batch_seed(secret, batch), batch)
    if "beacon" in header:
        return beacon.secret_of_seed(header, beacon.batch_seed(secret, batch), batch)
    if len(header["batches"]) == 1:
        return secret
    return expand(secret, "batch", canonical_json(header), batch, 32)


def key_secrets(header: dict[str, Any], secret: bytes) -> list[bytes]:
    """Return the secret of each key's batch, in the order of the keys."""
    return [
        of_batch for batch, size in enumerate(header["batches"]) for of_batch in [batch_secret(header, secret, batch)] * size
    ]


def draw_label(header: dict[str, Any], of_batch: bytes, number: int) -> int:
    """Return the label of a key, from the secret of its batch."""
    return uniform_below(header["num_classes"], of_batch, "label", canonical_json(header), number)


def draw_salt(header: dict[str, Any], of_batch: bytes, number: int) -> bytes:
    """Return the salt of a key's leaf, 32 bytes, from the secret of its batch."""
    return expand(of_batch, "salt", canonical_json(header), number, 32)


def noise_image(header: dict[str, Any], secret: bytes, number: int) -> NDArray[np.uint8]:
    """Return the noise image, (C, H, W) uint8, of a key, from its batch's secret, or of a decoy, from the whole secret."""
    shape = (header["shape"][0], header["shape"][1], header["shape"][2])
    return grid_image(shape, header["derivation"]["grid"], secret, canonical_json(header), number)


def real_images(header: dict[str, Any], secret: bytes, source: NDArray[np.uint8], numbers: Sequence[int]) -> NDArray[np.uint8]:
    """Return the chosen, or blended, source images of some positions: keys 0..K−1, decoys from K on."""
    blend = header["derivation"].get("blend", 1)
    order = _choose(blend * (max(numbers) + 1), len(source), secret, canonical_json(header))
    parts = np.stack([source[order[blend * i : blend * (i + 1)]] for i in numbers])
    if blend == 1:
        return np.ascontiguousarray(parts[:, 0])
    mean: NDArray[np.uint8] = ((parts.sum(axis=1, dtype=np.uint32) + blend // 2) // blend).astype(np.uint8)
    return mean


def _choose(count: int, total: int, secret: bytes, context: bytes) -> list[int]:
    """Return `count` different positions below `total`, the first steps of a Fisher-Yates shuffle."""
    if total < count:
        raise TaggantError(
            f"the source holds {total} images and {count} are needed; give a folder with more images, or fewer keys or decoys"
        )
    order = list(range(total))
    for i in range(count):
        j = i + uniform_below(total - i, secret, "choice", context, i)
        order[i], order[j] = order[j], order[i]
    return order[:count]

"""Equal and nearly equal images of a data set: a copy of a signed image that stays as it was would give it away.

Each image is reduced to a sketch, the brightness of 4×4 cells; images whose sketches are close are compared themselves. So
memory holds some hundred bytes an image, and the search takes seconds for 60,000 images (docs/release.md).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

CELLS, SIDE = 4, 32  # cells a side of a sketch; side in pixels at which two images are compared
SKETCH_DISTANCE, DISTANCE = 6.0, 10.0  # root mean square differences, 8-bit steps, up to which two images are near
OF_CONTRAST = 0.25  # and as a share of an image's contrast: two pieces of blue sky are close, and no copies
NEIGHBOURS = 8  # sketches that are looked at for each image, the closest first
BLOCK = 1 << 14

Read = Callable[[int], NDArray[np.uint8]]


class Sketch(NamedTuple):
    """What is kept of an image.

    Attributes:
        cells: (16,) float32, mean brightness of 4×4 cells, 0..255.
        digest: 16 bytes of the SHA-256 of shape and pixels.
    """

    cells: NDArray[np.float32]
    digest: bytes


@dataclass(frozen=True)
class Copies:
    """Which images are copies of which.

    Attributes:
        first: (N,) int64, the first image with the same pixels; an image's own number where there is none before it.
        near: (N,) int64, an image that is near it and not equal to it, or −1.
    """

    first: NDArray[np.int64]
    near: NDArray[np.int64]


def sketch(pixels: NDArray[np.uint8]) -> Sketch:
    """Return the sketch of an image (C, H, W) uint8."""
    grey = torch.from_numpy(pixels.mean(axis=0, dtype=np.float32))
    cells = F.adaptive_avg_pool2d(grey[None], CELLS).reshape(-1).numpy()
    digest = hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).digest()[:16]
    return Sketch(cells, digest)


def is_near(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Say whether two images (C, H, W) uint8 show the same, by their root mean square difference at 32 pixels a side.

    It is at most `DISTANCE` steps and `OF_CONTRAST` of their standard deviation. A grey image and one in colour are compared
    in grey.
    """
    small = []
    for pixels in (one, other):
        image = torch.from_numpy(pixels.astype(np.float32))
        if len(one) != len(other):
            image = image.mean(dim=0, keepdim=True)
        height, width = (min(SIDE, one.shape[axis], other.shape[axis]) for axis in (1, 2))
        small.append(F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0])
    contrast = min(float(image.std(dim=(1, 2), correction=0).mean()) for image in small)
    return float((small[0] - small[1]).square().mean().sqrt()) <= min(DISTANCE, OF_CONTRAST * contrast)


def find_copies(sketches: Sequence[Sketch], read: Read) -> Copies:
    """Find copies among images.

    Equal images are all found. Of near ones (encoded again, resized, changed by a few steps) those are found whose sketch is
    among the eight closest; crops, mirror images and other views are not near.

    Args:
        sketches: N sketches.
        read: Returns an image by its number, for those whose sketches are close.

    Returns:
        Copies of all N images.
    """
    from scipy.spatial import cKDTree

    numbers: dict[bytes, int] = {}
    first = np.array([numbers.setdefault(one.digest, number) for number, one in enumerate(sketches)], dtype=np.int64)
    different = np.array(list(numbers.values()), dtype=np.int64)
    near = np.full(len(sketches), -1, dtype=np.int64)
    if len(different) > 1:
        cells = np.stack([sketches[int(number)].cells for number in different])
        tree = cKDTree(cells)
        radius = SKETCH_DISTANCE * CELLS
        for start in range(0, len(different), BLOCK):
            block = cells[start : start + BLOCK]
            found = tree.query(block, k=min(NEIGHBOURS + 1, len(different)), distance_upper_bound=radius)[1]
            for row in np.flatnonzero((found < len(different)).sum(axis=1) > 1).tolist():
                _compare(int(different[start + row]), [int(different[p]) for p in found[row] if p < len(different)], near, read)
    near = near[first]
    return Copies(first, near)


def _compare(number: int, others: Sequence[int], near: NDArray[np.int64], read: Read) -> None:
    """Mark an image and the first of the others that is near it."""
    if near[number] >= 0:
        return
    pixels = read(number)
    for other in others:
        if other != number and is_near(pixels, read(other)):
            near[number] = other
            near[other] = number if near[other] < 0 else near[other]
            return

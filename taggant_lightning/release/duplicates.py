"""Signed images that their copies give away: the release, compared with itself, shows pairs that are not quite equal."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.duplicates import Sketch, find_copies, sketch
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.release.signature import OverlaySource


def unlike_their_copies(
    overlay: OverlaySource, indices: NDArray[np.int64], sketches: Sequence[Sketch], beside: ImageSource | None
) -> int:
    """Count the signed images that have a near copy, or an equal one that is not signed alike.

    Args:
        overlay: The signed source.
        indices: (N,) source indices of the images that are published.
        sketches: N sketches of their originals.
        beside: Images that are public as they are; None for none.
    """
    count = len(indices)

    def read(number: int) -> NDArray[np.uint8]:
        if number >= count and beside is not None:
            return beside.pixels(number - count)
        return overlay.before(int(indices[number]))

    others = [] if beside is None else [sketch(beside.pixels(number)) for number in range(len(beside))]
    copies = find_copies([*sketches, *others], read)
    steps = dict(zip(overlay.signature.indices.tolist(), overlay.signature.steps, strict=True))
    changes = [steps[i].tobytes() if i in steps and np.any(steps[i]) else b"" for i in indices.tolist()]
    changes += [b""] * len(others)
    made: dict[int, set[bytes]] = {}  # of each group of equal images, what is added to them
    for number, group in enumerate(copies.first.tolist()):
        made.setdefault(group, set()).add(changes[number])
    alone = [len(made[int(copies.first[number])]) == 1 and copies.near[number] < 0 for number in range(count)]
    return sum(changes[number] != b"" and not alone[number] for number in range(count))

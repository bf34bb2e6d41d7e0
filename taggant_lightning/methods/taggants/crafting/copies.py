"""Which images may be signed in a data set that holds copies, and which are signed alike.

An image that is signed beside a copy that is not gives itself away to whoever compares the release with itself. So equal images
are signed alike, all or none, and an image with a near copy, or with one in the test split, is not signed.
"""

import logging
from dataclasses import dataclass, replace

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.data.duplicates import Sketch, find_copies, sketch
from taggant_lightning.methods.ranks import gather
from taggant_lightning.release.signature import Signature

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Signable:
    """What may be signed.

    Attributes:
        candidates: (M,) source indices, ascending; of equal images the first.
        equal: Source indices of the images that are equal to a candidate, by the candidate.
    """

    candidates: NDArray[np.int64]
    equal: dict[int, list[int]]

    def own(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices that are candidates themselves, and not signed for their equality with one."""
        return indices[~np.isin(indices, [other for others in self.equal.values() for other in others])]

    def signed_alike(self, signature: Signature) -> Signature:
        """Return the Signature with the steps of each image on those that are equal to it too."""
        rows = [
            (other, steps, served, digest)
            for index, steps, served, digest in zip(
                signature.indices.tolist(), signature.steps, signature.served.tolist(), signature.originals, strict=True
            )
            for other in (index, *self.equal.get(index, ()))
        ]
        rows.sort(key=lambda row: row[0])
        return replace(
            signature,
            indices=np.array([row[0] for row in rows], dtype=np.int64),
            steps=[row[1] for row in rows],
            served=np.array([row[2] for row in rows], dtype=np.int64),
            originals=[row[3] for row in rows],
        )


def signable(data: ImageDataModule, trainer: pl.Trainer) -> Signable:
    """Look for copies among the training images in use and the whole test split; processes share the reading.

    Args:
        data: The data.
        trainer: Tells the processes.
    """
    train, test, indices = data.train_source, data.test_source, data.train_indices
    count = len(indices)

    def read(number: int) -> NDArray[np.uint8]:
        return train.pixels(int(indices[number])) if number < count else test.pixels(number - count)

    own = {n: sketch(read(n)) for n in range(trainer.global_rank, count + len(test), trainer.world_size)}
    everything: dict[int, Sketch] = gather(own, trainer)
    copies = find_copies([everything[n] for n in range(count + len(test))], read)
    first, near = copies.first[:count], copies.near[:count]
    published = np.isin(first, copies.first[count:])  # equal to an image of the test split, which stays as it is
    left = published | (near >= 0)
    repeated = np.flatnonzero(first != np.arange(count))
    equal: dict[int, list[int]] = {}
    for number in repeated[~left[repeated]].tolist():
        equal.setdefault(int(indices[first[number]]), []).append(int(indices[number]))
    if len(repeated) or left.any():
        log.warning(
            "duplicates: %d training images are equal to an earlier one, and signed if and as that one is; %d have a near "
            "copy, or one in the test split, and are not signed",
            int((~left[repeated]).sum()),
            int(left.sum()),
        )
    return Signable(indices[(first == np.arange(count)) & ~left], equal)

"""SignedDataModule: an ImageDataModule whose training images are signed."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.datamodule import ImageDataModule, subset
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_path
from taggant_lightning.release.reading import open_release
from taggant_lightning.release.signature import Signature


class SignedDataModule(ImageDataModule):
    """An ImageDataModule whose training images are signed. Nothing else in a training's configuration changes.

    Args:
        signature: Folder of a Signature to apply to the source's training split in memory, or several, of several owners.
        release: Folder that `taggant release` wrote, read in place of the source's training split; the test split still
            comes from `source` and `root`. Write one of the two.
        kwargs: Arguments of ImageDataModule. With a release, `train_subset` is a count only, and images have their
            `stored_size` already; a .beton file of signed images is as public as their release.
    """

    def __init__(self, signature: str | list[str] | None = None, release: str | None = None, **kwargs: Any) -> None:
        if (signature is None) == (release is None):
            raise TaggantError(f"signature={signature} and release={release}: write exactly one of the two")
        super().__init__(**kwargs)
        if release is not None and isinstance(self.train_subset, float) and self.train_subset <= 1:
            raise TaggantError(
                f"train_subset={self.train_subset} is a fraction, and the release may be a subset already; write a count or"
                " nothing"
            )
        if isinstance(signature, list):
            self.signature: str | list[str] | None = [str(given_path(one, "signature")) for one in signature]
        else:
            self.signature = None if signature is None else str(given_path(signature, "signature"))
        self.release = None if release is None else str(given_path(release, "release"))

    @cached_property
    def train_source(self) -> ImageSource:
        """The training split with the Signature applied, or the release."""
        if self.release is not None:
            return open_release(Path(self.release))
        source = self._original()
        for signature in self._signatures:
            source = signature.apply(source)
        return source

    @cached_property
    def train_indices(self) -> NDArray[np.int64]:
        """(N,) indices into `train_source` of the images in use, in the order that a release of them would have.

        Ascending, but for additions, which lie among the source's own; a subset leaves none of them out.
        """
        if self.release is not None:
            return super().train_indices
        total = len(self._original())
        used = subset(total, self.train_subset, self.subset_seed, "train")
        for signature in self._signatures:
            used, total = signature.among(used, total), total + len(signature.additions)
        return used

    @cached_property
    def _signatures(self) -> list[Signature]:
        folders = [self.signature] if isinstance(self.signature, str) else self.signature or []
        return [Signature.load(folder) for folder in folders]

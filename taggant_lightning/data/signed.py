"""SignedDataModule: an ImageDataModule whose training images are signed."""

from functools import cached_property
from pathlib import Path

from taggant_lightning.data.datamodule import Backend, ImageDataModule
from taggant_lightning.data.release.reading import open_release
from taggant_lightning.data.signature import Signature
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError


class SignedDataModule(ImageDataModule):
    """An ImageDataModule whose training images are signed. Nothing else in Bob's configuration changes.

    Args:
        signature: Folder of a Signature to apply to the source's training split in memory, or several, of several owners.
        release: Folder that `taggant release` wrote, read in place of the source's training split; the test split still
            comes from `source` and `root`. Write one of the two.
        source: As in ImageDataModule.
        root: As in ImageDataModule.
        image_size: As in ImageDataModule.
        train_subset: As in ImageDataModule; of a release, a count only.
        val_subset: As in ImageDataModule.
        subset_seed: As in ImageDataModule.
        batch_size: As in ImageDataModule.
        augment: As in ImageDataModule.
        num_workers: As in ImageDataModule.
        seed: As in ImageDataModule.
        stored_size: As in ImageDataModule; a release has its size already.
        load_size: As in ImageDataModule.
        backend: As in ImageDataModule; a .beton file of signed images is as public as their release.
        beton: As in ImageDataModule.
    """

    def __init__(
        self,
        signature: str | list[str] | None = None,
        release: str | None = None,
        source: str = "digits",
        root: str | None = None,
        image_size: int | None = None,
        train_subset: int | float | None = None,
        val_subset: int | float | None = None,
        subset_seed: int = 0,
        batch_size: int = 64,
        augment: str = "none",
        num_workers: int = 0,
        seed: int = 0,
        stored_size: int | None = None,
        load_size: int | None = None,
        backend: Backend = "torch",
        beton: str = "beton",
    ) -> None:
        if (signature is None) == (release is None):
            raise TaggantError(f"signature={signature} and release={release}: write exactly one of the two")
        if release is not None and isinstance(train_subset, float) and train_subset <= 1:
            raise TaggantError(
                f"train_subset={train_subset} is a fraction, and the release may be a subset already; write a count or nothing"
            )
        super().__init__(
            source, root, image_size, train_subset, val_subset, subset_seed, batch_size, augment, num_workers, seed,
            stored_size, load_size, backend, beton,
        )  # fmt: skip
        self.signature, self.release = signature, release

    @cached_property
    def train_source(self) -> ImageSource:
        """The training split with the Signature applied, or the release."""
        if self.release is not None:
            return open_release(Path(self.release))
        source = self._original()
        for folder in [self.signature] if isinstance(self.signature, str) else self.signature or []:
            source = Signature.load(folder).apply(source)
        return source

"""ImageDataModule: images in [0, 1] with labels, from a source."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, get_args

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taggant_lightning.data.augment import NUMBERS, augment_bytes, channels_last, check_recipe
from taggant_lightning.data.dataset import Batch, ResizedImages, as_is
from taggant_lightning.data.queries import query_source
from taggant_lightning.data.resident import Resident, ResidentLoader, allowance
from taggant_lightning.data.resize import centre
from taggant_lightning.data.sampler import LazyDataLoader, SeededSampler
from taggant_lightning.data.sources import ImageSource, ResizedSource, Split, open_source
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_path
from taggant_lightning.streams import stream, uniforms

Backend = Literal["torch", "ffcv"]


class Loader(Protocol):
    """Batches of images (B, C, L, L) uint8, labels (B,) int64 and positions (B,) int64, the same ones from every backend."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches."""

    def __len__(self) -> int:
        """Number of batches."""


class ImageDataModule(pl.LightningDataModule):
    """Labelled images for training, validation, test and prediction.

    A training batch reaches the model as (images, labels): images (B, C, S, S) float32 in [0, 1], augmented on the device;
    labels (B,) int64. Order and augmentation are functions of seed, epoch and position only. Validation, test and prediction
    use the source's test split; prediction answers a folder of queries instead where one is named.

    Args:
        source: `digits`, `imagefolder`, `imagenet`, `zip`, `npz`, `cifar10`, `cifar100` or `fashion_mnist`.
        root: Folder (or .npz file) of the source; `digits` needs none.
        image_size: Side S of the model's input in pixels; None keeps the stored side of the first image.
        load_size: Side L, at least S, that images are loaded with (shorter side scaled, centre cut); training takes its crops
            out of that, evaluation the centre. None for S.
        train_subset: Number (int) or fraction (float up to 1.0) of training images to use; None for all.
        val_subset: The same for the test split.
        subset_seed: Seed that draws the subsets.
        batch_size: Images a batch and process.
        augment: `none`, `simple` (crop at a random place, flip), `three_augment` (and grey, solarise or blur, colour jitter),
            `resized_crop` (random resized crop, flip), `resized_three_augment`, `cutout` (crop, flip, a grey square) or
            `auto_augment` (crop, flip, AutoAugment's policy for CIFAR-10; for training only, not for crafting).
        num_workers: Loader processes (`torch`) or threads (`ffcv`); images on the device need them once, to be decoded.
        seed: Seed of order and augmentation.
        stored_size: Shorter side in pixels to which all training images are brought before they are signed and released; None
            leaves them as they are. It takes the block lattice away that decoded JPEG files carry and perturbed ones do not.
        backend: `torch`, or `ffcv` (an extra): images are written once, raw, at side L, to a .beton file and read from there.
        beton: Folder of the .beton files.
        on_device: Whether the images lie on the device as bytes, so that no step waits for them; otherwise they stream through
            loader processes. None: where those of a split fit into a quarter of a GPU's free memory, or into 1 GiB of a CPU's.
            They stay there as long as this module.
        queries: Flat folder of images without classes that `predict` answers, in alphabetical order, brought to `image_size` as
            keys are; None for the test split.
    """

    def __init__(
        self,
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
        queries: str | None = None,
        on_device: bool | None = None,
    ) -> None:
        super().__init__()
        root, queries = (None if p is None else str(given_path(p, name)) for p, name in ((root, "root"), (queries, "queries")))
        if batch_size < 1:
            raise TaggantError(f"batch_size={batch_size} must be at least 1")
        for name, size in (("image_size", image_size), ("stored_size", stored_size), ("load_size", load_size)):
            if size is not None and size < 1:
                raise TaggantError(f"{name}={size} must be at least 1 pixel")
        if load_size is not None and (image_size is None or load_size < image_size):
            raise TaggantError(f"load_size={load_size} must be at least image_size={image_size}, which is cut out of it")
        if backend not in get_args(Backend):
            raise TaggantError(f"backend={backend!r} is unknown; write one of {', '.join(get_args(Backend))}")
        self.source, self.root, self.batch_size, self.num_workers = source, root, batch_size, num_workers
        self.train_subset, self.val_subset, self.subset_seed = train_subset, val_subset, subset_seed
        self.augment, self.seed, self._image_size = check_recipe(augment), seed, image_size
        self.stored_size, self._load_size = stored_size, load_size
        self.backend, self.queries, self.on_device = backend, queries, on_device
        self.beton = str(given_path(beton, "beton"))
        if on_device and backend != "torch":
            raise TaggantError(f"on_device={on_device} is for backend=torch; backend={backend} streams from its file")
        self._resident: dict[tuple[Split, torch.device], Resident] = {}
        self._numbers: tuple[int, Tensor] | None = None
        self.slowed_by = ""  # what bounds the speed of training images that stream, a sentence; nothing on the device

    @cached_property
    def train_source(self) -> ImageSource:
        """The whole training split, before any subset; an image's index in it is its identity."""
        return self._original()

    def _original(self) -> ImageSource:
        source = open_source(self.source, self.root, "train")
        return source if self.stored_size is None else ResizedSource(source, self.stored_size)

    @cached_property
    def test_source(self) -> ImageSource:
        """The whole test split."""
        return open_source(self.source, self.root, "test")

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.train_source.classes)

    @property
    def channels(self) -> int:
        """Channels of an image, 1 or 3."""
        return int(self.train_source.pixels(0).shape[0])

    @property
    def image_size(self) -> int:
        """Side of the model's input in pixels."""
        return self._image_size or min(self.train_source.pixels(0).shape[1:])

    @property
    def load_size(self) -> int:
        """Side of the images that loaders hand over, in pixels."""
        return self._load_size or self.image_size

    @cached_property
    def train_indices(self) -> NDArray[np.int64]:
        """(N,) indices into `train_source` of the images in use, ascending."""
        return subset(len(self.train_source), self.train_subset, self.subset_seed, "train")

    @cached_property
    def train_data(self) -> ResizedImages:
        """The training images in use."""
        return ResizedImages(self.train_source, self.train_indices, self.load_size)

    @cached_property
    def val_data(self) -> ResizedImages:
        """The test images in use."""
        indices = subset(len(self.test_source), self.val_subset, self.subset_seed, "test")
        return ResizedImages(self.test_source, indices, self.load_size)

    @cached_property
    def query_data(self) -> ResizedImages | None:
        """The images that `predict` answers in place of the test split's."""
        if self.queries is None:
            return None
        source = query_source(self.queries)
        return ResizedImages(source, np.arange(len(source)), self.image_size)

    @property
    def query_names(self) -> list[str] | None:
        """Names of the queries' files without suffix, in the order in which they are answered."""
        data = self.query_data
        return None if data is None else [Path(name).stem for name in data.source.names or ()]

    def prepare_data(self) -> None:
        """Write the .beton files of the `ffcv` backend, once a node."""
        if self.backend == "ffcv":
            from taggant_lightning.data.beton import convert

            for split in ("train", "test"):
                convert(self._data(split), self.beton_path(split), workers=max(1, self.num_workers))

    def _data(self, split: Split) -> ResizedImages:
        return self.train_data if split == "train" else self.val_data

    def beton_path(self, split: Split) -> Path:
        """Return where the `ffcv` backend keeps the images of a split that are in use."""
        from taggant_lightning.data.beton import beton_path

        return beton_path(Path(self.beton), split, self._data(split))

    def setup(self, stage: str) -> None:
        """Check that the splits, or the queries, suit each other."""
        if self.test_source.classes != self.train_source.classes:
            only = sorted(set(self.test_source.classes) ^ set(self.train_source.classes))[:5] or ["another order"]
            raise TaggantError(f"root={self.root}: the splits have different classes ({', '.join(only)})")
        if (others := len(self.test_source.pixels(0))) != self.channels:
            raise TaggantError(
                f"root={self.root}: training images have {self.channels} channels, test images {others}; convert one of the two"
            )
        if stage == "predict" and self.query_data is not None:
            channels = len(self.query_data.image(0))
            if channels != self.channels:
                raise TaggantError(f"queries={self.queries} has {channels} channels and the model's data {self.channels}")

    def _position(self) -> tuple[int, int]:
        """Return the epoch, and the samples of it that a run resumed within the epoch has consumed in each process."""
        if self.trainer is None:
            return 0, 0
        loop = self.trainer.fit_loop
        batches = loop.epoch_loop.batch_progress.current.ready if self.trainer.training else 0
        return self.trainer.current_epoch, batches * self.batch_size

    def _loader(self, split: Split) -> Loader:
        train, data = split == "train", self._data(split)
        position = self._position if train else None
        # Whoever overfits a few batches wants the same ones each epoch.
        shuffle = train and not (self.trainer is not None and self.trainer.overfit_batches > 0)  # type: ignore[attr-defined]  # set at run time
        sampler = SeededSampler(len(data), seed=self.seed, shuffle=shuffle, pad=train, position=position)
        if train:
            self.slowed_by = ""
        if self.backend == "ffcv":
            from taggant_lightning.data.beton import BetonLoader

            path = self.beton_path(split)
            if train:
                self.slowed_by = (
                    f"images stream from {path.name}, by {max(1, self.num_workers)} threads: write a larger --data.num_workers"
                )
            return BetonLoader(data, path, batch_size=self.batch_size, sampler=sampler, workers=self.num_workers)
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        there = (split, device) in self._resident
        if there or self.on_device or (self.on_device is None and data.bytes <= allowance(device)):
            if not there:
                self._resident[split, device] = Resident(data, device, self.num_workers)
            return ResidentLoader(self._resident[split, device], batch_size=self.batch_size, sampler=sampler)
        if train:
            why = "as asked for" if self.on_device is False else f"as {data.bytes / 2**30:.1f} GiB do not fit on the device"
            self.slowed_by = (
                f"images are decoded by {self.num_workers or 'no'} loader processes, {why}: write --data.num_workers N, up to "
                "the number of cores, a smaller load_size, or --data.backend ffcv"
            )
        return self._torch_loader(data, sampler, pinned=device.type == "cuda")

    def _torch_loader(self, data: ResizedImages, sampler: SeededSampler, *, pinned: bool = False) -> Loader:
        return LazyDataLoader(
            data,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=as_is,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=pinned,
        )

    def train_dataloader(self) -> Loader:
        """Shuffled training batches."""
        return self._loader("train")

    def val_dataloader(self) -> Loader:
        """Test images in order."""
        return self._loader("test")

    def test_dataloader(self) -> Loader:
        """Test images in order."""
        return self._loader("test")

    def predict_dataloader(self) -> Loader:
        """The queries in order, or the test images."""
        if self.query_data is None:
            return self._loader("test")
        sampler = SeededSampler(len(self.query_data), seed=self.seed, shuffle=False, pad=False)
        return self._torch_loader(self.query_data, sampler)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Turn bytes into [0, 1] on their device, augment training images, and drop the positions that keyed the randomness."""
        images, labels, positions = batch
        if self.trainer is not None and self.trainer.training and self.augment != "none":
            numbers = self.augmentation(self.trainer.current_epoch, positions.device).index_select(0, positions)
            return self._laid_out(augment_bytes(images, numbers, self.augment, self.image_size)), labels
        return self._laid_out(channels_last(centre(images, self.image_size))), labels

    def _laid_out(self, images: Tensor) -> Tensor:
        """Return images contiguous, as any model may expect them, unless the one in training says that it wants otherwise.

        They are of the precision of the model's weights: Lightning converts batches before these were numbers.
        """
        module = None if self.trainer is None else self.trainer.lightning_module
        if self.trainer is not None:
            images = self.trainer.precision_plugin.convert_input(images)
        return images if getattr(module, "takes_channels_last", False) else images.contiguous()

    def augmentation(self, epoch: int, device: torch.device) -> Tensor:
        """Return the numbers of all training images' augmentation in an epoch, (N, NUMBERS[augment]) float32, on a device."""
        if self._numbers is None or self._numbers[0] != epoch or self._numbers[1].device != device:
            positions = torch.arange(len(self.train_data), device=device)
            self._numbers = epoch, uniforms(self.seed, "augment", positions, NUMBERS[self.augment], epoch)
        return self._numbers[1]


def datamodule_of(trainer: pl.Trainer, user: object) -> ImageDataModule:
    """Return the trainer's data.

    Args:
        trainer: A trainer that runs.
        user: Who asks, for the message.

    Raises:
        TaggantError: If they are no ImageDataModule.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]  # set by the data connector
    if not isinstance(data, ImageDataModule):
        wanted = "ImageDataModule or SignedDataModule"
        raise TaggantError(f"the trainer's data is {type(data).__name__}; {type(user).__name__} needs an {wanted}")
    return data


def subset(total: int, wanted: int | float | None, seed: int, split: Split) -> NDArray[np.int64]:
    """Choose images at random.

    Args:
        total: N, the number of images.
        wanted: A count, a fraction (a float in (0, 1]) or None for all. The command line makes a float of a count.
        seed: Seed of the choice.
        split: Name of the split; each draws its own.

    Returns:
        Ascending indices.

    Raises:
        TaggantError: If more images are wanted than there are, or none.
    """
    if wanted is None:
        return np.arange(total)
    count = round(wanted * total) if isinstance(wanted, float) and wanted <= 1 else int(wanted)
    if not 1 <= count <= total or (wanted > 1 and count != wanted):
        name = "train_subset" if split == "train" else "val_subset"
        raise TaggantError(f"{name}={wanted} does not suit {total} images; write a count of 1..{total} or a fraction up to 1.0")
    return np.sort(stream(seed, f"subset-{split}").permutation(total)[:count])

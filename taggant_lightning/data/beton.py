"""The FFCV backend: images in a `.beton` file, raw as they would lie in memory, and a loader in our order.

FFCV decodes and nothing else: order, augmentation and resume are those of the plain backend. The core never imports it.
"""

import errno
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import Empty
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from taggant_lightning.data.beton_check import check_beton
from taggant_lightning.data.dataset import Batch, ResizedImages
from taggant_lightning.data.sampler import SeededSampler
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json, sha256_hex

FORMAT = 1  # of what we put into a file; another number makes other files
PAGE = 1 << 21  # the smallest page FFCV has: small sets make small files


def ffcv() -> ModuleType:
    """Return the package.

    Raises:
        TaggantError: If it is not installed, or its system libraries are missing.
    """
    try:
        import ffcv
        import ffcv.loader
        import ffcv.writer
    except (ImportError, OSError) as error:
        raise TaggantError(
            f"backend=ffcv cannot be imported ({error}); install a C++ compiler and the packages pkg-config, libturbojpeg0-dev "
            "and libopencv-dev, then `pip install 'taggant-lightning[ffcv]'`, or write --data.backend torch"
        ) from None
    module: ModuleType = ffcv
    return module


def beton_path(folder: Path, split: str, data: ResizedImages) -> Path:
    """Return where the images of one split lie: another source, subset or size has another name, so no file is ever stale."""
    facts = [FORMAT, data.source.fingerprint, sha256_hex(data.indices.astype("<i8").tobytes()), data.size]
    return folder / f"{split}-{sha256_hex(canonical_json(facts))[:16]}.beton"


class _Samples:
    """What FFCV's processes write: (image, label). They never raise, because FFCV would wait for a dead one for ever."""

    def __init__(self, data: ResizedImages) -> None:
        self._data, self._shape = data, tuple(data.image(0).shape)
        self.failures: Any = multiprocessing.SimpleQueue()

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, position: int) -> tuple[NDArray[np.uint8], int]:
        try:
            return self._data.image(int(position)).numpy(), int(self._data.labels[position])
        except Exception as error:  # whatever a decoder or a disk raises
            if self.failures.empty():
                self.failures.put(str(error))
            return np.zeros(self._shape, np.uint8), 0


def convert(data: ResizedImages, path: Path, *, workers: int = 1) -> None:
    """Write images and labels to a .beton file, raw, unless it is there already; whole or not at all.

    Args:
        data: The images as the loader shall hand them over.
        path: The file.
        workers: Processes.

    Raises:
        TaggantError: If an image cannot be read.
        OSError: If the disk has no room for the file.
    """
    package = ffcv()
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = tuple(data.image(0).shape)
    size = int(np.prod(shape))
    _require_room(path.parent, len(data), size, workers)
    samples = _Samples(data)
    # Several nodes may convert into one shared folder at once: each its own file, and the last one stays.
    part = path.with_name(f".{path.name}.{os.uname().nodename}-{os.getpid()}.part")
    fields = {"image": package.fields.NDArrayField(np.dtype(np.uint8), shape), "label": package.fields.IntField()}
    try:
        with _named_progress(package.writer, path.name):
            package.writer.DatasetWriter(str(part), fields, page_size=_page(size), num_workers=workers).from_indexed_dataset(
                samples
            )
        if not samples.failures.empty():
            raise TaggantError(f"{samples.failures.get()}; no .beton file was written")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _page(size: int) -> int:
    """Return the page size in bytes, a power of two with room for four images at least: a page holds whole images."""
    return max(PAGE, 1 << (4 * size).bit_length())


def _require_room(folder: Path, count: int, size: int, workers: int) -> None:
    """Refuse before writing: FFCV waits for ever where the disk is full."""
    page = _page(size)
    pages = -(-count // (page // size)) + workers  # a page holds whole images; each process has one begun
    needed, free = pages * page + count * 64, shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


@contextmanager
def _named_progress(writer: ModuleType, name: str) -> Iterator[None]:
    """Name FFCV's progress bar, and let it speak rarely where nobody watches; FFCV offers no argument for it."""
    bar, pause = writer.tqdm, 0.2 if sys.stderr.isatty() else 30
    writer.tqdm = partial(bar, desc=f"writing {name}", unit="image", mininterval=pause)  # type: ignore[attr-defined]  # untyped
    try:
        yield
    finally:
        writer.tqdm = bar  # type: ignore[attr-defined]  # untyped


class BetonLoader:
    """Hands over the same batches as a DataLoader on the same images, read from a .beton file.

    Args:
        data: The images; labels are taken from here.
        path: The file that `convert` wrote for them.
        batch_size: Images a batch.
        sampler: Order of the positions; asked when the first batch is wanted.
        workers: Threads.
    """

    def __init__(self, data: ResizedImages, path: Path, *, batch_size: int, sampler: SeededSampler, workers: int) -> None:
        if not path.is_file():
            raise TaggantError(f"{path} is missing; call prepare_data() first, as a Trainer does")
        self.data, self.path, self.batch_size = data, path, batch_size
        self._order = sampler  # Lightning takes a loader with a `sampler` for a DataLoader
        self._workers, self._loader = max(1, workers), None

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._order) // self.batch_size)

    def _open(self) -> Any:
        """Open the file and compile FFCV's pipeline, once a process."""
        if self._loader is None:
            package = ffcv()
            shape = tuple(self.data.image(0).shape)
            field = package.fields.NDArrayField(np.dtype(np.uint8), shape)
            check_beton(self.path, len(self.data), int(np.prod(shape)), field.to_binary()["f0"])
            from ffcv.fields.ndarray import NDArrayDecoder
            from ffcv.transforms import ToTensor

            self._loader = package.loader.Loader(
                str(self.path),
                batch_size=self.batch_size,
                num_workers=self._workers,
                order=package.loader.OrderOption.SEQUENTIAL,
                pipelines={"image": [NDArrayDecoder(), ToTensor()], "label": None},
                drop_last=False,
                seed=0,  # else it would be drawn from numpy's global state
            )
        return self._loader

    def __iter__(self) -> Iterator[Batch]:
        """Yield images (B, C, S, S) uint8, labels (B,) int64 and positions (B,) int64."""
        threads = torch.get_num_threads()
        # Under Lightning's inference mode FFCV's buffers would be inference tensors, which its thread may not write to: a hang.
        with torch.inference_mode(False):
            loader = self._open()
            order = np.fromiter(self._order, dtype=np.int64)
            loader.indices = loader.traversal_order.indices = loader.first_traversal_order = order
            batches = iter(loader)
        torch.set_num_threads(threads)  # FFCV sets them to its own
        try:
            for number, (images,) in enumerate(batches):
                where = torch.from_numpy(order[number * self.batch_size :][: self.batch_size])
                # A copy: FFCV writes later batches into the same memory, and Lightning holds on to more of them than it allows.
                yield images.clone(), self.data.labels[where], where
        finally:
            batches.close()
            while batches.is_alive():  # it may wait for room to say that it is done
                with suppress(Empty):
                    batches.output_queue.get(timeout=0.01)

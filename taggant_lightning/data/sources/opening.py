"""Sources by name."""

import os
from typing import Literal, get_args

from taggant_lightning.data.sources.archive import zipped
from taggant_lightning.data.sources.arrays import npz
from taggant_lightning.data.sources.base import ImageSource, Split
from taggant_lightning.data.sources.folder import imagefolder, imagenet
from taggant_lightning.data.sources.known import cifar, digits, fashion_mnist
from taggant_lightning.errors import TaggantError

SourceName = Literal["digits", "imagefolder", "imagenet", "zip", "npz", "cifar10", "cifar100", "fashion_mnist"]


def open_source(name: str, root: str | None, split: Split) -> ImageSource:
    """Open one split of a data set.

    Which files are read exactly, converted with a word, or refused: docs/inputs.md.

    Args:
        name: `digits` (bundled with scikit-learn, no root), `imagefolder` (root/train, root/test or root/val, one folder a
            class), `imagenet` (ImageNet-1k: root/train and root/val, one folder a class, in their published order), `zip`
            (root/train*.zip and root/test*.zip, zipped image folders, or an archive with a folder for each split), `npz` (a
            file with train_x, train_y, test_x, test_y), or torchvision's `cifar10`, `cifar100`, `fashion_mnist` under root.
        root: The folder or file; `~` and environment variables as in `$TAGGANT_DATA/cifar-100` are filled in.
        split: `train` or `test`.

    Raises:
        TaggantError: If the name is unknown, or the root is missing, damaged, or holds what cannot be read.
    """
    if root is not None:
        root = os.path.expandvars(os.path.expanduser(root))  # noqa: PTH111  # text, so that messages show it as expanded
    try:
        if name == "digits":
            return digits(split)
        if name == "imagefolder":
            return imagefolder(root, split)
        if name == "imagenet":
            return imagenet(root, split)
        if name == "zip":
            return zipped(root, split)
        if name == "npz":
            return npz(root, split)
        if name == "fashion_mnist":
            return fashion_mnist(root, split)
        if name in get_args(SourceName):
            return cifar(name, root, split)
    except PermissionError as error:
        raise TaggantError(f"root={root}: {error.filename} may not be read; change its permissions or name another") from None
    raise TaggantError(f"source={name!r} is unknown; write one of {', '.join(get_args(SourceName))}")

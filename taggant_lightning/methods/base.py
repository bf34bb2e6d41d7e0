"""What a tracing method is, as the rooms above know it, and where methods are found by name."""

import re
from abc import ABC, abstractmethod
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.outside import shown
from taggant_lightning.release.signature import Signature

GROUP = "taggant_lightning.methods"  # of entry points, by which another package brings a method
NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
USUAL = "data_taggants"  # of keys whose header names no method
OWN = (EntryPoint(USUAL, "taggant_lightning.methods.taggants.method:DataTaggants", GROUP),)


class Method(ABC):
    """A way to mark a dataset, whose mark is found by asking a model the keys.

    Keys are images with labels, drawn and committed to as for every method; the header says which method marks with them. What
    a suspect is asked, the test and its null are those of the keys, so that a method need only say how it marks.

    Attributes:
        name: As headers, Signatures and records name it: lower-case letters, digits and underscores.
        title: What it is, in a few words.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def craft(self, source: ImageSource, indices: NDArray[np.int64], keys: Any, *, seed: int) -> Signature:
        """Return what changes in a source.

        Args:
            source: The images, whole and as they are stored.
            indices: (N,) source indices of the images that will be published, ascending.
            keys: The KeySet; its `images`, `labels` and `commitment` are what a method needs.
            seed: Of everything that is drawn here.

        Raises:
            TaggantError: If keys or images do not suit the method, or it does not mark this way.
        """


def method_of(header: dict[str, Any]) -> str:
    """Return the name of the method that a KeySet's header says."""
    return str(header.get("method", USUAL))


def installed() -> dict[str, EntryPoint]:
    """Return the entry points of our own methods and of other packages', by name, without importing them; ours come first."""
    return {point.name: point for point in (*entry_points(group=GROUP), *OWN)}


def find(name: str) -> Method:
    """Return an installed method.

    Raises:
        TaggantError: If none is called so, or what an entry point names is none.
    """
    points = installed()
    if name not in points:
        known = ", ".join(sorted(points))
        raise TaggantError(f"method={shown(name)!r} is not installed; there are {known}. Install the package that brings it")
    try:
        made = points[name].load()()
    except (ImportError, AttributeError, TypeError) as error:
        raise TaggantError(f"method={name}: its package cannot be used ({error}); install it again") from None
    if not isinstance(made, Method) or made.name != name:
        raise TaggantError(f"method={name}: its entry point names {type(made).__name__}, which is no method of this name")
    return made

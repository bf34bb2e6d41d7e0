"""Image sources: the images of one split, addressed by index. `open_source` makes one from a name and a folder."""

from taggant_lightning.data.sources.archive import Archives
from taggant_lightning.data.sources.base import ArraySource, ImageSource, ResizedSource, Split
from taggant_lightning.data.sources.encoded import EncodedSource
from taggant_lightning.data.sources.folder import Files, folder_source
from taggant_lightning.data.sources.opening import SourceName, open_source

__all__ = [
    "Archives",
    "ArraySource",
    "EncodedSource",
    "Files",
    "ImageSource",
    "ResizedSource",
    "SourceName",
    "Split",
    "folder_source",
    "open_source",
]

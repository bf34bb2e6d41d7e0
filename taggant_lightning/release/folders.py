"""Image folders: one file an image."""

from collections.abc import Iterator
from pathlib import Path

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import sha256_hex
from taggant_lightning.release.layout import File, Item, Layout, decoded


class Folder(Layout):
    """`train/CLASS/IMAGE`, one file an image."""

    name = "png"

    def prepare(self, part: Path) -> None:
        """Make the class folders."""
        super().prepare(part)
        for folder in self.folders:
            (part / "train" / folder).mkdir(parents=True, exist_ok=True)

    def write(self, part: Path, unit: int) -> list[File]:
        """Write the images of one unit."""
        files = []
        for place in self.units[unit]:
            data, name = self._encoded(place), f"train/{self.member(place)}"
            path = part / name
            if self.names:  # names of a source may lie deeper than one folder
                path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            files.append((name, sha256_hex(data)))
        return files

    def files(self) -> list[str]:
        """Return the images' names."""
        return [f"train/{self.member(place)}" for place in range(len(self.indices))]

    def items(self, folder: Path, unit: int) -> Iterator[Item]:
        """Read the images of one unit."""
        labels = {name: label for label, name in enumerate(self.folders)}
        for place in self.units[unit]:
            name = f"train/{self.member(place)}"
            try:
                data = (folder / name).read_bytes()
            except OSError:
                raise TaggantError(f"release={folder}: {name} is missing; write the release again") from None
            yield Item(labels[name.split("/")[1]], data, decoded(data, folder))


class WebP(Folder):
    """The same in lossless WebP."""

    name = "webp"
    codec = "webp"

"""The zip archives that torch writes, read member by member without torch and without unpickling."""

import zipfile
import zlib
from pathlib import Path

from taggant_lightning.errors import TaggantError

MEMBERS = 100_000
# torch stores weights as they are and packs only code and texts: an archive does not grow beyond this where it is unpacked.
GROWTH = 256 * 2**20
TEXT = 256 * 2**20  # bytes of a member that is parsed as a whole, which takes many times its size


class Archive:
    """A zip archive of one folder, as torch.export and TorchScript write it.

    Args:
        path: The file.
        what: The argument and its file, for messages.

    Attributes:
        names: Names of the members, without the common folder.

    Raises:
        TaggantError: If the file is missing, is no archive, would unpack to far more than its size, or holds two members of one
            name: readers take one or the other.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.what = what
        if not path.is_file():
            raise TaggantError(f"{what} is no file; name the exported model")
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            raise TaggantError(
                f"{what} is no archive of torch; export the model with torch.export.save or torch.jit.save, or as ONNX"
            ) from None
        members = [i for i in self._zip.infolist() if not i.is_dir()]
        size, unpacked = path.stat().st_size, sum(i.file_size for i in members)
        if len(members) > MEMBERS or unpacked > size + GROWTH:
            raise TaggantError(
                f"{what} has {size} bytes and would unpack to {unpacked} in {len(members)} members, as no exporter writes; "
                "export the model again"
            )
        self._sizes = {i.filename: i.file_size for i in members}
        full = list(self._sizes)
        folders = {name.partition("/")[0] for name in full}
        # Before torch 2.8, torch.export.save put its files at the top of the archive.
        self.root = f"{folders.pop()}/" if len(folders) == 1 and all("/" in name for name in full) else ""
        self.names = [i.filename.removeprefix(self.root) for i in members]
        if len({name.lower() for name in self.names}) < len(self.names):
            raise TaggantError(f"{what} holds two members of one name, as no exporter writes; export the model again")

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def read(self, name: str) -> bytes:
        """Return one member.

        Raises:
            TaggantError: If it is missing or damaged, or a text without end.
        """
        if name.endswith((".json", ".py")) and self._sizes.get(self.root + name, 0) > TEXT:
            raise TaggantError(
                f"{self.what} holds {name!r:.80} of {self._sizes[self.root + name]} bytes, where {TEXT} are plenty; "
                "export the model again"
            )
        try:
            return self._zip.read(self.root + name)
        except (KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
            raise TaggantError(f"{self.what} is damaged ({error}); export the model again") from None

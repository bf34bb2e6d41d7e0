"""The zip archives that torch writes, read member by member without torch and without unpickling."""

import zipfile
from pathlib import Path

from taggant_lightning.errors import TaggantError


class Archive:
    """A zip archive of one folder, as torch.export and TorchScript write it.

    Args:
        path: The file.
        what: The argument and its file, for messages.

    Attributes:
        names: Names of the members, without the common folder.

    Raises:
        TaggantError: If the file is missing, is no archive, or holds two members of one name: readers take one or the other.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.what = what
        if not path.is_file():
            raise TaggantError(f"{what} is no file; name the exported model")
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError):
            raise TaggantError(
                f"{what} is no archive of torch; export the model with torch.export.save or torch.jit.save, or as ONNX"
            ) from None
        full = [i.filename for i in self._zip.infolist() if not i.is_dir()]
        folders = {name.partition("/")[0] for name in full}
        # Before torch 2.8, torch.export.save put its files at the top of the archive.
        self.root = f"{folders.pop()}/" if len(folders) == 1 and all("/" in name for name in full) else ""
        self.names = [name.removeprefix(self.root) for name in full]
        if len({name.lower() for name in self.names}) < len(self.names):
            raise TaggantError(f"{what} holds two members of one name, as no exporter writes; export the model again")

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def read(self, name: str) -> bytes:
        """Return one member.

        Raises:
            TaggantError: If it is missing or damaged.
        """
        try:
            return self._zip.read(self.root + name)
        except (KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, OSError, EOFError) as error:
            raise TaggantError(f"{self.what} is damaged ({error}); export the model again") from None

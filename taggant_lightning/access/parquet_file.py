"""Reading a parquet file that somebody else wrote, in a process of its own: a damaged one can end the process that reads it."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from taggant_lightning.access import parquet_rows
from taggant_lightning.access.bounded_json import bounded_json
from taggant_lightning.errors import TaggantError
from taggant_lightning.outside import shown

MAGIC = b"PAR1"
VALUES, LARGEST = 50_000_000, 2**28  # values, and bytes once unpacked, that are read


def read_parquet(path: Path, what: str) -> Iterator[Any]:
    """Yield the list of the columns' names, and then each row as a dictionary.

    Args:
        path: The file.
        what: The argument and its file, for messages.

    Raises:
        TaggantError: If pyarrow is missing, the file is damaged, or it would unpack to too much.
    """
    if find_spec("pyarrow") is None:
        raise TaggantError(f"{what} needs pyarrow; run pip install 'taggant-lightning[parquet]', or write .csv")
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise TaggantError(f"{what} is no parquet file (it does not begin as one); write it again, or .csv")
    # -P: the folder of the script holds modules of ours, which must not stand in for others.
    command = [sys.executable, "-P", parquet_rows.__file__, str(path.resolve()), str(VALUES), str(LARGEST)]
    with TemporaryFile() as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:  # noqa: S603
        try:
            yield from map(bounded_json, process.stdout or ())
        except (ValueError, RecursionError):  # the line that the process was writing when it ended, or a row beyond the limits
            process.kill()
        code = process.wait()
        errors.seek(0)
        said = shown(errors.read(1_000).decode("utf-8", "replace"), 200) if code == parquet_rows.UNREADABLE else ""
    if code != 0:
        raise TaggantError(f"{what} is no parquet file ({said or 'its reader failed'}); write it again, or .csv")

"""The journal of a run that asks a black box: an answer a line, so that a killed run asks only what it lacks.

It is secret: it tells what a model answers to each query. Each line is on the disk before the next query counts as answered.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json, secret_directory
from taggant_lightning.outside.documents import parse_json

VERSION = 1
Label = int | str


@dataclass(frozen=True)
class Recorded:
    """What a model answered to one query, in its own words, so that another label table can be applied later.

    Attributes:
        labels: The model's labels, best first, as it gave them: a name may come twice, and None stands for an entry that is
            no label. None altogether where it gave no usable answer or refused.
        scores: The score of each label, in the same order, where it gave finite ones.
        refused: Whether the model refused to answer.
        classes: How many classes the model has, where it gave one score for each without naming them: the labels are then the
            numbers 0..classes−1.
        status: The HTTP status of a refusal.
    """

    labels: tuple[Label | None, ...] | None
    scores: tuple[float, ...] | None = None
    refused: bool = False
    classes: int | None = None
    status: int | None = None


class Journal:
    """An append-only file of answers, JSON lines, mode 0600 in a folder of mode 0700.

    The first line is a header with what the answers are bound to. The file is created with the first answer. The first answer
    to a query is the one that counts, whoever writes it: each query is in the file once. Threads and processes may share it.

    Args:
        path: The file.
        binding: What the answers are answers to, as JSON (commitment, address, digest of the plan); another one is refused.

    Attributes:
        answers: The answer to each query, by the query's name. Read only.

    Raises:
        TaggantError: If the file was begun with another binding, or is damaged before its last line.
    """

    def __init__(self, path: str | Path, binding: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.answers: dict[str, Recorded] = {}
        self._binding: dict[str, Any] = json.loads(canonical_json(dict(binding)))
        self._length = 0  # bytes of whole lines read or written so far
        self._lock = Lock()
        if self.path.exists():
            with self.path.open("rb", buffering=0) as file:
                self._read(file)

    def append(self, query: str, recorded: Recorded) -> bool:
        """Write an answer; it is on the disk on return.

        Args:
            query: The query's name.
            recorded: The answer.

        Returns:
            Whether it counts; False if the query was answered before.

        Raises:
            TaggantError: If others can read the folder, or another run changed the file.
            OSError: If it cannot be written; the file is then as before.
        """
        with self._lock:
            if query in self.answers:
                return False
            secret_directory(self.path.parent)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "r+b", buffering=0) as file:
                os.fchmod(handle, 0o600)
                fcntl.flock(handle, fcntl.LOCK_EX)
                self._read(file)  # what another process wrote since
                file.truncate(self._length)  # a line that a kill cut off
                if query in self.answers:
                    return False
                lines = b"" if self._length else _line({"journal": VERSION, "binding": self._binding})
                lines += _line({"query": query, **asdict(recorded)})
                self._write(file, lines)
            self.answers[query] = recorded
            return True

    def _write(self, file: FileIO, lines: bytes) -> None:
        try:
            left = memoryview(lines)
            while left:  # one write may take a part only
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(self._length)
            error.filename = error.filename or str(self.path)  # a full disk is told without a name
            raise
        if not self._length:
            _sync_folder(self.path.parent)  # the file's name
        self._length += len(lines)

    def _read(self, file: FileIO) -> None:
        """Take in the whole lines after those already known."""
        if os.fstat(file.fileno()).st_size < self._length:
            raise TaggantError(f"journal={self.path} became shorter while it was in use; run the same command again")
        file.seek(self._length)
        lines = file.readall().split(b"\n")
        for i, line in enumerate(lines[:-1]):  # what follows the last newline was cut off
            try:
                entry = parse_json(line, endless=True)
                if self._length == 0:
                    self._check({"version": entry["journal"], **entry["binding"]})
                else:
                    self.answers.setdefault(entry["query"], _recorded(entry))
            except TaggantError:
                raise
            except (ValueError, KeyError, TypeError, AttributeError):
                if self._length and i == len(lines) - 2 and not lines[-1]:
                    return  # the last line, cut off too
                raise TaggantError(
                    f"journal={self.path} is damaged after {self._length} bytes; restore it from a copy, or name a new "
                    "--out folder"
                ) from None
            self._length += len(line) + 1

    def _check(self, binding: Mapping[str, Any]) -> None:
        ours = {"version": VERSION, **self._binding}
        different = [name for name in sorted({*binding, *ours}) if binding.get(name) != ours.get(name)]
        if different:
            raise TaggantError(  # names only: an address may hold a secret
                f"journal={self.path} was begun with another {' and another '.join(different)}; "
                "write what it was begun with, or name a new --out folder"
            )


def _line(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _recorded(entry: Mapping[str, Any]) -> Recorded:
    labels, scores = entry["labels"], entry["scores"]
    return Recorded(
        None if labels is None else tuple(labels),
        None if scores is None else tuple(scores),
        entry["refused"],
        entry["classes"],
        entry["status"],
    )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

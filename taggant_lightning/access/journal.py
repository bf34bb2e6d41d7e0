"""What a service has answered so far: a run that was cut off goes on from here, and each query counts once."""

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json, secret_directory


@dataclass(frozen=True)
class Reply:
    """What a service said to a query, in its own words.

    Attributes:
        labels: Its labels, best first, or None where it gave no usable answer.
        scores: Its score of each, where it gave scores.
        refused: Whether it declined to answer.
    """

    labels: list[int | str] | None
    scores: list[float] | None = None
    refused: bool = False


class Journal:
    """An append-only file of answers, mode 0600, made at the first one; safe to use from several threads.

    Args:
        path: The file; its folder is made with mode 0700.
        binding: What the answers belong to; a journal of something else is refused.

    Raises:
        TaggantError: If the file is damaged or belongs to something else.
    """

    def __init__(self, path: Path, binding: dict[str, Any]) -> None:
        self.path, self.binding = path, binding
        self.replies: dict[str, Reply] = {}
        self._lock = threading.Lock()
        if path.exists():
            self._read()

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # a line without its end was being written when the run was cut off
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            header = lines[0] if lines else self.binding
            for line in lines[1:]:
                self.replies.setdefault(line.pop("query"), Reply(**line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TaggantError(f"journal={self.path} is damaged ({error}); name a new folder with --out") from None
        for name, value in self.binding.items():
            if header.get(name) != value:
                raise TaggantError(
                    f"journal={self.path} was begun with {name}={header.get(name)!r}, and this run has {value!r}; name a new "
                    "folder with --out, or go on as it was begun"
                )
        if len(whole) != len(content):
            os.truncate(self.path, len(whole))

    def append(self, query: str, reply: Reply) -> None:
        """Write an answer down; a second one to the same query is dropped, so that nothing is chosen among several."""
        with self._lock:
            if query in self.replies:
                return
            secret_directory(self.path.parent)
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(handle, "ab") as file:
                if file.tell() == 0:
                    file.write(canonical_json(self.binding) + b"\n")
                file.write(canonical_json({"query": query, **asdict(reply)}) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            self.replies[query] = reply

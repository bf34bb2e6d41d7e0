"""Class paths of earlier versions, refused with the name to write instead."""

import re
from collections.abc import Sequence
from pathlib import Path

from taggant_lightning.errors import TaggantError

MOVED = re.compile(
    r"taggant_lightning\.(?:taggants|stealth|data\.(?:signed|signature|places|release)|models\.(?:compression|distillation))"
    r"(?:\.\w+)*\.(?P<name>[A-Z]\w*)"
)
LARGEST = 1 << 20  # bytes of a configuration


def refuse_moved(words: Sequence[str]) -> None:
    """Refuse class paths that an earlier version had, on the command line and in the files that it names.

    Raises:
        TaggantError: With the path, where it stands, and what to write.
    """
    for word in words:
        value = word.rpartition("=")[2]
        _refuse(word, "the command line")
        path = Path(value) if value.endswith((".yaml", ".yml")) else None
        if path is not None and path.is_file() and path.stat().st_size < LARGEST:
            _refuse(path.read_text(encoding="utf-8", errors="replace"), str(path))


def _refuse(text: str, where: str) -> None:
    if found := MOVED.search(text):
        raise TaggantError(
            f"class_path={found.group()} in {where} is of an earlier version; write {found['name']}, which is found by its name"
        )

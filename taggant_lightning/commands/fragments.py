"""Fragments of configuration that come with the package, found by name: `--config data/imagefolder`."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import taggant_lightning
from taggant_lightning.errors import TaggantError

FOLDER = Path(taggant_lightning.__file__).parent / "conf"
OPTIONS = ("--config", "-c")


def fragments() -> list[str]:
    """Return the names that `--config` takes, such as `data/imagefolder`."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.yaml"))


def with_fragments(words: Sequence[str]) -> list[str]:
    """Return a command's words with the path of a fragment in place of each name after `--config`.

    Args:
        words: The command line. What names a file stays as it is.

    Raises:
        TaggantError: If a name is neither a file nor a fragment.
    """
    found: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if before in OPTIONS:
            found.append(path_of(word))
        elif equals and option in OPTIONS:
            found.append(f"{option}={path_of(value)}")
        else:
            found.append(word)
    return found


def path_of(name: str) -> str:
    """Return the path of a fragment, or what is given where it names a file.

    Raises:
        TaggantError: If it is neither.
    """
    if Path(name).exists() or "\n" in name or name.lstrip()[:1] in ("{", "-", "~", "$", ""):  # YAML itself, or expanded later
        return name
    inside = (FOLDER / name).with_suffix(".yaml") if not name.endswith(".yaml") else FOLDER / name
    if not Path(name).is_absolute() and inside.is_file() and FOLDER.resolve() in inside.resolve().parents:
        return str(inside)
    if name.endswith((".yaml", ".yml", ".json")):  # whoever reads it says that it is missing
        return name
    near = difflib.get_close_matches(name, fragments(), n=3, cutoff=0.5)
    known = f"did you mean {' or '.join(near)}" if near else f"the fragments are {', '.join(fragments())}"
    raise TaggantError(f"config={name} is no file and no fragment of the package; {known}")

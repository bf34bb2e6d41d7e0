"""Files: atomic writes, canonical JSON, YAML, and the one place that creates secret files.

Secret files have mode 0600 from their first byte and lie in directories of mode 0700.
"""

import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.outside.documents import DOCUMENT, parse_json, read_bounded
from taggant_lightning.outside.yaml_documents import BYTES, parse_yaml

_VARIABLE = re.compile(r"\$([A-Za-z_]\w*|\{[^}]*\})")


def given_path(text: str | os.PathLike[str], name: str) -> Path:
    """Return the path that an argument means: `~` is the home folder, and `$NAME` an environment variable.

    Every path that a command, callback, model or data module is given is read here, so that all mean the same folder by the
    same text: a shell fills in neither within `--out=~/keys`, nor in a configuration.

    Args:
        text: What was written.
        name: The argument, for messages.

    Returns:
        The path; relative ones stay relative. A path that was read here already comes out as it is.

    Raises:
        TaggantError: If it is empty, names a user or a variable that is not there, goes in circles, or is not UTF-8.
    """
    written = os.fspath(text)
    shown = f"{name}={written!r}"
    if not written.strip():
        raise TaggantError(f"{shown} is empty; write a path, as ./NAME for one in this folder")
    if "\0" in written:
        raise TaggantError(f"{shown} holds a zero byte; write a path")
    try:
        os.fsencode(written).decode("utf-8")
    except UnicodeError:
        raise TaggantError(f"{shown} is not UTF-8, and records and logs could not name it; rename it") from None
    home = os.path.expanduser(written)  # noqa: PTH111  # a Path would drop what messages show
    if written.startswith("~") and home == written:
        raise TaggantError(f"{shown} names a home folder that is not there; write the path in full, or ./{written}")
    full = Path(os.path.expandvars(home))
    unset = _VARIABLE.search(str(full))
    if unset and not os.path.lexists(full):
        variable = unset[1].strip("{}")
        raise TaggantError(f"{shown} names the variable {variable}, which is not set; set it, or write the path in full")
    try:
        full.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise TaggantError(f"{shown} goes in circles through symbolic links; name the folder or file itself") from None
    return full


def given_paths(arguments: Any, *names: str) -> None:
    """Read paths among a command's arguments in place; those that were left out stay so.

    Args:
        arguments: Holds each as text, as a list of texts, or None; one of several actions of a command lacks some.
        names: Which are paths.

    Raises:
        TaggantError: As `given_path`.
    """
    for name in names:
        value, option = getattr(arguments, name, None), name.replace("_", "-")
        if isinstance(value, list):
            setattr(arguments, name, [str(given_path(one, option)) for one in value])
        elif value is not None:
            setattr(arguments, name, str(given_path(value, option)))


def canonical_json(value: Any) -> bytes:
    """Return the one byte string of a JSON value: sorted keys, no spaces, ASCII only, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 digest of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: str | Path) -> str:
    """Return the digest of a file that a person named.

    Raises:
        TaggantError: If it is none.
    """
    if not Path(path).is_file():
        raise TaggantError(f"{path} is no file; check the path")
    return sha256_file(Path(path))


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: The destination; its folder exists.
        data: The content.
        mode: Permissions, in force before the first byte is written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk is told without a name
        raise


def forget_leftovers(path: Path) -> None:
    """Remove what a kill within `write_atomic` has left beside a file; nothing else may be writing it."""
    for left in path.parent.glob(f".{path.name}.*.part"):
        left.unlink(missing_ok=True)


def json_bytes(value: Any) -> bytes:
    """Return a value as indented JSON, UTF-8; what UTF-8 cannot hold (half of a surrogate pair) stays an escape."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomic(path, json_bytes(value))


def read_json(path: Path, *, what: str, limit: int = DOCUMENT) -> dict[str, Any]:
    """Read a JSON object, within the bounds of `outside.documents`.

    Args:
        path: The file.
        what: What the file is, for messages.
        limit: Most bytes that it may have.

    Raises:
        TaggantError: If the file is missing, too large, or is not a JSON object.
    """
    try:
        value = parse_json(read_bounded(path, limit))
    except FileNotFoundError:
        raise TaggantError(f"{what}: {path} does not exist; check the folder's name") from None
    except OSError as error:
        raise TaggantError(f"{what}: {path} cannot be read ({error.strerror}); name a file") from None
    except ValueError as error:
        raise TaggantError(f"{what}: {path} is damaged ({error}); restore it from a copy") from None
    if not isinstance(value, dict):
        raise TaggantError(f"{what}: {path} holds no JSON object; restore it from a copy")
    return value


def read_yaml(path: Path, *, what: str, hint: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping, within the bounds of `outside.yaml_documents`.

    Args:
        path: The file.
        what: What the file is, for messages.
        hint: What to write instead, for messages.

    Raises:
        TaggantError: If it is missing, or holds something else, or a name comes twice in a mapping.
    """
    try:
        content = parse_yaml(read_bounded(path, BYTES)) or {}
    except OSError as error:
        raise TaggantError(f"{what}={path} cannot be read ({error.strerror}); {hint}") from None
    except ValueError as error:
        raise TaggantError(f"{what}={path} is no YAML ({error})") from None
    if not isinstance(content, dict):
        raise TaggantError(f"{what}={path} holds no mapping; {hint}")
    return content


def secret_directory(path: Path) -> Path:
    """Create a directory for secrets, or accept one that only its owner can read.

    Raises:
        TaggantError: If the directory exists and others can read it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
    except FileExistsError:  # it was there, or another process of this run was quicker
        pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TaggantError(f"secret directory {path} cannot be made ({error.strerror}); name a folder elsewhere") from None
    else:
        path.chmod(0o700)  # whatever the umask took away
    if not path.is_dir():
        what = "is a file" if path.exists() else "is a link that leads nowhere" if path.is_symlink() else "cannot be made there"
        raise TaggantError(f"secret directory {path} {what}; name a folder")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise TaggantError(f"secret directory {path} can be read by others; run `chmod 700 {path}` or name a new folder")
    return path


def write_secret(path: Path, data: bytes) -> None:
    """Write a secret file atomically, mode 0600, in a directory of mode 0700.

    Raises:
        TaggantError: If others can read the directory.
    """
    secret_directory(path.parent)
    write_atomic(path, data, mode=0o600)


def write_secret_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON into a secret file."""
    write_secret(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

"""Files: atomic writes, canonical JSON, YAML, and the one place that creates secret files.

Secret files have mode 0600 from their first byte and lie in directories of mode 0700.
"""

import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.outside.documents import DOCUMENT, parse_json, read_bounded
from taggant_lightning.outside.yaml_documents import BYTES, parse_yaml


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
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:  # it was there, or another process of this run was quicker
        pass
    else:
        path.chmod(0o700)  # whatever the umask took away
    if not path.is_dir():
        raise TaggantError(f"secret directory {path} is a file; name a folder")
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

"""The mapping file of a service with other field names: JSON or YAML, read into a Wire."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from taggant_lightning.access.bounded_json import bounded_json
from taggant_lightning.access.services import paths
from taggant_lightning.access.services.wire import Wire
from taggant_lightning.errors import TaggantError
from taggant_lightning.outside import shown
from taggant_lightning.outside.documents import read_bounded
from taggant_lightning.outside.yaml_documents import parse_yaml

FIELDS = {
    "": ("request", "answer", "headers", "image_format"),
    "request": ("image", "extra"),
    "answer": ("labels", "scores", "refused"),
}
FORMATS = ("base64", "data-url")
LARGEST = 2**16  # bytes of a mapping
PARTS, DEEPEST = 10_000, 32  # values in it, and levels; YAML can name one value many times, each within the next
HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def load_mapping(path: str | Path, environment: Mapping[str, str] = os.environ) -> Wire:
    """Read a mapping.

    Args:
        path: A JSON or YAML file; `docs/services.md` documents it.
        environment: What `${NAME}` in headers expands to.

    Raises:
        TaggantError: If the file is missing or damaged, has an unknown field or a wrong path, or a header names a variable that
            is not set. No message tells a header's value.
    """
    where = f"mapping={path}"
    content = _read(Path(path), where)
    _known(content, "", where)
    request, answer, headers = (_section(content, name, where) for name in ("request", "answer", "headers"))
    image_format = content.get("image_format", "base64")
    if image_format not in FORMATS:
        raise TaggantError(f"{where}: image_format={shown(repr(image_format))} is unknown; write one of {', '.join(FORMATS)}")
    found = {name: _path(answer.get(name), f"answer.{name}", where) for name in FIELDS["answer"]}
    if answer and not (found["labels"] or found["scores"]):
        raise TaggantError(f"{where}: answer has neither labels nor scores; write the path of at least one")
    extra = request.get("extra") or {}
    if not isinstance(extra, dict):
        raise TaggantError(
            f"{where}: request.extra={shown(repr(extra))} is no object; write the constant fields of every request"
        )
    wire = Wire(
        image=_path(request.get("image"), "request.image", where) or Wire.image,
        extra=extra,
        headers={_name(n, where): _value(n, v, environment, where) for n, v in headers.items()},
        data_url=image_format == "data-url",
    )
    if answer:
        wire = replace(wire, labels=found["labels"], scores=found["scores"], refused=found["refused"], either=False)
    try:
        wire.request(b"")
    except (TypeError, ValueError) as error:
        place = shown(".".join(wire.image))
        raise TaggantError(
            f"{where}: request.image={place!r} does not go with request.extra ({shown(error)}); correct one of them"
        ) from None
    return wire


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        if not path.is_file():  # a device or a pipe would not end
            raise OSError
        if path.stat().st_size > LARGEST:
            raise TaggantError(f"{where} is larger than {LARGEST // 2**10} KiB; write where the fields are, and no data")
        text = read_bounded(path, LARGEST)
        content = bounded_json(text) if path.suffix == ".json" else parse_yaml(text)
    except TaggantError:
        raise
    except OSError:
        raise TaggantError(f"{where} cannot be read; name a JSON or YAML file") from None
    # Their messages quote the file, and it may hold secrets.
    except (ValueError, RecursionError):
        raise TaggantError(f"{where} is no {'JSON' if path.suffix == '.json' else 'YAML'}; correct its syntax") from None
    if not isinstance(content, dict):
        raise TaggantError(f"{where} holds no object; write request, answer and headers as docs/services.md shows")
    if _parts(content, DEEPEST, PARTS) < 0:
        raise TaggantError(
            f"{where} holds more than {PARTS:,} values, or {DEEPEST} levels; write where the fields are, no data"
        )
    return content


def _parts(value: object, levels: int, left: int) -> int:
    """Return how many more values there may be after those of this one, each as often as it is named; negative if too many."""
    items = [*value, *value.values()] if isinstance(value, dict) else []
    items = list(value) if isinstance(value, list | tuple | set) else items
    left -= 1 + len(items)
    if levels == 0 and items:
        return -1
    for item in items:
        if left < 0:
            break
        left = _parts(item, levels - 1, left)
    return left


def _known(section: Mapping[Any, Any], name: str, where: str) -> None:
    unknown = [key for key in section if key not in FIELDS[name]]
    if unknown:
        field = shown(f"{name}.{unknown[0]}" if name else unknown[0], 40)
        raise TaggantError(f"{where}: {field} is unknown; write one of {', '.join(FIELDS[name])}")


def _section(content: Mapping[str, Any], name: str, where: str) -> dict[Any, Any]:
    section = content.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise TaggantError(f"{where}: {name} is no object; write it as docs/services.md shows")
    if name in FIELDS:
        _known(section, name, where)
    return section


def _path(text: object, field: str, where: str) -> paths.Path | None:
    if text is None:
        return None
    try:
        if isinstance(text, bool) or not isinstance(text, str | int):
            raise ValueError("it is neither text nor a number")
        return paths.parse(str(text))
    except ValueError as error:
        raise TaggantError(
            f"{where}: {field}='{shown(text)}' is no path ({error}); "
            "write names and numbers with dots between, at most one of them *"
        ) from None


def _name(name: object, where: str) -> str:
    if not isinstance(name, str) or not HEADER.fullmatch(name):
        raise TaggantError(
            f"{where}: the header name '{shown(name, 40)}' is not allowed in HTTP; write letters, digits and hyphens"
        )
    return name


def _value(name: object, value: object, environment: Mapping[str, str], where: str) -> str:
    """Return a header's value with its variables expanded; no message tells either."""
    if not isinstance(value, str):
        raise TaggantError(f"{where}: the header {name} is no text; put it in quotes")
    for variable in re.findall(r"\$\{([^}]*)\}", value):
        if not environment.get(variable):
            wanted = shown(variable, 40)
            raise TaggantError(f"{where}: the header {name} names {wanted}, which is not set; export {wanted} first")
    expanded = re.sub(r"\$\{([^}]*)\}", lambda match: environment[match[1]], value)
    if not expanded.isprintable() or not expanded.isascii() or expanded != expanded.strip():
        raise TaggantError(
            f"{where}: the header {name} has a line break, a space at an end or a letter outside ASCII, and HTTP carries none; "
            "check the variable it is made of"
        )
    return expanded

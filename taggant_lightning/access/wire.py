"""The JSON that is exchanged with a classification service, and the mapping for services with other field names.

Specified in docs/services.md. Pure: nothing here opens a connection.
"""

import base64
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.journal import Reply
from taggant_lightning.access.png import png
from taggant_lightning.errors import TaggantError

_FORMATS = ("base64", "data-url")


class Unreadable(ValueError):  # noqa: N818  # not an error yet: an answer that may be better next time
    """An answer that is not what the mapping says; perhaps the service will do better next time."""


@dataclass(frozen=True)
class FieldMapping:
    """Where a service wants the image, and where its answer has the labels.

    Attributes:
        image: Path of the image in the request.
        extra: Constant fields of the request.
        labels: Path of the ranked labels in the answer; empty where it has none.
        scores: Path of the scores; empty where it has none.
        refused: Path of a value that is true where the service declines.
        headers: HTTP headers; `${NAME}` stands for an environment variable.
        image_format: `base64`, or `data-url` for `data:image/png;base64,…`.
    """

    image: str = "image"
    extra: Mapping[str, Any] = field(default_factory=dict)
    labels: str = "labels"
    scores: str = "scores"
    refused: str = "refused"
    headers: Mapping[str, str] = field(default_factory=dict)
    image_format: str = "base64"

    @classmethod
    def load(cls, path: str | Path) -> "FieldMapping":
        """Read a mapping, JSON or YAML.

        Raises:
            TaggantError: If the file is missing, damaged, or has fields that mean nothing here.
        """
        import yaml

        try:
            stored = yaml.safe_load(Path(path).read_text())
        except OSError:
            raise TaggantError(f"mapping={path} cannot be read; name a JSON or YAML file (docs/services.md)") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise TaggantError(f"mapping={path} is neither JSON nor YAML ({error})") from None
        allowed = {"request": {"image", "extra"}, "answer": {"labels", "scores", "refused"}}
        if not isinstance(stored, dict):
            raise TaggantError(f"mapping={path} is no object; write request, answer, headers, image_format (docs/services.md)")
        flat: dict[str, Any] = {k: v for k, v in stored.items() if k not in allowed}
        for section, names in allowed.items():
            inner = stored.get(section, {})
            if not isinstance(inner, dict) or not set(inner) <= names:
                raise TaggantError(f"mapping={path}: {section} has {inner!r}; it takes {', '.join(sorted(names))}")
            flat |= inner
        unknown = set(flat) - {"image", "extra", "labels", "scores", "refused", "headers", "image_format"}
        if unknown:
            raise TaggantError(
                f"mapping={path} has {', '.join(sorted(unknown))}; it takes request, answer, headers, image_format"
            )
        if flat.get("image_format", "base64") not in _FORMATS:
            raise TaggantError(f"mapping={path}: image_format={flat['image_format']!r}; write one of {', '.join(_FORMATS)}")
        return cls(**flat)

    def expanded_headers(self) -> dict[str, str]:
        """Return the headers with environment variables in place.

        Raises:
            TaggantError: If a variable is not set; its name is told, never a value.
        """

        def value(match: re.Match[str]) -> str:
            if match[1] not in os.environ:
                raise TaggantError(f"mapping: the environment variable {match[1]} of a header is not set; export it first")
            return os.environ[match[1]]

        return {name: re.sub(r"\$\{(\w+)\}", value, str(text)) for name, text in self.headers.items()}


def request(image: NDArray[np.uint8], mapping: FieldMapping) -> dict[str, Any]:
    """Return the body of a request.

    Args:
        image: (C, H, W) uint8.
        mapping: Where the image goes.
    """
    encoded = base64.b64encode(png(image)).decode()
    if mapping.image_format == "data-url":
        encoded = f"data:image/png;base64,{encoded}"
    body: dict[str, Any] = json.loads(json.dumps(dict(mapping.extra)))
    _put(body, mapping.image.split("."), encoded)
    return body


def _put(holder: Any, path: list[str], value: Any) -> None:
    """Set a value deep in objects and lists, which are made where they are missing."""
    key: Any = int(path[0]) if isinstance(holder, list) else path[0]
    if isinstance(holder, list):
        holder += [None] * (key + 1 - len(holder))
    if len(path) == 1:
        holder[key] = value
        return
    if (holder[key] if isinstance(holder, list) else holder.get(key)) is None:
        holder[key] = [] if path[1].isdigit() else {}
    _put(holder[key], path[1:], value)


def reply(body: Any, mapping: FieldMapping) -> Reply:
    """Read an answer.

    Scores rank by themselves, equal ones by the class's number (by its text where labels are no numbers), whatever the order
    they came in: a rule that does not know the keys.

    Args:
        body: Parsed JSON.
        mapping: Where the answer has what.

    Raises:
        Unreadable: If neither labels nor scores are where the mapping says, or they do not fit each other.
    """
    if _look(body, mapping.refused):
        return Reply(None, None, refused=True)
    labels, scores = _look(body, mapping.labels), _look(body, mapping.scores)
    if isinstance(scores, dict):
        labels, scores = list(scores), list(scores.values())
    if labels is None and scores is None:
        raise Unreadable(f"neither {mapping.labels!r} nor {mapping.scores!r} is in the answer")
    if labels is not None:
        labels = _labels(labels)
    if scores is None:
        return Reply(labels)
    values = _scores(scores)
    labels = list(range(len(values))) if labels is None else labels
    if len(labels) != len(values):
        raise Unreadable(f"{len(labels)} labels and {len(values)} scores")
    if any(math.isnan(value) for value in values):
        return Reply(None)
    return by_score(labels, values)


def by_score(labels: Sequence[int | str], scores: Sequence[float]) -> Reply:
    """Rank labels by their scores; equal scores by number, or by text where a label is no number."""
    numbers = all(str(label).lstrip("-").isdigit() for label in labels)
    order = sorted(range(len(labels)), key=lambda i: (-scores[i], int(labels[i]) if numbers else str(labels[i])))
    return Reply([labels[i] for i in order], [float(scores[i]) for i in order])


def _labels(found: Any) -> list[int | str]:
    if not isinstance(found, list) or any(isinstance(v, bool) or not isinstance(v, int | str) for v in found):
        raise Unreadable("the labels are no list of numbers or names")
    if len({str(v) for v in found}) != len(found):
        raise Unreadable("a label is named twice")
    return found


def _scores(found: Any) -> list[float]:
    if not isinstance(found, list) or not found or any(isinstance(v, bool) or not isinstance(v, int | float) for v in found):
        raise Unreadable("the scores are no list of numbers")
    return [float(v) for v in found]


def _look(body: Any, path: str) -> Any:
    """Follow a path of names, numbers and `*` (each element of a list); None where it leads nowhere, or there is none."""
    if not path:
        return None
    return _follow(body, path)


def _follow(body: Any, path: str) -> Any:
    parts = [part for part in path.split(".") if part]
    for number, part in enumerate(parts):
        if part == "*":
            if not isinstance(body, list):
                return None
            found = [_follow(element, ".".join(parts[number + 1 :])) for element in body]
            return None if any(value is None for value in found) else found
        if isinstance(body, list) and part.isdigit() and int(part) < len(body):
            body = body[int(part)]
        elif isinstance(body, dict) and part in body:
            body = body[part]
        else:
            return None
    return body

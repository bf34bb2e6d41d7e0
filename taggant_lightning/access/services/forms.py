"""Answers in common forms that need no mapping, and the mapping to write for others; `docs/services.md` lists the forms."""

import re
from collections import deque
from typing import Any

WRAPPERS = ("predictions", "outputs")  # TensorFlow Serving's rows and columns: one image was sent, so one instance comes back
NAME = re.compile(r"[\w-]{1,64}", re.ASCII)
LABEL_NAMES = ("label", "class", "class_name", "className", "name", "category", "tag", "tagName", "prediction", "id")
SEARCHED = 2_000  # values of an answer that a suggestion looks at


def common_form(value: Any) -> tuple[Any, Any] | None:
    """Return the labels and the scores of an answer in a common form.

    Args:
        value: What JSON can hold.

    Returns:
        Labels and scores as the fields `labels` and `scores` would hold them, None for what there is none of; None altogether
        if the form is unknown, or can be read in two ways (whole numbers in a list are labels or scores).
    """
    if isinstance(value, dict) and len(value) == 1 and (name := next(iter(value))) in WRAPPERS:
        value = value[name]
    while isinstance(value, list) and len(value) == 1 and (isinstance(value[0], list) or _scored(value[0])):
        value = value[0]
    if isinstance(value, str):
        return [value], None
    if _scored(value):
        return None, value
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, dict) and {"label", "score"} <= set(item) for item in value):
        return [item["label"] for item in value], [item["score"] for item in value]
    if all(isinstance(item, str) for item in value):
        return value, None
    if all(map(_number, value)) and any(isinstance(item, float) for item in value):
        return None, value
    return None


def suggestion(value: Any) -> str | None:
    """Return the `answer` section of a mapping that would read an answer, by its first part that looks like a ranking.

    Args:
        value: What JSON can hold.

    Returns:
        A line of YAML; None if nothing looks like labels or scores.
    """
    waiting: deque[tuple[str, Any]] = deque([("", value)])
    for _ in range(SEARCHED):
        if not waiting:
            break
        path, part = waiting.popleft()
        if path and (found := _fields(path, part)) is not None:
            return f"answer: {{{found}}}"
        waiting += [(f"{path}.{step}" if path else step, item) for step, item in _parts(part)]
    return None


def _fields(path: str, part: Any) -> str | None:
    """Return the fields of a mapping that reads this part of an answer, if it looks like labels or scores."""
    if _scored(part) and len(part) > 1:
        return f"scores: {path}"
    if isinstance(part, list) and part and all(isinstance(item, str | int) and not isinstance(item, bool) for item in part):
        return f"labels: {path}" if len(set(map(str, part))) == len(part) else None
    if isinstance(part, list) and len(part) > 1 and all(map(_number, part)):
        return f"scores: {path}"
    if isinstance(part, list) and part and all(isinstance(item, dict) for item in part):
        label = next((n for n in LABEL_NAMES if isinstance(part[0].get(n), str | int)), None)
        score = next((n for n, v in part[0].items() if n != label and _number(v) and NAME.fullmatch(n)), None)
        if label is not None:
            return f'labels: "{path}.*.{label}"' + (f', scores: "{path}.*.{score}"' if score else "")
    if isinstance(part, str | int) and not isinstance(part, bool) and path.rpartition(".")[2] in LABEL_NAMES:
        return f"labels: {path}"
    return None


def _parts(part: Any) -> list[tuple[str, Any]]:
    if isinstance(part, dict):
        return [(name, item) for name, item in part.items() if NAME.fullmatch(name)][:SEARCHED]
    return [(str(place), item) for place, item in enumerate(part[:4])] if isinstance(part, list) else []


def _scored(value: Any) -> bool:
    """Return whether a value is an object of class and score."""
    return isinstance(value, dict) and bool(value) and all(map(_number, value.values()))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

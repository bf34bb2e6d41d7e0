"""The JSON of a classification service: the body of a request, and the ranking in an answer; see `docs/services.md`."""

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taggant_lightning.access.bounded_json import Pairs, TooMuchError, bounded_json
from taggant_lightning.access.services.forms import common_form
from taggant_lightning.access.services.journal import Label, Recorded
from taggant_lightning.access.services.paths import Path, find, put

LONGEST_LABEL = 1_000  # characters; a longer one is no name of a class


class MalformedError(ValueError):
    """An answer without the fields it should have, told in words that quote nothing of it."""


@dataclass(frozen=True)
class Wire:
    """Where a service expects an image, and where it puts its answer.

    Attributes:
        image: Path of the image in a request.
        extra: Constant fields of every request.
        labels: Path of the ranked labels, or of the labels that the scores belong to; None if the service gives none.
        scores: Path of the scores; None if the service gives none.
        refused: Path of what tells a refusal: anything but false, null, 0 or an empty text.
        either: Whether an answer may lack the labels or the scores, or have a common form, as without a mapping.
        headers: Headers of every request. Secret: shown by no message and no repr.
        data_url: Whether the image is written as a data URL instead of plain base64.
    """

    image: Path = ("image",)
    extra: Mapping[str, Any] = field(default_factory=dict)
    labels: Path | None = ("labels",)
    scores: Path | None = ("scores",)
    refused: Path | None = ("refused",)
    either: bool = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    data_url: bool = False

    def request(self, png: bytes) -> bytes:
        """Return the body of the request for an image.

        Raises:
            ValueError: If the constant fields leave no place for the image, or JSON cannot hold them.
            TypeError: If JSON cannot hold the constant fields.
        """
        text = base64.b64encode(png).decode()
        body = put(self.extra, self.image, f"data:image/png;base64,{text}" if self.data_url else text)
        return json.dumps(body, allow_nan=False).encode()

    def read(self, body: bytes) -> Recorded:
        """Return the answer in a response.

        An entry of the labels that is no label (null, an object, too long) keeps its place as None: it names no class.

        Args:
            body: JSON.

        Raises:
            MalformedError: If the body is no JSON or lacks a field, or a field holds what it should not.
        """
        try:
            value = bounded_json(body)
        except TooMuchError as error:
            raise MalformedError(f"JSON with {error}") from None
        except (ValueError, RecursionError):
            raise MalformedError("malformed JSON") from None
        if self.refused is not None and find(value, self.refused):
            return Recorded(None, refused=True)
        labels = None if self.labels is None else find(value, self.labels)
        scores = None if self.scores is None else find(value, self.scores)
        fields = (("labels", self.labels, labels), ("scores", self.scores, scores))
        absent = [name for name, path, found in fields if path is not None and found is None]
        if len(absent) > (1 if self.either else 0):
            form = common_form(value) if self.either else None
            if form is None:
                raise MalformedError(f"an answer without {' and '.join(absent)}")
            labels, scores = form
        if labels is None and isinstance(scores, dict):
            pairs = scores.pairs if isinstance(scores, Pairs) else list(scores.items())
            labels, scores = [name for name, _ in pairs], [score for _, score in pairs]
        if labels is None:
            values = _numbers(scores)
            return _ranked(list(range(len(values))), values, classes=len(values))
        names = _labels(labels)
        if not names and not scores:
            return Recorded(())  # a service that names only what it is sure of
        return Recorded(tuple(names)) if scores is None else _ranked(names, _numbers(scores))


def _labels(found: Any) -> list[Label | None]:
    names = found if isinstance(found, list) else [found]  # a service that names its first choice only
    labels = [name if _is_label(name) else None for name in names]
    if labels and all(label is None for label in labels):
        raise MalformedError("an answer whose labels are neither whole numbers nor text")
    return labels


def _is_label(name: Any) -> bool:
    return isinstance(name, int | str) and not isinstance(name, bool) and len(str(name)) <= LONGEST_LABEL


def _numbers(found: Any) -> list[float]:
    """Return scores; null, which is how JSON writes NaN, becomes NaN."""
    scores = found if isinstance(found, list) else [found]
    if not scores or not all(s is None or (isinstance(s, int | float) and not isinstance(s, bool)) for s in scores):
        raise MalformedError("an answer whose scores are no list of numbers")
    try:
        return [math.nan if score is None else float(score) for score in scores]
    except OverflowError:
        raise MalformedError("an answer with a score beyond the range of numbers") from None


def _ranked(labels: list[Label | None], scores: list[float], classes: int | None = None) -> Recorded:
    """Rank by score. Ties break by the lowest class first, a rule that does not know the keys; with a NaN it is no answer."""
    if len(labels) != len(scores):
        raise MalformedError(f"an answer with {len(labels)} labels and {len(scores)} scores")
    if any(map(math.isnan, scores)):
        return Recorded(None)
    whole = all(re.fullmatch(r"-?[0-9]{1,18}", str(label)) for label in labels)
    pairs = sorted(zip(labels, scores), key=lambda pair: (-pair[1], int(str(pair[0])) if whole else 0, str(pair[0])))
    # JSON has no infinity: the ranking is kept, the scores are not.
    finite = all(map(math.isfinite, scores))
    return Recorded(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs) if finite else None, classes=classes)

"""Reading what a model answered, from the secret record beside a detection; a verifier gets it from the claimant."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.record_fields import MOST_CLASSES, MOST_KEYS
from taggant_lightning.files import read_json
from taggant_lightning.outside.documents import HEAVY
from taggant_lightning.outside.fields import each, fields, or_null, ordinals, whole

_ANSWERS = fields(
    {},
    {
        "answers": or_null(each(or_null(ordinals(MOST_CLASSES, MOST_CLASSES)), MOST_KEYS)),
        "ranks": or_null(each(whole(1, MOST_CLASSES + 1), MOST_KEYS)),
    },
    more=lambda value, name: None,  # the public record once more, which is compared with it
)


@dataclass(frozen=True)
class Answers:
    """A secret record.

    Attributes:
        answers: The model's rankings in key order, None for a refusal; None where they are not in it.
        ranks: Ranks of the key labels; None where they are not in it.
        record: All that the file holds.
    """

    answers: list[list[int | None] | None] | None
    ranks: list[int] | None
    record: dict[str, Any]


def read_answers(path: Path) -> Answers:
    """Read a secret record.

    Raises:
        TaggantError: If the file is missing or damaged, or holds something else than rankings.
    """
    stored = read_json(path, what="answers", limit=HEAVY)
    try:
        _ANSWERS(stored, "")
    except ValueError as error:
        raise TaggantError(
            f"answers={path} holds no rankings ({error}); name the detection.secret.json that `taggant detect` wrote"
        ) from None
    return Answers(stored.get("answers"), stored.get("ranks"), stored)

"""The label table: which of the owner's classes each label of somebody else's model stands for."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taggant_lightning.access.answer import Answer
from taggant_lightning.errors import TaggantError
from taggant_lightning.outside.documents import parse_json, read_bounded


@dataclass(frozen=True)
class LabelTable:
    """An injective map from a model's labels to the owner's.

    A label that maps to nothing is a miss that uses up its place among the first k; a label that the table does not list is an
    error; the chance of a hit stays k/C with the owner's C, and injectivity is what keeps it at most that.

    Attributes:
        ours: The owner's label, 0..num_classes−1, or None, by the model's label as text.
        num_classes: C, the owner's number of classes.
        where: File the table came from, for messages; None for the owner's own numbering.
    """

    ours: Mapping[str, int | None]
    num_classes: int
    where: str | None = None

    def __post_init__(self) -> None:
        """Refuse a table that maps two labels to one, or to a class that the owner does not have."""
        taken: dict[int, str] = {}
        for theirs, ours in self.ours.items():
            if ours is None:
                continue
            if not 0 <= ours < self.num_classes:
                raise TaggantError(
                    f"labels={self.where}: {theirs!r} maps to {ours}, and the owner's classes are 0..{self.num_classes - 1}; "
                    "leave the second column empty where a label has no counterpart"
                )
            if ours in taken:
                raise TaggantError(
                    f"labels={self.where}: {taken[ours]!r} and {theirs!r} both map to {ours}, so hits are likelier than k/C; "
                    "map one of them and leave the other empty"
                )
            taken[ours] = theirs

    @classmethod
    def same(cls, num_classes: int) -> "LabelTable":
        """The table of a model that numbers its classes as the owner does."""
        return cls({str(label): label for label in range(num_classes)}, num_classes)

    @classmethod
    def load(cls, path: str | Path, num_classes: int) -> "LabelTable":
        """Read a table.

        Args:
            path: CSV with the columns `theirs,ours` (the second empty where a label has no counterpart), or a JSON object
                from the model's labels to the owner's or null.
            num_classes: The owner's number of classes.

        Raises:
            TaggantError: If the file is missing or damaged, lists a label twice, or is not injective.
        """
        where = Path(path)
        try:
            text = read_bounded(where).decode()
            pairs = _json_pairs(text) if where.suffix == ".json" else _csv_pairs(text)
        except OSError:
            raise TaggantError(f"labels={where} cannot be read; name a CSV file with the columns theirs,ours") from None
        except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
            raise TaggantError(
                f"labels={where} is no label table ({error}); write CSV with the columns theirs,ours, or a JSON object"
            ) from None
        table: dict[str, int | None] = {}
        for theirs, ours in pairs:
            if theirs in table:
                raise TaggantError(f"labels={where} lists {theirs!r} twice; list each label of the model once")
            table[theirs] = ours
        return cls(table, num_classes, str(where))

    def translate(self, labels: Sequence[int | str], query: object) -> tuple[int | None, ...]:
        """Return the owner's labels for a model's.

        Args:
            labels: The model's labels, best first.
            query: The query, for messages.

        Raises:
            TaggantError: If a label is not in the table.
        """
        found: list[int | None] = []
        for label in labels:
            if str(label) not in self.ours:
                raise TaggantError(self._unknown(label, query))
            found.append(self.ours[str(label)])
        return tuple(found)

    def _unknown(self, label: int | str, query: object) -> str:
        if self.where is None:
            return (
                f"query {query}: the answer {label!r} lies outside 0..{self.num_classes - 1}, the owner's classes; "
                "write --labels FILE with a table of the model's labels"
            )
        return f"query {query}: labels={self.where} does not list the answer {label!r}; add a row, empty if it maps to nothing"

    def apply(self, answers: Sequence[Answer], count: int) -> list[Answer]:
        """Translate rankings of output numbers.

        Args:
            answers: Rankings of the numbers 0..count−1.
            count: How many classes the model answers.

        Raises:
            TaggantError: If the model answers another number of classes than the table, or the owner, has.
        """
        if self.where is None and count != self.num_classes:
            raise TaggantError(
                f"the model answers {count} classes and the keys were drawn for {self.num_classes}; "
                "write --labels FILE with a table of the model's labels"
            )
        return [
            a if a.labels is None else Answer(a.query, self.translate([str(label) for label in a.labels], a.query), a.scores)
            for a in answers
        ]


def _json_pairs(text: str) -> list[tuple[str, int | None]]:
    pairs = parse_json(text, pairs=list)
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise ValueError("no JSON object")
    return [(theirs, None if ours is None else _whole(ours)) for theirs, ours in pairs]


def _csv_pairs(text: str) -> list[tuple[str, int | None]]:
    rows = csv.DictReader(text.splitlines())
    if not {"theirs", "ours"} <= set(rows.fieldnames or ()):
        raise ValueError(f"its columns are {rows.fieldnames}")
    return [(row["theirs"].strip(), _whole(row["ours"]) if (row["ours"] or "").strip() else None) for row in rows]


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is no class number")
    return int(value)

"""The label table: which of the owner's classes each label of somebody else's model stands for."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.bounded_json import Pairs, bounded_json
from taggant_lightning.errors import TaggantError
from taggant_lightning.outside import shown
from taggant_lightning.outside.documents import read_bounded


@dataclass(frozen=True)
class LabelTable:
    """An injective map from a model's labels to the owner's.

    A label that maps to nothing is a miss that uses up its place among the first k, and so is one that the table does not list,
    as a model may invent some. The chance of a hit stays k/C with the owner's C; injectivity is what keeps it at most that.

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
        for label, ours in self.ours.items():
            theirs = shown(label)
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
        form = "write CSV with the columns theirs,ours, or a JSON object"
        if not where.is_file():
            raise TaggantError(f"labels={where} cannot be read; name a CSV file with the columns theirs,ours")
        try:
            text = read_bounded(where)
            pairs = _json_pairs(text) if where.suffix == ".json" else _csv_pairs(text.decode("utf-8-sig"))
        except OSError:
            raise TaggantError(f"labels={where} cannot be read; name a CSV file with the columns theirs,ours") from None
        except (ValueError, csv.Error, RecursionError) as error:
            raise TaggantError(f"labels={where} is no label table ({shown(error, 200)}); {form}") from None
        table: dict[str, int | None] = {}
        for theirs, ours in pairs:
            if theirs in table:
                raise TaggantError(f"labels={where} lists '{shown(theirs)}' twice; list each label of the model once")
            table[theirs] = ours
        return cls(table, num_classes, str(where))

    def lists(self, label: int | str | None) -> bool:
        """Return whether the table says what a label of the model stands for, be it nothing."""
        return label is not None and str(label) in self.ours

    def translate(self, labels: Sequence[int | str | None]) -> tuple[int | None, ...]:
        """Return the owner's labels for a model's.

        Every entry uses up its place, or an answer could be padded. It is None, which matches no key, where the model's label
        maps to nothing or is not listed, and where it comes again: two classes of one name can be told apart by nobody.

        Args:
            labels: The model's labels, best first; None for an entry that is no label.
        """
        found: list[int | None] = []
        taken: set[int] = set()
        for label in labels:
            ours = self.ours.get(str(label)) if label is not None else None
            found.append(None if ours in taken else ours)
            taken |= {ours} if ours is not None else set()
        return tuple(found)

    def unlisted(self, rankings: Iterable[Sequence[int | str | None] | None]) -> tuple[int, str]:
        """Return how many rankings name a label that the table does not list, and the first such label, for a message."""
        named = [[label for label in labels or () if label is not None and not self.lists(label)] for labels in rankings]
        return sum(map(bool, named)), next((f"'{shown(labels[0], 40)}'" for labels in named if labels), "")

    def apply(self, answers: Sequence[Answer], count: int) -> list[Answer]:
        """Translate rankings of output numbers.

        Args:
            answers: Rankings of the numbers from 0 on. Without a table, one that has not as many as the owner has classes is
                no answer.
            count: How many classes the model answers, to most images.

        Raises:
            TaggantError: If there is no table and the model never answers as many classes as the owner has.
        """
        whole = [a for a in answers if a.labels is not None and len(a.labels) == self.num_classes]
        if self.where is None and count != self.num_classes and not whole:
            raise TaggantError(
                f"the model answers {count} classes and the keys were drawn for {self.num_classes}; "
                "write --labels FILE with a table of the model's labels"
            )
        return [
            Answer(a.query, None)
            if a.labels is None or (self.where is None and len(a.labels) != self.num_classes)
            else Answer(a.query, self.translate(a.labels), a.scores)
            for a in answers
        ]


def _json_pairs(text: bytes) -> list[tuple[str, int | None]]:
    table = bounded_json(text)
    if not isinstance(table, dict):
        raise ValueError("no JSON object")
    pairs = table.pairs if isinstance(table, Pairs) else list(table.items())
    return [(theirs, None if ours is None else _whole(ours)) for theirs, ours in pairs]


def _csv_pairs(text: str) -> list[tuple[str, int | None]]:
    rows = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
    names = [str(name).strip() for name in rows.fieldnames or ()]
    if not {"theirs", "ours"} <= set(names):
        raise ValueError(f"its columns are {names}")
    rows.fieldnames = names
    found = []
    for row in rows:
        if None in row:
            raise ValueError(f"row {rows.line_num} has more cells than the header; quote a label that holds a comma")
        found.append((row["theirs"].strip(), _whole(row["ours"]) if row["ours"].strip() else None))
    return found


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value.strip()):
        return int(value)
    raise ValueError(f"'{shown(value, 40)}' is no class number")

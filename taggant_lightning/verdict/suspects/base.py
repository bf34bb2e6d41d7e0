"""What a suspect is: who it is, what shapes its queries, and how it is asked the keys."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.verdict.verdict import OpenUse


@dataclass(frozen=True)
class Task:
    """What is to be asked, for one verdict.

    Attributes:
        keys: The keys.
        folder_of_keys: Where they lie.
        batches: Numbers of the batches that are asked.
        table: The model's labels and the owner's.
        use: The use of the keys; entered in the ledger before an answer is looked at.
        folder: The run directory.
    """

    keys: KeySet
    folder_of_keys: Path
    batches: Sequence[int]
    table: LabelTable
    use: OpenUse
    folder: Path


@dataclass(frozen=True)
class QueryOutcome:
    """What came of asking.

    Attributes:
        answers: To the keys, numbered by their order; for a test that may stop early perhaps the first ones only.
        origin: What is known of the model and of the asking, for the record.
        notes: Sentences on answers that are no proper ones.
    """

    answers: list[Answer]
    origin: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Suspect(ABC):
    """A model that is asked.

    Attributes:
        way: How, in a word: `predictions`, `onnx`, `exported`, `url`, `callable` or `module`.
    """

    way: str

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called where nobody gives it a name."""

    def settings(self) -> dict[str, Any]:
        """Return what shapes the queries or maps the answers; another value would be another use of the keys."""
        return {}

    def identity(self) -> dict[str, Any]:
        """Return what tells which model was asked, and by whom."""
        return {}

    @abstractmethod
    def ask(self, task: Task) -> QueryOutcome:
        """Ask it.

        Raises:
            TaggantError: If it cannot be asked, or never answers properly.
            Unavailable: If it is away, and the same command goes on later.
        """


def found(missed: dict[str, int], checks: dict[str, Any]) -> dict[str, Any]:
    """Return what a record says of misses and of what was checked, where there is something to say."""
    return {**({"misses": missed} if missed else {}), **({"checks": checks} if checks else {})}


def notes_on(misses: dict[str, int], unlisted: tuple[int, str], table: LabelTable) -> tuple[str, ...]:
    """Return the sentences on misses that the suspect's own doing brought about, and on labels that nobody knows."""
    notes = []
    if misses:
        kinds = ", ".join(f"{kind} ({number})" for kind, number in misses.items())
        notes.append(f"{sum(misses.values())} keys have no proper answer and are misses: {kinds}.")
    number, example = unlisted
    if number:
        whose = f"0..{table.num_classes - 1}, the owner's classes" if table.where is None else f"labels={table.where}"
        notes.append(
            f"{number} answers name labels that are not in {whose}, the first is {example}; each uses up its place and matches "
            "nothing. If the model has such classes, the table is at fault."
        )
    return tuple(notes)

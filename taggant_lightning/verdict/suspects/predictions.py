"""Ranked labels that somebody collected from a model."""

from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.moments import date
from taggant_lightning.files import digest_of
from taggant_lightning.methods.taggants.exported import read_map
from taggant_lightning.verdict.suspects.base import QueryOutcome, Suspect, Task, found, notes_on
from taggant_lightning.verdict.verdict import compare_with_decoys


class Predictions(Suspect):
    """A table of answers whose queries bear the names of `taggant keys export-queries`, or the keys' numbers.

    Args:
        path: CSV, JSONL or parquet.
        collected_by: Who collected the answers.
        collected_on: When, ISO 8601.
    """

    way = "predictions"

    def __init__(self, path: str | Path, *, collected_by: str | None = None, collected_on: str | None = None) -> None:
        self.path, self.collected_by, self.collected_on = Path(path), collected_by, collected_on
        if collected_on is not None:
            date(collected_on, "collected-on")

    @property
    def name(self) -> str:
        """The file's."""
        return self.path.name

    def identity(self) -> dict[str, Any]:
        """Return the file's digest, and who collected the answers and when."""
        digest = digest_of(self.path)
        return {"file_sha256": digest, "collected_by": self.collected_by, "collected_on": self.collected_on}

    def ask(self, task: Task) -> QueryOutcome:
        """Read the answers."""
        from taggant_lightning.access.predictions import answers_of, misses, read_predictions

        digest = digest_of(self.path)
        rows, what = read_predictions(self.path), f"predictions={self.path}"
        names, wanted = read_map(task.folder_of_keys), [str(number) for number in task.keys.numbers(task.batches)]
        decoys = []
        if set(rows) & set(names):
            asked = {key: name for name, key in names.items() if key is not None}
            numbers = task.keys.numbers(task.batches)
            wanted = [asked.get(number, f"key {number}, which was not exported") for number in numbers]
            others = set(names) - set(wanted)  # decoys, and keys of other batches
            if not set(wanted) & set(rows):
                raise TaggantError(
                    f"{what} answers no key of the batches {list(task.batches)}; write --batches with those that were exported"
                )
            decoys = [row.labels for name, row in rows.items() if name in names and names[name] is None]
            rows = {name: row for name, row in rows.items() if name not in others}
        answers, missed = answers_of(rows, wanted, task.table, what=what), misses(rows, wanted)
        odd = next((f"{row.odd}." for row in rows.values() if row.odd), None)
        unlisted = task.table.unlisted(row.labels for row in rows.values())
        notes = (*notes_on(missed, unlisted, task.table), *([odd] if odd else []))
        checks = compare_with_decoys([row.labels for row in rows.values()], decoys) if decoys else {}
        return QueryOutcome(answers, {"file_sha256": digest, **found(missed, checks)}, notes)

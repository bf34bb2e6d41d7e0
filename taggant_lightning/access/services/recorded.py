"""From a journal's raw answers to the owner's classes."""

from collections.abc import Sequence

from taggant_lightning.access.answer import Answer, Query
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.access.services.journal import Journal
from taggant_lightning.errors import Unavailable


def recorded_answers(
    journal: Journal, queries: Sequence[Query], table: LabelTable, *, unanswered: bool = False
) -> list[Answer]:
    """Return the answers that a journal holds, translated.

    Args:
        journal: Of the model's raw labels.
        queries: An answer's number is its query's place among them.
        table: The owner's class of each label.
        unanswered: Whether a query may lack an answer; it is then one without labels.

    Returns:
        One answer a query.

    Raises:
        TaggantError: If the table does not list a label, or the model has another number of classes than the owner.
        Unavailable: If a query lacks an answer.
    """
    absent = sum(query.name not in journal.answers for query in queries)
    if absent and not unanswered:
        raise Unavailable(f"journal={journal.path} lacks {absent} of {len(queries)} answers; run the same command again")
    answers: list[Answer] = []
    for i, query in enumerate(queries):
        found = journal.answers.get(query.name)
        if found is None or found.labels is None:
            answers.append(Answer(i, None))
        elif found.classes is not None:  # numbers of outputs, not names
            numbers = tuple(int(label) for label in found.labels)
            answers += table.apply([Answer(i, numbers, found.scores)], found.classes)
        else:
            answers.append(Answer(i, table.translate(found.labels, i), found.scores))
    return answers

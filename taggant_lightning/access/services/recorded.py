"""From a journal's raw answers to the owner's classes."""

from collections.abc import Callable, Mapping, Sequence

from taggant_lightning.access.answer import Answer, Query
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.access.services.failures import Failure
from taggant_lightning.access.services.journal import Journal, Recorded
from taggant_lightning.errors import Unavailable
from taggant_lightning.outside import shown

FIELDS = "write a --mapping that names the fields of the service (docs/services.md)"
TABLE = "write --labels FILE with a table of the model's labels"


def lack_of(table: LabelTable) -> Callable[[Recorded], Failure | None]:
    """Return the rule that says why an answer names none of the classes that the owner knows; None if it names one.

    It knows nothing of keys and their labels: see `ending`.
    """

    def lack(recorded: Recorded) -> Failure | None:
        if recorded.refused:
            return Failure("a refusal" if recorded.status is None else f"HTTP {recorded.status}", FIELDS)
        if recorded.labels is None:
            return Failure("a score that is no number", FIELDS)
        if not recorded.labels:
            return Failure("an answer that names no label", FIELDS)
        if not _whole(recorded, table):
            said = f"the model answers {recorded.classes} classes and the keys were drawn for {table.num_classes}"
            return Failure("another number of scores than classes", TABLE, detail=said)
        if not any(table.lists(label) for label in recorded.labels):
            names = ", ".join(shown(label, 40) for label in recorded.labels[:3])
            return Failure("labels that nobody knows", f"{TABLE}, or {FIELDS}", detail=f"the first answer names {names}")
        return None

    return lack


def recorded_answers(
    journal: Journal, queries: Sequence[Query], table: LabelTable, *, unanswered: bool = False
) -> list[Answer]:
    """Return the answers that a journal holds, translated.

    Args:
        journal: Of the model's raw labels.
        queries: An answer's number is its query's place among them.
        table: The owner's class of each label. One that it does not list uses up its place.
        unanswered: Whether a query may lack an answer; it is then one without labels.

    Returns:
        One answer a query; without labels where the model gave no usable answer, or another number of scores than the owner has
        classes and no table says what each stands for.

    Raises:
        Unavailable: If a query lacks an answer.
    """
    absent = sum(query.name not in journal.answers for query in queries)
    if absent and not unanswered:
        raise Unavailable(f"journal={journal.path} lacks {absent} of {len(queries)} answers; run the same command again")
    answers: list[Answer] = []
    for i, query in enumerate(queries):
        found = journal.answers.get(query.name)
        if found is None or found.labels is None or not _whole(found, table):
            answers.append(Answer(i, None))
        else:
            answers.append(Answer(i, table.translate(found.labels), found.scores))
    return answers


def misses(journal: Journal, queries: Sequence[Query], table: LabelTable, failures: Mapping[str, Failure]) -> dict[str, int]:
    """Count the queries that are misses because of what the service did, by kind.

    Args:
        journal: Of the answers.
        queries: Those that count, without decoys.
        table: The owner's class of each label.
        failures: Why queries failed that have no answer, by name.

    Returns:
        How many, by kind; a query that was never asked is one too.
    """
    lack, found = lack_of(table), dict[str, int]()
    for query in queries:
        recorded = journal.answers.get(query.name)
        if recorded is None:
            kind = failures[query.name].kind if query.name in failures else "not asked"
        elif (useless := lack(recorded)) is not None:
            kind = useless.kind
        else:
            continue
        found[kind] = found.get(kind, 0) + 1
    return dict(sorted(found.items()))


def _whole(recorded: Recorded, table: LabelTable) -> bool:
    """Return whether bare scores are as many as the owner's classes, or a table says what each stands for."""
    return recorded.classes is None or table.where is not None or recorded.classes == table.num_classes

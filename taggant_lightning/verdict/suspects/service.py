"""A classification service, asked over HTTP."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.services.journal import Journal
from taggant_lightning.access.services.recorded import lack_of, misses, recorded_answers
from taggant_lightning.access.services.service import Service
from taggant_lightning.errors import Unavailable
from taggant_lightning.methods.taggants.queries import plan_queries
from taggant_lightning.verdict.suspects.base import QueryOutcome, Suspect, Task, found, notes_on
from taggant_lightning.verdict.verdict import compare_with_decoys, ranks_of


class Online(Suspect):
    """A service that is asked the keys among decoys.

    Args:
        service: The service.
        decoys: Decoys for each key.
        source_images: For keys that are real images: the images they were chosen from.
        count_missing: Whether to conclude although the service is away.
    """

    way = "url"

    def __init__(
        self,
        service: Service,
        *,
        decoys: int = 1,
        source_images: NDArray[np.uint8] | None = None,
        count_missing: bool = False,
    ) -> None:
        self.service, self.decoys = service, decoys
        self.source_images, self.count_missing = source_images, count_missing

    @property
    def name(self) -> str:
        """Its address; what of it may be shown, as it may hold a secret."""
        return str(self.service.binding["url"])

    def settings(self) -> dict[str, Any]:
        """Return the digest of the mapping, and the number of decoys."""
        return {"service": self.service.binding["service"], "decoys": self.decoys}

    def identity(self) -> dict[str, Any]:
        """Return the address."""
        return {"url": self.service.binding["url"]}

    def ask(self, task: Task) -> QueryOutcome:
        """Ask, or go on asking where a run of the same folder was cut off."""
        from tqdm.auto import tqdm

        keys, table = task.keys, task.table
        plan = plan_queries(keys, task.batches, self.decoys, self.source_images)
        about = {"commitment": keys.commitment, "batches": list(task.batches), "decoys": self.decoys}
        journal = Journal(task.folder / "secret" / "answers.jsonl", {**about, **self.service.binding})
        key_queries = [query for query, key in zip(plan.queries, plan.keys, strict=True) if key is not None]

        def answered() -> list[Answer]:
            """Return the answers to the first keys, up to the first that has none yet."""
            done = list(itertools.takewhile(lambda query: query.name in journal.answers, key_queries))
            return recorded_answers(journal, done, table)

        def stop() -> bool:
            """Enter the use with the first answer, and say whether the test may stop."""
            if journal.answers:
                task.use.begin(task.folder)
            return keys.test.may_stop_early and keys.test.decided(ranks_of(answered(), keys, task.batches))

        with tqdm(total=len(plan.queries), desc="queries", unit="query", initial=len(journal.answers), leave=False) as bar:

            def show(done: int, total: int) -> None:
                bar.update(done - bar.n)

            try:
                failures = self.service.ask(
                    plan.queries,
                    journal,
                    lack=lack_of(table),
                    count_missing=self.count_missing,
                    progress=show,
                    stop=stop,
                )
            except Unavailable as error:
                count = "" if self.count_missing else ", or add --count-missing to ask the rest once and count them as misses"
                raise Unavailable(f"{error}; name the same --out {task.folder}{count}") from None
        early = stop()
        answers = answered() if early else recorded_answers(journal, key_queries, table, unanswered=True)
        missed = misses(journal, key_queries[: len(answers)], table, failures)
        named = (journal.answers[q.name].labels for q in key_queries[: len(answers)] if q.name in journal.answers)
        words = {name: recorded.labels for name, recorded in journal.answers.items()}
        own = {query.name for query in key_queries}
        checks = compare_with_decoys([words[n] for n in words if n in own], [words[n] for n in words if n not in own])
        origin = {**self.service.binding, "decoys": self.decoys, **found(missed, checks)}
        return QueryOutcome(answers, origin, notes_on(missed, table.unlisted(named), table))

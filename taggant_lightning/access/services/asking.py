"""Asking many queries over threads, each answer into the journal as it comes."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event

from taggant_lightning.access.answer import Query
from taggant_lightning.access.services.ending import Asked
from taggant_lightning.access.services.failures import FailedAttempt, Failure, NotBegun
from taggant_lightning.access.services.journal import Journal, Recorded
from taggant_lightning.errors import TaggantError

PASSES = 2  # what failed in the first is tried once more at the end
MAX_CONSECUTIVE_FAILURES = 16  # so many queries one after the other without an answer: is it the queries, or is nobody there?
Outcome = Recorded | TaggantError | FailedAttempt | None


class Asking:
    """One run over queries.

    Args:
        ask: Asks one query, in any thread, with all attempts or (False) with one; raises FailedAttempt, TaggantError where no
            other query would go better, or NotBegun where `ended` left no time for an attempt.
        queries: In the order in which they are begun.
        journal: Gets the answers, from this thread; begun with the first proper one, so that a set-up that brings none leaves
            nothing behind.
        lack: Returns why an answer is of no use, or None for a proper one.
        ended: Set when no further attempt is to begin.
        progress: Called with the number of answered queries and of all, after each answer.
        stop: Called before the first query and after each answer; once it returns True no further query is begun, and those
            under way are finished and written.
        give_up: Whether to end when the service seems to be away.

    Attributes:
        failures: Of each query that has no answer, the latest last.
        stopped: Whether `stop` ended the run.
    """

    def __init__(
        self,
        ask: Callable[[Query, bool], Recorded],
        queries: Sequence[Query],
        journal: Journal,
        *,
        lack: Callable[[Recorded], Failure | None],
        ended: Event,
        progress: Callable[[int, int], None] | None,
        stop: Callable[[], bool] | None,
        give_up: bool,
    ) -> None:
        self._ask, self._queries, self._journal, self._lack = ask, queries, journal, lack
        self._ended, self._progress, self._stop, self._give_up = ended, progress, stop, give_up
        self._held: dict[str, Recorded] = {}  # answers of no use, before the first proper one
        self._control = next((q for q in queries if self._is_proper(journal.answers.get(q.name))), None)
        self._vain, self._present = 0, True
        self._wrong: TaggantError | None = None
        self.failures: dict[str, Failure] = {}
        self.stopped = False

    def run(self, workers: int) -> Asked:
        """Ask what the journal lacks.

        Args:
            workers: Most queries under way at a time.

        Returns:
            How far it came.

        Raises:
            TaggantError: What `ask` raised first; answers under way are written before.
        """
        left = [query for query in self._queries if query.name not in self._journal.answers]
        self.stopped = self._stop is not None and self._stop()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for _ in range(0 if self.stopped else PASSES):
                    asked, left = left, []
                    for query, outcome in self._outcomes(pool, workers, asked):
                        if not isinstance(outcome, Recorded):
                            left.append(query)
                        self._take(query, outcome)
                    if self._ended.is_set():
                        break
                if left and self._present and not self.stopped and not self._wrong and self._control is not None:
                    self._present = self._still_there()
            finally:
                self._ended.set()  # threads that wait for their next attempt end
        if self._wrong is not None:
            raise self._wrong
        return self._asked()

    def _asked(self) -> Asked:
        known = {**self._journal.answers, **self._held}
        lacks = [self._lack(known[query.name]) for query in self._queries if query.name in known]
        useless = [lack for lack in lacks if lack is not None]
        failures = list(self.failures.values())
        untried = len(self._queries) - len(lacks) - len(failures)
        return Asked(len(self._queries), len(lacks) - len(useless), useless, failures, untried, self._present)

    def _is_proper(self, recorded: Recorded | None) -> bool:
        return recorded is not None and self._lack(recorded) is None

    def _take(self, query: Query, outcome: Outcome) -> None:
        """Take one outcome: keep it, and find out whether the run is to end."""
        if isinstance(outcome, Recorded):
            self._vain = 0
            self.failures.pop(query.name, None)
            self._keep(query, outcome)
            self.stopped = self.stopped or (self._stop is not None and self._stop())
        elif isinstance(outcome, TaggantError):
            self._wrong = self._wrong or outcome
        elif isinstance(outcome, FailedAttempt):
            self._vain += 1
            self.failures.pop(query.name, None)  # the latest is the last
            self.failures[query.name] = outcome.failure
        if self._vain >= MAX_CONSECUTIVE_FAILURES and self._give_up and not self._ended.is_set():
            self._present = self._still_there()
            self._vain = 0
        if self.stopped or self._wrong or not self._present:
            self._ended.set()

    def _keep(self, query: Query, recorded: Recorded) -> None:
        if self._control is None and not self._is_proper(recorded):
            self._held[query.name] = recorded
        else:
            self._journal.append(query.name, recorded)
            for name, held in self._held.items():
                self._journal.append(name, held)
            self._held.clear()
            if self._is_proper(recorded):
                self._control = query
        if self._progress is not None:
            done = sum(q.name in self._journal.answers or q.name in self._held for q in self._queries)
            self._progress(done, len(self._queries))

    def _still_there(self) -> bool:
        """Ask again what was answered properly before; that answer is dropped, as the first one counts."""
        if self._control is None:
            return False
        try:
            return self._is_proper(self._ask(self._control, True))
        except FailedAttempt:
            return False

    def _outcomes(self, pool: ThreadPoolExecutor, workers: int, queries: Sequence[Query]) -> Iterator[tuple[Query, Outcome]]:
        """Yield what became of each query, as it does; None for one that was not begun.

        A query is begun only after the answers before it were taken, so that whoever stops the run gets few more than wanted.
        """

        def one(query: Query, patient: bool) -> Outcome:
            try:
                return self._ask(query, patient)
            except (TaggantError, FailedAttempt) as error:
                return error
            except NotBegun:
                return None

        waiting = deque(queries)
        under_way: dict[Future[Outcome], Query] = {}
        while True:
            while waiting and len(under_way) < workers and not self._ended.is_set():
                query = waiting.popleft()
                under_way[pool.submit(one, query, self._vain < MAX_CONSECUTIVE_FAILURES)] = query
            if not under_way:
                break
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                yield under_way.pop(future), future.result()
        for query in waiting:
            yield query, None

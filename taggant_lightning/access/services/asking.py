"""Asking many queries over threads, each answer into the journal as it comes."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event

from taggant_lightning.access.answer import Query
from taggant_lightning.access.services.journal import Journal, Recorded
from taggant_lightning.errors import TaggantError

PASSES = 2  # what failed in the first is tried once more at the end
IN_VAIN = 16  # so many queries one after the other without an answer: nobody is there, it is not the query


class NotAnsweredError(Exception):
    """A query that failed in all its attempts; its text says how the last one did."""


def ask_all(
    ask: Callable[[Query], Recorded],
    queries: Sequence[Query],
    journal: Journal,
    *,
    workers: int,
    ended: Event,
    progress: Callable[[int, int], None] | None,
    stop: Callable[[], bool] | None,
) -> str | None:
    """Ask what the journal lacks.

    Args:
        ask: Asks one query, in any thread; raises NotAnsweredError, or TaggantError where no other query would go better.
        queries: In the order in which they are begun.
        journal: Gets the answers, from this thread.
        workers: Most queries under way at a time.
        ended: Set when no further attempt is to begin.
        progress: Called with the number of answered queries and of all, after each answer.
        stop: Called before the first query and after each answer; once it returns True no further query is begun, and those
            under way are finished and written.

    Returns:
        How the last failure came about, if queries are left that failed; None if all is answered or `stop` ended it.

    Raises:
        TaggantError: What `ask` raised first; answers under way are written before.
    """
    left = [query for query in queries if query.name not in journal.answers]
    if stop is not None and stop():
        return None
    done, vain, reason, stopped = len(queries) - len(left), 0, "", False
    wrong: TaggantError | None = None
    with ThreadPoolExecutor(workers) as pool:
        try:
            for _ in range(PASSES):
                asked, left = left, []
                for query, outcome in _outcomes(pool, workers, ask, asked, ended):
                    if isinstance(outcome, Recorded):
                        vain, done = 0, done + 1
                        journal.append(query.name, outcome)
                        if progress is not None:
                            progress(done, len(queries))
                        stopped = stopped or (stop is not None and stop())
                    elif isinstance(outcome, TaggantError):
                        wrong = wrong or outcome
                    else:
                        left.append(query)
                        if outcome is not None:
                            vain, reason = vain + 1, str(outcome)
                    if stopped or wrong or vain >= IN_VAIN:
                        ended.set()
                if ended.is_set():
                    break
        finally:
            ended.set()  # threads that wait for their next attempt end
    if wrong is not None:
        raise wrong
    return reason if left and not stopped else None


def _outcomes(
    pool: ThreadPoolExecutor, workers: int, ask: Callable[[Query], Recorded], queries: Sequence[Query], ended: Event
) -> Iterator[tuple[Query, Recorded | TaggantError | NotAnsweredError | None]]:
    """Yield what became of each query, as it does; None for one that was not begun.

    A query is begun only after the answers before it were taken, so that whoever stops the run gets few more than wanted.
    """

    def one(query: Query) -> Recorded | TaggantError | NotAnsweredError:
        try:
            return ask(query)
        except (TaggantError, NotAnsweredError) as error:
            return error

    waiting = deque(queries)
    under_way: dict[Future[Recorded | TaggantError | NotAnsweredError], Query] = {}
    while True:
        while waiting and len(under_way) < workers and not ended.is_set():
            query = waiting.popleft()
            under_way[pool.submit(one, query)] = query
        if not under_way:
            break
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            yield under_way.pop(future), future.result()
    for query in waiting:
        yield query, None

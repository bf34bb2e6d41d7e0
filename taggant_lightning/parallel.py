"""Work shared out over processes, results in order."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_work: Callable[[Any], Any] | None = None


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    """Call a function on every item, in several processes, and yield what it returns in the order of the items.

    Args:
        work: A picklable callable; it is handed to each process once.
        items: What to call it on.
        workers: Processes; 1 stays in this one. A script that asks for more needs its `if __name__ == "__main__":`.

    Raises:
        Exception: The first that the function raises.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        yield from map(work, items)
        return
    # `spawn`: this process may hold threads (torch's, a progress bar's), which a fork would leave in an unknown state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(work,)) as pool:
        try:
            yield from pool.map(_one, items)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the parent is killed: nobody would read the results, and nothing may write where a second run writes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _one(item: Any) -> Any:
    if _work is None:
        raise RuntimeError("the process was not given its work")
    return _work(item)

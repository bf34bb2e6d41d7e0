"""Asking an HTTP classification service that sometimes fails: each query until it is answered, each answer once."""

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from taggant_lightning.access.answer import Answer, Query
from taggant_lightning.access.journal import Journal, Reply
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.access.wire import FieldMapping, Unreadable, reply, request
from taggant_lightning.errors import TaggantError, Unavailable

if TYPE_CHECKING:
    import requests

LARGEST_ANSWER = 16 * 2**20
LONGEST_WAIT = 300.0
# Client errors that say something of the query rather than of the way of asking.
_REFUSALS = (400, 413, 415, 422, 451)
_CHANGED_WORDS = {401: "wants to know who asks", 403: "forbids it", 404: "does not know it", 405: "takes no POST there"}


class _Failed(Exception):  # noqa: N818  # not an error of ours: an attempt that failed
    """An attempt that may succeed next time, and how long the service asks to wait."""

    def __init__(self, why: str, wait: float | None = None, html: bool = False) -> None:
        super().__init__(why)
        self.wait, self.html = wait, html


class Service:
    """A classification service.

    Args:
        url: Address that takes POST, http or https; certificates are always checked.
        mapping: Names of its fields; None for those of docs/services.md.
        timeout: Seconds to wait for a connection, and for an answer.
        attempts: Attempts for each query and pass; there are two passes.
        concurrency: Queries at a time.
        rate: Most requests a second; None for no limit.
        backoff: Seconds to wait after a first failure, doubled each time, with as much again at random.

    Raises:
        TaggantError: If an argument lies outside its range, or a header's environment variable is not set.
    """

    def __init__(
        self,
        url: str,
        *,
        mapping: FieldMapping | None = None,
        timeout: float = 30.0,
        attempts: int = 6,
        concurrency: int = 4,
        rate: float | None = None,
        backoff: float = 0.5,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TaggantError(f"url={url!r} is no address of a service; write http://… or https://…")
        for name, value, least in (("attempts", attempts, 1), ("concurrency", concurrency, 1)):
            if value < least:
                raise TaggantError(f"{name}={value} must be at least {least}")
        for name, seconds in (("timeout", timeout), ("rate", rate)):
            if seconds is not None and not seconds > 0:
                raise TaggantError(f"{name}={seconds} must be above 0")
        self.url, self.mapping = url, mapping or FieldMapping()
        self.timeout, self.attempts, self.concurrency, self.backoff = timeout, attempts, concurrency, backoff
        self._gap, self._next, self._lock = 0.0 if rate is None else 1 / rate, 0.0, threading.Lock()
        self._headers = self.mapping.expanded_headers()
        self._threads = threading.local()

    def ask(
        self,
        queries: Sequence[Query],
        journal: Journal,
        *,
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Ask what the journal lacks, in order, and write each answer into it.

        Args:
            queries: In the order in which they are sent.
            journal: Gets the answers; may hold some already.
            progress: Called with the number of answers and of queries after each answer.
            stop: Asked after each answer; true ends the asking early.

        Raises:
            TaggantError: If the address is wrong, or the service wants something else than queries.
            Unavailable: If queries were left without answer after all attempts.
        """
        for _ in range(2):
            missing = [query for query in queries if query.name not in journal.replies]
            if not missing or (stop is not None and stop()):
                return
            failures = self._pass(missing, len(queries), journal, progress, stop)
            if stop is not None and stop():
                return
        missing = [query for query in queries if query.name not in journal.replies]
        if missing:
            why = next((f for f in failures if f.html), failures[0] if failures else _Failed("it did not answer"))
            if why.html and not journal.replies:
                raise TaggantError(
                    f"url={self.url} answers HTML and not JSON; give the address of the interface, not of a page"
                )
            raise Unavailable(
                f"url={self.url} left {len(missing)} of {len(queries)} queries without answer (for instance: {why}); run the "
                "same command again to go on, or with --count-missing to count them as misses"
            )

    def _pass(
        self,
        missing: Sequence[Query],
        total: int,
        journal: Journal,
        progress: Callable[[int, int], None] | None,
        stop: Callable[[], bool] | None,
    ) -> list[_Failed]:
        """Ask each query once, several at a time, started in order; return the failures."""
        failures: list[_Failed] = []
        waiting = iter(missing)
        with ThreadPoolExecutor(self.concurrency) as pool:
            under_way: set[Future[None]] = {
                pool.submit(self._answer, query, journal) for query in itertools.islice(waiting, self.concurrency)
            }
            while under_way:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    error = future.exception()
                    if isinstance(error, _Failed):
                        failures.append(error)
                    elif error is not None:
                        for other in under_way:
                            other.cancel()
                        raise error
                    if progress is not None:
                        progress(len(journal.replies), total)
                if stop is not None and stop():
                    for other in under_way:
                        other.cancel()
                    break
                under_way |= {pool.submit(self._answer, query, journal) for query in itertools.islice(waiting, len(done))}
        return failures

    def _answer(self, query: Query, journal: Journal) -> None:
        """Ask one query until it is answered, or its attempts are used up."""
        body = request(query.image, self.mapping)
        for attempt in range(self.attempts):
            try:
                journal.append(query.name, self._attempt(body))
            except _Failed as failed:
                if attempt + 1 == self.attempts:
                    raise
                pause = self.backoff * 2**attempt * (1 + random.random())  # noqa: S311  # spreads retries, guards nothing
                time.sleep(min(LONGEST_WAIT, max(pause, failed.wait or 0.0)))
            else:
                return

    def _attempt(self, body: dict[str, Any]) -> Reply:
        """Send one request and read its answer."""
        import requests

        self._keep_the_rate()
        try:
            with self._session().post(
                self.url, json=body, headers=self._headers, timeout=self.timeout, allow_redirects=False, stream=True
            ) as response:
                return self._read(response)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader) as error:
            raise TaggantError(f"url={self.url} cannot be asked ({error}); check address and mapping") from None
        except requests.exceptions.RequestException as error:
            raise _Failed(type(error).__name__) from None

    def _read(self, response: "requests.Response") -> Reply:
        status = response.status_code
        if response.is_redirect:
            where = urlsplit(response.headers.get("Location", "")).hostname or "another page"
            raise TaggantError(f"url={self.url} sends on to {where}; give the address that answers itself")
        if status in _CHANGED_WORDS:
            raise TaggantError(
                f"url={self.url} answers {status}: it {_CHANGED_WORDS[status]}; check address, method and headers"
            )
        if status in _REFUSALS:
            return Reply(None, None, refused=True)
        if status == 429 or status >= 500:
            raise _Failed(f"HTTP {status}", _retry_after(response.headers.get("Retry-After")))
        if not 200 <= status < 300:
            raise TaggantError(
                f"url={self.url} answers HTTP {status}, which no classification service should; check the address"
            )
        content = b""
        for chunk in response.iter_content(2**16):
            content += chunk
            if len(content) > LARGEST_ANSWER:
                raise _Failed(f"an answer of more than {LARGEST_ANSWER // 2**20} MiB")
        if "text/html" in response.headers.get("Content-Type", "") or content.lstrip()[:1] == b"<":
            raise _Failed("it answers HTML", html=True)
        try:
            return reply(json.loads(content), self.mapping)
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise _Failed("an answer that is no JSON") from None
        except Unreadable as error:
            raise _Failed(str(error)) from None

    def _session(self) -> "requests.Session":
        """Return this thread's session; requests' sessions are not meant to be shared."""
        import requests

        if not hasattr(self._threads, "session"):
            self._threads.session = requests.Session()
        session: requests.Session = self._threads.session
        return session

    def _keep_the_rate(self) -> None:
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._gap
        if at > now:
            time.sleep(at - now)


def recorded_answers(journal: Journal, queries: Sequence[Query], table: LabelTable) -> list[Answer]:
    """Return the journal's answers in the owner's labels, numbered by the queries' places; None for what has no answer.

    Raises:
        TaggantError: If an answer is not in the table, or a model that gives a score a class has another number of classes.
    """
    answers = []
    for place, query in enumerate(queries):
        said = journal.replies.get(query.name, Reply(None))
        if said.labels is None:
            answers.append(Answer(place, None))
            continue
        complete = said.scores is not None and {str(v) for v in said.labels} == {str(i) for i in range(len(said.labels))}
        if complete:
            table.apply([], len(said.labels))
        scores = None if said.scores is None else tuple(said.scores)
        answers.append(Answer(place, table.translate(said.labels, query.name), scores))
    return answers


def _retry_after(text: str | None) -> float | None:
    """Read a Retry-After header, seconds or a date."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None

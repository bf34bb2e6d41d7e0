"""Asking an HTTP classification service, through failures of every kind; `docs/services.md` tells what counts as what."""

import math
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from urllib.parse import urlsplit

import requests

from taggant_lightning.access.answer import Query
from taggant_lightning.access.png import png
from taggant_lightning.access.services.asking import NotAnsweredError, ask_all
from taggant_lightning.access.services.exchange import FailedAttempt, Response, exchange, open_session
from taggant_lightning.access.services.journal import Journal, Recorded
from taggant_lightning.access.services.mapping import load_mapping
from taggant_lightning.access.services.pace import Pace, retry_after
from taggant_lightning.access.services.wire import MalformedError, Wire
from taggant_lightning.errors import TaggantError, Unavailable
from taggant_lightning.files import canonical_json, sha256_hex

LONGEST_BACKOFF = 60.0  # seconds between two attempts, unless the service asks for more
REFUSALS = (400, 413, 415, 422, 451)
CREDENTIALS = "put valid credentials into the headers of the mapping"
ADDRESS = "write the address that takes POST requests with images"
# Statuses that no further attempt changes.
WRONG = {401: CREDENTIALS, 402: CREDENTIALS, 403: CREDENTIALS, 404: ADDRESS, 405: ADDRESS, 407: CREDENTIALS, 410: ADDRESS}


class Service:
    """A classification service at an address.

    Args:
        url: http or https, without user name and password.
        mapping: File that says where requests and answers have their fields; None for the documented format.
        timeout: Seconds to connect, to wait for a part of an answer, and for all of it.
        attempts: Attempts a query, in each of two passes.
        concurrency: Most requests at a time.
        rate: Most requests a second; None for no limit.
        backoff: Seconds before the second attempt; each later one waits twice as long, give or take a half.

    Raises:
        TaggantError: If an argument is out of range, the address is none, or the mapping is wrong.
    """

    def __init__(
        self,
        url: str,
        *,
        mapping: str | None = None,
        timeout: float = 30,
        attempts: int = 6,
        concurrency: int = 4,
        rate: float | None = None,
        backoff: float = 0.5,
    ) -> None:
        self._url, self._shown = url, _shown(url)
        for name, count in (("attempts", attempts), ("concurrency", concurrency)):
            if count < 1:
                raise TaggantError(f"{name}={count} asks nothing; write 1 or more")
        for name, value, unit in (("timeout", timeout, "seconds"), ("rate", rate, "requests a second")):
            if value is not None and not 0 < value < math.inf:
                raise TaggantError(f"{name}={value} is not above 0; write {unit}, such as 10")
        if not 0 <= backoff < math.inf:
            raise TaggantError(f"backoff={backoff} is negative; write seconds, 0 or more")
        self._timeout, self._attempts, self._concurrency = timeout, attempts, concurrency
        self._rate, self._backoff = rate, backoff
        self._wire = Wire() if mapping is None else load_mapping(mapping)
        self._jitter = random.SystemRandom()  # spreads attempts in time; no result depends on it

    @property
    def binding(self) -> dict[str, str]:
        """What answers of this service are bound to: the address without its query, and a digest of address and fields.

        Headers are left out: with a new token it is the same service.
        """
        said = {f.name: getattr(self._wire, f.name) for f in fields(Wire) if f.name != "headers"}
        return {"url": self._shown, "service": sha256_hex(canonical_json({"address": self._url, **said}))}

    def ask(
        self,
        queries: Sequence[Query],
        journal: Journal,
        *,
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Ask what the journal lacks, and write each answer to it.

        Args:
            queries: In the order in which they are begun; their names differ.
            journal: Gets each answer as it comes. Answers may come out of order, by as many places as requests are under way,
                and by more where a query fails and is tried again at the end.
            progress: Called with the number of answered queries and of all, after each answer.
            stop: Called before the first query and after each answer; once it returns True no further query is begun, and
                those under way are finished and written.

        Raises:
            TaggantError: If the address, the credentials or the mapping is wrong, or an image cannot travel as PNG.
            Unavailable: If queries are left that failed in all attempts, or many did in succession; asking again with the same
                journal goes on.
            OSError: If the journal cannot be written.
        """
        if len({query.name for query in queries}) < len(queries):
            raise TaggantError("queries: two have the same name; name each once")
        ended = threading.Event()
        pace = Pace(self._rate, ended)
        sessions = _Sessions(self._wire)
        try:
            failure = ask_all(
                lambda query: self._ask(query, pace, ended, sessions.mine()),
                queries,
                journal,
                workers=self._concurrency,
                ended=ended,
                progress=progress,
                stop=stop,
            )
        finally:
            sessions.close()
        if failure is not None:
            done = sum(query.name in journal.answers for query in queries)
            raise Unavailable(
                f"url={self._shown} answered {done} of {len(queries)} queries, and the last failure was {failure}; "
                "run the same command again later, it goes on with the rest"
            )

    def _ask(self, query: Query, pace: Pace, ended: threading.Event, session: requests.Session) -> Recorded:
        body = self._wire.request(png(query.image))
        failures: list[FailedAttempt] = []
        while len(failures) < self._attempts and pace.wait():
            try:
                return self._read(exchange(session, self._url, body, self._timeout))
            except FailedAttempt as failure:
                pace.hold(failure.wait)
                failures.append(failure)
                if len(failures) < self._attempts:
                    delay = self._backoff * 2.0 ** min(len(failures) - 1, 30) * self._jitter.uniform(0.5, 1.5)
                    ended.wait(min(delay, LONGEST_BACKOFF))
        if len(failures) == self._attempts and all(failure.page for failure in failures):
            raise TaggantError(f"url={self._shown} answers with a web page instead of JSON; {ADDRESS}, or {CREDENTIALS}")
        raise NotAnsweredError(failures[-1].reason if failures else "the end of the run")

    def _read(self, response: Response) -> Recorded:
        status, headers = response.status, response.headers
        if status in REFUSALS:
            return Recorded(None, refused=True, status=status)
        if status in WRONG:
            raise TaggantError(f"url={self._shown} answers HTTP {status}; {WRONG[status]}")
        if 300 <= status < 400:
            host = _host(headers.get("Location")) or "a page of its own"
            raise TaggantError(f"url={self._shown} redirects to {host}, perhaps for a login; {ADDRESS}, or {CREDENTIALS}")
        if not 200 <= status < 300:
            raise FailedAttempt(f"HTTP {status}", retry_after(headers.get("Retry-After")) if status in (429, 503) else 0.0)
        if "text/html" in headers.get("Content-Type", "").lower() or response.body.lstrip()[:1] == b"<":
            raise FailedAttempt("a web page", page=True)
        try:
            return self._wire.read(response.body)
        except MalformedError as error:
            raise FailedAttempt(str(error)) from None


class _Sessions:
    """One session a thread: requests does not promise that threads may share one."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._local, self._all = wire, threading.local(), list[requests.Session]()

    def mine(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = open_session(self._wire.headers)
            self._all.append(self._local.session)
        session: requests.Session = self._local.session
        return session

    def close(self) -> None:
        for session in self._all:
            session.close()


def _shown(url: str) -> str:
    """Return an address as messages may show it, without its query, which may hold a secret."""
    wrong = "write http://HOST/PATH or https://HOST/PATH"
    try:
        parts = urlsplit(url)
        requests.Request("POST", url).prepare()
        host = _host(url)
    except (ValueError, requests.RequestException):  # a UnicodeError is a ValueError
        raise TaggantError(f"url={url.partition('?')[0].rpartition('@')[2]!r} is no address; {wrong}") from None
    if parts.scheme not in ("http", "https"):
        raise TaggantError(f"url: {parts.scheme!r} is neither http nor https; {wrong}")
    if "@" in parts.netloc:
        raise TaggantError(
            "url holds a user name or a password, which would be written down with it; put it into a header instead"
        )
    return f"{parts.scheme}://{host}{parts.path}"


def _host(url: str | None) -> str:
    """Return HOST or HOST:PORT of an address, without a user name; empty if there is none."""
    try:
        return urlsplit(url or "").netloc.rpartition("@")[2]
    except ValueError:
        return ""

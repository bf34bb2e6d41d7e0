"""Asking an HTTP classification service, through failures of every kind; `docs/services.md` tells what counts as what."""

import math
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from urllib.parse import urlsplit

import requests

from taggant_lightning.access.answer import Query
from taggant_lightning.access.bounded_json import bounded_json
from taggant_lightning.access.png import png
from taggant_lightning.access.services.asking import Asking
from taggant_lightning.access.services.ending import check_ending
from taggant_lightning.access.services.exchange import Line, Response
from taggant_lightning.access.services.failures import FailedAttempt, Failure, NotBegun
from taggant_lightning.access.services.forms import suggestion
from taggant_lightning.access.services.journal import Journal, Recorded
from taggant_lightning.access.services.mapping import load_mapping
from taggant_lightning.access.services.pace import Pace, retry_after
from taggant_lightning.access.services.recorded import FIELDS
from taggant_lightning.access.services.wire import MalformedError, Wire
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json, sha256_hex
from taggant_lightning.outside import shown

LONGEST_BACKOFF = 60.0  # seconds between two attempts, unless the service asks for more
BEGINNING = 100  # characters of an answer that a message shows
SECRET = 6  # shorter words of a header, such as "Bearer", are no secrets
REFUSALS = (400, 413, 415, 422, 451)
CREDENTIALS = "put valid credentials into the headers of the mapping"
ADDRESS = "write the address that takes POST requests with images"
# Statuses that no further attempt at once changes.
WRONG = {401: CREDENTIALS, 402: CREDENTIALS, 403: CREDENTIALS, 404: ADDRESS, 405: ADDRESS, 407: CREDENTIALS, 410: ADDRESS}


class Service:
    """A classification service at an address.

    Args:
        url: http or https, without user name and password.
        mapping: File that says where requests and answers have their fields; None for the documented format.
        timeout: Seconds for the whole exchange of one attempt, from the name of the host to the last byte of the answer.
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
        lack: Callable[[Recorded], Failure | None] | None = None,
        count_missing: bool = False,
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> dict[str, Failure]:
        """Ask what the journal lacks, and write each answer to it; `ending` has the rule for what is not answered.

        Args:
            queries: In the order in which they are begun; their names differ.
            journal: Gets each answer as it comes, from the first proper one on. Answers may come out of order, by as many
                places as requests are under way, and by more where a query fails and is tried again at the end.
            lack: Says why an answer is of no use, or None for a proper one; None calls every answer with a label proper.
            count_missing: Whether to ask every query though the service seems to be away, and to return all the same.
            progress: Called with the number of answered queries and of all, after each answer.
            stop: Called before the first query and after each answer; once it returns True no further query is begun, and
                those under way are finished and written.

        Returns:
            Why each query failed that has no answer, by its name; those are misses. Empty if `stop` ended it.

        Raises:
            TaggantError: If the service answers no query properly, as with a wrong address, mapping or credentials; or an image
                cannot travel as PNG.
            Unavailable: If the service is away; asking again with the same journal goes on.
            OSError: If the journal cannot be written.
        """
        if len({query.name for query in queries}) < len(queries):
            raise TaggantError("queries: two have the same name; name each once")
        ended = threading.Event()
        pace = Pace(self._rate, ended)
        lines = _Lines(self._wire)
        asking = Asking(
            lambda query, patient: self._ask(query, pace, ended, lines.mine(), self._attempts if patient else 1),
            queries,
            journal,
            lack=_lacks_labels if lack is None else lack,
            ended=ended,
            progress=progress,
            stop=stop,
            give_up=not count_missing,
        )
        try:
            asked = asking.run(self._concurrency)
        finally:
            lines.close()
        if asking.stopped:
            return {}
        check_ending(asked, f"url={self._shown}", count_missing=count_missing)
        return asking.failures

    def _ask(self, query: Query, pace: Pace, ended: threading.Event, line: Line, attempts: int) -> Recorded:
        body = self._wire.request(png(query.image))
        last: FailedAttempt | None = None
        for attempt in range(1, attempts + 1):
            if not pace.wait():
                break
            try:
                return self._read(line.post(self._url, body, self._timeout))
            except FailedAttempt as error:
                last = error
            pace.hold(last.failure.wait)
            if last.failure.final:
                break
            if attempt < attempts:
                delay = self._backoff * 2.0 ** min(attempt - 1, 30) * self._jitter.uniform(0.5, 1.5)
                ended.wait(min(delay, LONGEST_BACKOFF))
        raise last or NotBegun

    def _read(self, response: Response) -> Recorded:
        status, headers = response.status, response.headers
        if status in REFUSALS:
            return Recorded(None, refused=True, status=status)
        if status in WRONG:
            raise FailedAttempt(Failure(f"HTTP {status}", WRONG[status], final=True))
        if 300 <= status < 400:
            host = shown(_host(headers.get("Location")), 100) or "a page of its own"
            said = f"it redirects to {host}, perhaps for a login"
            raise FailedAttempt(Failure("a redirect", f"{ADDRESS}, or {CREDENTIALS}", final=True, detail=said))
        if not 200 <= status < 300:
            wait = retry_after(headers.get("Retry-After")) if status in (429, 503) else 0.0
            raise FailedAttempt(Failure(f"HTTP {status}", wait=wait))
        if "text/html" in headers.get("Content-Type", "").lower() or response.body.lstrip()[:1] == b"<":
            raise FailedAttempt(Failure("a web page instead of JSON", f"{ADDRESS}, or {CREDENTIALS}"))
        try:
            return self._wire.read(response.body)
        except MalformedError as error:
            raise FailedAttempt(
                Failure(str(error), self._mapping_for(response.body), detail=self._beginning(response.body))
            ) from None

    def _beginning(self, body: bytes) -> str:
        """Return how an answer begins, fit to be shown; a service may echo the headers, and they are secret."""
        text = body[: 4 * BEGINNING].decode("utf-8", "replace")
        for value in self._wire.headers.values():
            for secret in (value, *value.split()):
                text = text.replace(secret, "***") if len(secret) >= SECRET else text
        return f"it begins {shown(text, BEGINNING)}" if text.strip() else "it is empty"

    def _mapping_for(self, body: bytes) -> str:
        """Return what to write so that an answer like this is read."""
        try:
            found = suggestion(bounded_json(body))
        except (ValueError, RecursionError):
            found = None
        return FIELDS if found is None else f"{FIELDS}, perhaps with the line {found}"


def _lacks_labels(recorded: Recorded) -> Failure | None:
    return None if recorded.labels else Failure("an answer without labels", FIELDS)


class _Lines:
    """One line a thread: requests does not promise that threads may share one."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._local, self._all = wire, threading.local(), list[Line]()

    def mine(self) -> Line:
        if not hasattr(self._local, "line"):
            self._local.line = Line(self._wire.headers)
            self._all.append(self._local.line)
        line: Line = self._local.line
        return line

    def close(self) -> None:
        for line in self._all:
            line.close()


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

"""One request to a service, and its response: bounded in time and size, and never redirected."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import requests
import urllib3

from taggant_lightning.errors import TaggantError

LARGEST = 16 * 2**20  # bytes of an answer; a hundred thousand labels with scores need less
PIECE = 2**16


class FailedAttempt(Exception):  # noqa: N818 - it says what is the matter
    """An attempt that may go better the next time.

    Attributes:
        reason: What happened, in words that quote neither the address nor a header.
        wait: Seconds that the service asked to be left alone.
        page: Whether the answer was a web page.
    """

    def __init__(self, reason: str, wait: float = 0.0, *, page: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.wait, self.page = reason, wait, page


@dataclass(frozen=True)
class Response:
    """What came back.

    Attributes:
        status: The HTTP status.
        headers: By name, in any case.
        body: At most `LARGEST` bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def open_session(headers: Mapping[str, str]) -> requests.Session:
    """Return a session for one thread that sends these headers and no other credentials."""
    session = _Session()
    session.headers.update({"Content-Type": "application/json", "Accept": "application/json", **headers})
    session.auth = _as_it_is  # or .netrc would replace the Authorization header
    return session


def exchange(session: requests.Session, url: str, body: bytes, timeout: float) -> Response:
    """Post a body and return the response, whatever its status.

    Args:
        session: Of this thread.
        url: The address. A redirect is not followed: it would take the headers to another host.
        body: JSON.
        timeout: Seconds to connect, to wait for a part of the answer, and for all of it.

    Raises:
        FailedAttempt: If there was no whole response in time.
        TaggantError: If the certificate of the host is not trusted.
    """
    deadline = time.monotonic() + timeout
    try:
        with session.post(url, data=body, timeout=(timeout, timeout), stream=True, allow_redirects=False) as response:
            return Response(response.status_code, response.headers, _read(response.raw, deadline))
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise FailedAttempt("a time-out") from None
    except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise TaggantError(
                "url: the certificate of the service is not trusted, and certificates are always checked; "
                "name its authority's file in REQUESTS_CA_BUNDLE"
            ) from None
        raise FailedAttempt("a failure of the encrypted connection") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError):
        raise FailedAttempt("a refused or dropped connection") from None


def _read(raw: urllib3.HTTPResponse, deadline: float) -> bytes:
    pieces, size = [], 0
    while piece := raw.read1(PIECE, decode_content=True):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise FailedAttempt(f"an answer of more than {LARGEST // 2**20} MiB")
        if time.monotonic() > deadline:
            raise FailedAttempt("a time-out")
    return b"".join(pieces)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Say that there is none: requests would read the whole body first, and fail on a Location that is no address."""


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request

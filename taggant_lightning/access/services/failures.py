"""What can go wrong with one query, by kind."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """Why a query has no usable answer.

    Attributes:
        kind: In words of this program, the same for all failures of the kind; quotes neither address, header nor answer.
        advice: What to write instead, where the set-up is at fault if all queries fail so; None where the world failed.
        final: Whether another attempt at once would change nothing.
        wait: Seconds that the service asked to be left alone.
        detail: What the service said, cleaned, for the message of a run that gets no answer at all.
    """

    kind: str
    advice: str | None = None
    final: bool = False
    wait: float = 0.0
    detail: str = ""


class FailedAttempt(Exception):  # noqa: N818 - it says what is the matter
    """An attempt without a usable answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.kind)
        self.failure = failure


class NotBegun(Exception):  # noqa: N818 - nothing failed
    """The run ended before the first attempt at a query."""

"""What counts as a miss and what ends a run: the one rule for a service that does not answer every query properly.

A *proper* answer names a label that the owner knows. Whatever else a service does to single queries is a miss for the claimant,
as long as it answers one query properly and still does so at the end. Only a service that answers none, or is away, ends a run.

Why the p-value stays valid: what counts as an answer never depends on the key labels. So the answers that a service would give
to all queries, each asked until the first one comes, are independent of the labels, and their test is exact or conservative. A
run finds a part of them, and each that it lacks is a miss, which gives the claimant less in every test. No choice of when to
stop, to go on or to conclude makes a hit likelier, and a suspect that refuses single queries stops no verdict.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from taggant_lightning.access.services.failures import Failure
from taggant_lightning.errors import TaggantError, Unavailable

SHOWN = 3  # kinds of failure that a sentence names


@dataclass(frozen=True)
class Asked:
    """How far a run came.

    Attributes:
        queries: How many there are.
        proper: How many have a proper answer, those of earlier runs with the same journal included.
        useless: Why each other answer is of no use (a refusal, labels that nobody knows); it is final.
        failures: Why each query failed that has no answer, the latest last.
        untried: How many were not asked, as the run was given up.
        present: Whether the service, at the end, still answered a query properly that it had answered so before.
    """

    queries: int
    proper: int
    useless: Sequence[Failure] = ()
    failures: Sequence[Failure] = ()
    untried: int = 0
    present: bool = True


def check_ending(asked: Asked, where: str, *, count_missing: bool) -> None:
    """Return if what a run found is concluded on, with a miss for each query that lacks a proper answer.

    Args:
        asked: How far it came.
        where: The argument and the address, for messages.
        count_missing: Whether the owner concludes though the service is away.

    Raises:
        TaggantError: If no query has a proper answer, and the set-up may be at fault: it says what to write.
        Unavailable: If the service is away; the same command goes on.
    """
    if asked.proper == 0 and (asked.useless or any(failure.advice for failure in asked.failures)):
        raise TaggantError(_wrong_set_up(asked, where))
    if asked.proper == 0 or ((asked.failures or asked.untried) and not asked.present and not count_missing):
        done = asked.proper + len(asked.useless)
        last = asked.failures[-1].kind if asked.failures else "the end of the run"
        raise Unavailable(
            f"{where} answered {done} of {asked.queries} queries, and the last failure was {last}; "
            "run the same command again later, it goes on with the rest"
        )


def _wrong_set_up(asked: Asked, where: str) -> str:
    """Return the sentence for a service that answered no query properly."""
    found = [*asked.useless, *asked.failures]
    counts = Counter(failure.kind for failure in found)
    kinds = ", ".join(kind if len(counts) == 1 else f"{kind} ({n} times)" for kind, n in counts.most_common(SHOWN))
    with_advice = [failure for failure in found if failure.advice]
    commonest = Counter(failure.kind for failure in with_advice).most_common(1)[0][0]
    shown = next(failure for failure in with_advice if failure.kind == commonest)
    detail = f"; {shown.detail}" if shown.detail else ""
    rest = f"; --count-missing asks the other {asked.untried} all the same" if asked.untried else ""
    return f"{where} gave no usable answer to {len(found)} queries: {kinds}{detail}; {shown.advice}{rest}"

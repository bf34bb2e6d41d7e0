"""Verifying somebody's claim: was it fixed before the release, is it whole, is the number right, and what does it come to?

The threat is grinding: after the model has answered, a claimant could try secrets, key images, tests or parts of a KeySet until
some fit. So a claim stands on one commitment, published before the release that names it, and on everything that it binds.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from taggant_lightning.access.answer import Answer
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Use, uses
from taggant_lightning.evidence.ledger import revealed as revealed_batches
from taggant_lightning.evidence.record import MEANING, Detection, p_value
from taggant_lightning.outside import shown
from taggant_lightning.statistics.multiple import holm_log10_p
from taggant_lightning.taggants.beacon import promise_of
from taggant_lightning.taggants.hits import incomplete, key_ranks
from taggant_lightning.taggants.primary import SEQUENTIAL, evaluate, places_of
from taggant_lightning.taggants.reveal import Revealed

LEVEL = 1e-3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: In a word or two.
        holds: Whether it is as it must be; None where what would show it was not given.
        sentence: What was found.
        note: Whether it is a weakness that a claim may have, and that a reader should weigh.
    """

    name: str
    holds: bool | None
    sentence: str
    note: bool = False

    @property
    def mark(self) -> str:
        """One word for it: `holds`, `fails`, `unknown` or `note`."""
        return "note" if self.note else {True: "holds", False: "fails", None: "unknown"}[self.holds]


@dataclass(frozen=True)
class Moment:
    """A point in time, or a whole day where no more is known.

    Attributes:
        start: Its first instant.
        end: Its last.
    """

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return self.start.date().isoformat() if self.start != self.end else self.start.isoformat()


def date(text: str, name: str) -> Moment:
    """Read a date, which is the whole day, or a time, in ISO 8601; UTC unless it says otherwise.

    Raises:
        TaggantError: If it is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise TaggantError(
            f"{name}={text!r} is no date; write ISO 8601, for instance 2026-11-24 or 2026-11-24T12:00+00:00"
        ) from None
    start = found if found.tzinfo else found.replace(tzinfo=UTC)
    day = len(text.strip()) <= len("2026-11-24")
    return Moment(start, start + timedelta(days=1, microseconds=-1) if day else start)


@dataclass(frozen=True)
class Evidence:
    """What a verifier has beside the claim and the revealed keys.

    Attributes:
        claim_sha256: Of the record's file, which the ledger holds; None where only the record is at hand.
        source_checked: Whether the choice of real key images was recomputed from the source.
        answers: The model's rankings in key order, None for a refusal; None where they are not at hand.
        manifests: The manifest of every release of this dataset by this owner, as JSON.
        promised: When the promise of a KeySet with a beacon was published, by a public timestamp.
        beacon: When the beacon's value was published.
        committed: When the commitment was published, by a public timestamp.
        released: When the release was published.
        first_seen: When the suspect model was first seen.
        ledger: Entries of the KeySet's ledger, chain checked.
        level: Largest corrected p-value with which a claim holds.
    """

    claim_sha256: str | None = None
    source_checked: bool = False
    answers: Sequence[Sequence[int | None] | None] | None = None
    manifests: Sequence[dict[str, Any]] = ()
    promised: Moment | None = None
    beacon: Moment | None = None
    committed: Moment | None = None
    released: Moment | None = None
    first_seen: Moment | None = None
    ledger: Sequence[dict[str, Any]] | None = None
    level: float = LEVEL


@dataclass(frozen=True)
class Verification:
    """What a verifier found.

    Attributes:
        findings: All that was looked at.
        log10_p: Of the claim.
        corrected_log10_p: The same after the corrections for other uses and other commitments.
        holds: Whether everything holds and the corrected p-value is at most the level.
    """

    findings: list[Finding]
    log10_p: float
    corrected_log10_p: float
    holds: bool


def verify_claim(claim: Detection, keys: Revealed, evidence: Evidence) -> Verification:
    """Check a claim.

    Args:
        claim: The public record.
        keys: The revealed keys, already checked against their secret or their paths.
        evidence: What else is known.

    Returns:
        Everything that was looked at, failures included; nothing is raised for a claim that does not hold.
    """
    number, commitments = _commitments(keys, evidence.manifests)
    corrected, corrections = _corrected(claim, evidence, number)
    findings = [
        _commitment(claim, keys),
        _public_secret(keys),
        _choice(keys, evidence),
        _images(keys, evidence),
        _record(claim),
        _test(claim, keys),
        _batches(claim, keys),
        _number(claim, keys, evidence),
        *commitments,
        _order("commitment before release", ("the commitment", evidence.committed), ("the release", evidence.released)),
        _order("release before model", ("the release", evidence.released), ("the model", evidence.first_seen)),
        _spent(claim, evidence),
        *corrections,
        Finding(
            "significance",
            corrected <= math.log10(evidence.level),
            f"the corrected log10 p is {corrected:.2f}; the level is {evidence.level:g}",
        ),
    ]
    return Verification(findings, claim.log10_p, corrected, all(finding.holds is True for finding in findings))


def _commitment(claim: Detection, keys: Revealed) -> Finding:
    same = claim.commitment == keys.commitment
    said = (
        "the claim names the commitment of the revealed keys"
        if same
        else (f"the claim names the commitment {claim.commitment}, and the revealed keys have {keys.commitment}")
    )
    return Finding("keys", same, said)


def _public_secret(keys: Revealed) -> Finding:
    demo = bool(keys.header["demo_only"])
    return Finding(
        "secret",
        not demo,
        "the secret is one that anybody can guess" if demo else "the header does not mark it as a demonstration's",
    )


def _choice(keys: Revealed, evidence: Evidence) -> Finding:
    if "beacon" not in keys.header:
        said = (
            "nothing shows that secrets were not tried before the commitment, against models like the suspect; train models on "
            "the originals and ask them the same keys"
        )
        return Finding("choice of the secret", True, said, note=True)
    beacon, promised = keys.header["beacon"], promise_of(keys.header)
    steps = (
        (f"the promise {promised}", evidence.promised),
        ("the beacon", evidence.beacon),
        ("the commitment", evidence.committed),
    )
    order = _order("choice of the secret", *steps)
    if not order.holds:
        return order
    said = (
        f"{order.sentence}; check that {shown(beacon['source'])} is {beacon['value']}, and that the claimant published this "
        "promise and no other, where all of hers would be seen"
    )
    return Finding(order.name, True, said)


def _images(keys: Revealed, evidence: Evidence) -> Finding:
    if keys.header["derivation"]["source"] == "noise":
        return Finding("images", True, "the key images follow from the secret")
    said = "the key images are the ones that the secret chooses from the source"
    if not evidence.source_checked:
        said = (
            "the key images are real ones, and nothing shows that they were not picked to fit the labels; name the KeySet's "
            "folder with --source"
        )
    return Finding("images", evidence.source_checked or None, said)


def _labels(claim: Detection, entry: dict[str, Any]) -> Finding:
    table, entered = claim.provenance.get("labels"), entry.get("labels")
    if table != entered:
        return Finding(
            "labels", False, f"the claim's label table is {shown(table)}, and the ledger has entered {shown(entered)}"
        )
    if table is None:
        return Finding("labels", True, "the model numbers its classes as the owner does")
    # A service's answers come after the entry but for the first; other answers were there before it.
    when = "with the first answer" if entry.get("access") == "url" else "with the verdict, when the answers were there"
    said = (
        f"a label table was used (SHA-256 {table}), entered {when}; ask for it, and check that it maps classes by their names"
    )
    return Finding("labels", True, said, note=True)


def _record(claim: Detection) -> Finding:
    fits = claim.method == "data_taggants" and claim.claim == MEANING
    value = p_value(claim.log10_p)
    same = value is None if claim.p_value is None else value is not None and math.isclose(value, claim.p_value, rel_tol=1e-9)
    if fits and same:
        return Finding("record", True, "method, meaning and p-value are those of this program")
    return Finding("record", False, "method, meaning or p-value of the record were changed")


def _test(claim: Detection, keys: Revealed) -> Finding:
    fixed, used = keys.header["test"], claim.details.get("test")
    same = used == fixed and claim.details.get("num_classes") == keys.header["num_classes"]
    said = (
        f"the test is the one the commitment fixes, {fixed}"
        if same
        else f"the commitment fixes {fixed}, and the claim uses {used}"
    )
    return Finding("test", same, said)


def _numbers(claim: Detection, keys: Revealed) -> list[int] | None:
    """Return the keys of the claim's batches, or None where those are not whole batches in order."""
    batches = claim.details.get("batches")
    if not isinstance(batches, list) or not batches or not set(batches) <= set(range(len(keys.batches))):
        return None
    if batches != list(range(batches[0], batches[0] + len(batches))):
        return None
    return [key for batch in batches for key in keys.batches[batch]]


def _batches(claim: Detection, keys: Revealed) -> Finding:
    numbers, used = _numbers(claim, keys), claim.details.get("num_keys")
    if numbers is None:
        return Finding(
            "batches", False, f"batches {claim.details.get('batches')} are not whole batches of this KeySet in order"
        )
    fits = used == len(numbers) or (keys.header["test"]["name"] == SEQUENTIAL and 0 < int(used or 0) <= len(numbers))
    if not fits:
        return Finding(
            "batches", False, f"the claim rests on {used} keys, and its batches hold {len(numbers)}: a part was chosen"
        )
    return Finding("batches", True, f"the claim rests on whole batches, {len(claim.details['batches'])} of {len(keys.batches)}")


def _number(claim: Detection, keys: Revealed, evidence: Evidence) -> Finding:
    numbers = _numbers(claim, keys)
    if evidence.answers is None:
        return Finding("number", None, "the model's answers are not at hand; give them, or ask the model again")
    if numbers is None or not set(numbers[: len(evidence.answers)]) <= set(keys.labels):
        return Finding("number", False, "the keys of the claim's batches are not revealed")
    asked = numbers[: len(evidence.answers)] if keys.header["test"]["name"] == SEQUENTIAL else numbers
    answers = [Answer(i, None if labels is None else tuple(labels)) for i, labels in enumerate(evidence.answers)]
    labels = np.array([keys.labels[number] for number in asked], dtype=np.int64)
    try:
        ranks = key_ranks(answers, labels, keys.header["num_classes"])
    except TaggantError as error:
        return Finding("number", False, str(error))
    outcome = evaluate(keys.header["test"], ranks, keys.header["num_classes"])
    said = f"from the answers log10 p is {outcome.log10_p:.4f}; the claim says {claim.log10_p:.4f}"
    if not math.isclose(outcome.log10_p, claim.log10_p, rel_tol=1e-9, abs_tol=1e-9):
        return Finding("number", False, said)
    lacking, refused = incomplete(answers, places_of(keys.header)), sum(a.labels is None for a in answers)
    conservative = lacking > 0 or keys.header["test"]["name"] == SEQUENTIAL
    expected = {**outcome.details, "incomplete": lacking, "refused": refused}
    changed = [name for name, value in expected.items() if claim.details.get(name) != value]
    if changed or claim.validity != ("conservative" if conservative else "exact"):
        return Finding(
            "number", False, f"{said}, but of the record {', '.join(changed) or 'validity'} does not follow from the answers"
        )
    return Finding("number", True, said)


def published(manifests: Sequence[dict[str, Any]]) -> list[str]:
    """Return the different commitments that manifests of releases name, sorted."""
    named: list[str] = []
    for manifest in manifests:
        value = manifest.get("commitment")
        named += [str(v) for v in value] if isinstance(value, list) else [] if value is None else [str(value)]
    return sorted(set(named))


def _commitments(keys: Revealed, manifests: Sequence[dict[str, Any]]) -> tuple[int, list[Finding]]:
    """Return how many commitments the owner has published for this dataset, and what the manifests say."""
    if not manifests:
        return 1, [Finding("manifest", None, "no manifest of a release is given")]
    different = published(manifests)
    if keys.commitment not in different:
        return max(1, len(different)), [
            Finding(
                "manifest", False, f"the release does not name the commitment {keys.commitment}: {different or 'it names none'}"
            )
        ]
    count = len(different)
    said = (
        "the release names this commitment and no other"
        if count == 1
        else (f"{count} commitments were published for this dataset; the p-value is multiplied by {count}")
    )
    return count, [Finding("manifest", True, said)]


def _order(name: str, *steps: tuple[str, Moment | None]) -> Finding:
    """Look whether things happened one after the other."""
    missing = [said for said, moment in steps if moment is None]
    if missing:
        return Finding(name, None, f"no date of {' and of '.join(missing)} is given")
    said = ", ".join(f"{what}: {moment}" for what, moment in steps)
    pairs = [(a, b) for (_, a), (_, b) in itertools.pairwise(steps) if a is not None and b is not None]
    if any(a.start > b.end for a, b in pairs):
        return Finding(name, False, f"{said}: too late")
    if any((a.end > b.start and a != b) or (a == b and a.start != a.end) for a, b in pairs):
        return Finding(name, None, f"{said}: the same day; give times as well")
    return Finding(name, True, said)


def _spent(claim: Detection, evidence: Evidence) -> Finding:
    if evidence.ledger is None:
        return Finding("batches spent", None, "the ledger is not given, so nobody can tell which batches were public before")
    spent = revealed_batches(evidence.ledger)
    used = [batch for batch in claim.details.get("batches", []) if batch in spent]
    if not used:
        return Finding("batches spent", True, f"the claim's batches were secret; {len(spent)} batches are spent")
    if evidence.first_seen is None:
        return Finding("batches spent", None, f"batches {used} are public, and no date is given when the model was first seen")
    late = [batch for batch in used if date(spent[batch], "ledger").start < evidence.first_seen.end]
    if late:
        return Finding(
            "batches spent", False, f"batches {late} were public before the model was first seen; anybody may train on them"
        )
    return Finding(
        "batches spent", True, f"batches {used} became public after the model was seen; {len(spent)} batches are spent"
    )


def _corrected(claim: Detection, evidence: Evidence, commitments: int) -> tuple[float, list[Finding]]:
    """Return log10 p after Holm over all uses and times the number of commitments, and what the ledger says."""
    more = math.log10(commitments)
    if evidence.ledger is None:
        return min(0.0, claim.log10_p + more), [Finding("ledger", None, "the ledger is not given, so other uses are not known")]
    own = claim.provenance.get("ledger") or {}
    found = uses(evidence.ledger)
    place = next((i for i, use in enumerate(found) if use.number == own.get("entry")), None)
    entry = None if place is None else evidence.ledger[found[place].number]
    if place is None or entry is None or not _entered(claim, entry, found[place], evidence):
        said = "the ledger does not hold this claim as the record has it"
        return min(0.0, claim.log10_p + more), [Finding("ledger", False, said)]
    adjusted = holm_log10_p([use.log10_p for use in found])[place]
    said = f"the keys were used {len(found)} times; corrected for all of them (Holm) log10 p is {adjusted:.2f}"
    return min(0.0, adjusted + more), [Finding("ledger", True, said), _labels(claim, entry)]


def _entered(claim: Detection, entry: dict[str, Any], use: Use, evidence: Evidence) -> bool:
    """Return whether a use and its result are those of a claim."""
    results = [e for e in evidence.ledger or () if e["kind"] == "result" and e["use"] == use.number]
    files = {e["detection"] for e in results}
    return (
        entry["hash"] == (claim.provenance.get("ledger") or {}).get("head")
        and list(use.batches) == claim.details.get("batches")
        and use.suspect == claim.provenance.get("suspect")
        and math.isclose(use.log10_p, claim.log10_p, rel_tol=1e-9, abs_tol=1e-9)
        and (evidence.claim_sha256 is None or evidence.claim_sha256 in files)
    )

"""Verifying somebody's claim: was it fixed before the release, is it whole, is the number right, and what does it come to?

The threat is grinding: after the model has answered, a claimant could try secrets, key images, tests or parts of a KeySet until
some fit. So a claim stands on one commitment, published before the release that names it, and on everything that it binds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from taggant_lightning.access.answer import Answer
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import revealed as revealed_batches
from taggant_lightning.evidence.ledger import uses
from taggant_lightning.evidence.record import Detection
from taggant_lightning.statistics.multiple import holm_log10_p
from taggant_lightning.taggants.beacon import promise_of
from taggant_lightning.taggants.hits import key_ranks
from taggant_lightning.taggants.primary import SEQUENTIAL, evaluate
from taggant_lightning.taggants.reveal import Revealed

LEVEL = 1e-3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: In a word or two.
        holds: Whether it is as it must be; None where what would show it was not given.
        sentence: What was found.
    """

    name: str
    holds: bool | None
    sentence: str


@dataclass(frozen=True)
class Evidence:
    """What a verifier has beside the claim and the revealed keys.

    Attributes:
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

    answers: Sequence[Sequence[int | None] | None] | None = None
    manifests: Sequence[dict[str, Any]] = ()
    promised: datetime | None = None
    beacon: datetime | None = None
    committed: datetime | None = None
    released: datetime | None = None
    first_seen: datetime | None = None
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


def date(text: str, name: str) -> datetime:
    """Read a date or time in ISO 8601; UTC unless it says otherwise.

    Raises:
        TaggantError: If it is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise TaggantError(
            f"{name}={text!r} is no date; write ISO 8601, for instance 2026-11-24 or 2026-11-24T12:00+00:00"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


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
        _test(claim, keys),
        _batches(claim, keys),
        _number(claim, keys, evidence),
        *commitments,
        _order("commitment before release", "the commitment", evidence.committed, "the release", evidence.released),
        _order("release before model", "the release", evidence.released, "the model", evidence.first_seen),
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
    return Finding("secret", not demo, "the secret is one that anybody can guess" if demo else "the secret was nobody else's")


def _choice(keys: Revealed, evidence: Evidence) -> Finding:
    if "beacon" not in keys.header:
        said = (
            "nothing shows that secrets were not tried before the commitment, against models like the suspect; train models on "
            "the originals and ask them the same keys"
        )
        return Finding("choice of the secret", True, said)
    beacon, promised = keys.header["beacon"], promise_of(keys.header)
    if evidence.promised is None or evidence.beacon is None:
        return Finding("choice of the secret", None, f"give the dates of the promise {promised} and of the beacon")
    fits = evidence.promised <= evidence.beacon
    order = f"the promise {promised}: {evidence.promised.isoformat()}, the beacon: {evidence.beacon.isoformat()}"
    shown = f"{order}; check that {beacon['source']} is {beacon['value']}"
    return Finding("choice of the secret", fits, shown if fits else f"{order}: too late")


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
    import numpy as np

    asked = numbers[: len(evidence.answers)] if keys.header["test"]["name"] == SEQUENTIAL else numbers
    answers = [Answer(i, None if labels is None else tuple(labels)) for i, labels in enumerate(evidence.answers)]
    labels = np.array([keys.labels[number] for number in asked], dtype=np.int64)
    try:
        ranks = key_ranks(answers, labels, keys.header["num_classes"])
    except TaggantError as error:
        return Finding("number", False, str(error))
    found = evaluate(keys.header["test"], ranks, keys.header["num_classes"]).log10_p
    same = math.isclose(found, claim.log10_p, rel_tol=1e-9, abs_tol=1e-9)
    return Finding("number", same, f"from the answers log10 p is {found:.4f}; the claim says {claim.log10_p:.4f}")


def _commitments(keys: Revealed, manifests: Sequence[dict[str, Any]]) -> tuple[int, list[Finding]]:
    """Return how many commitments the owner has published for this dataset, and what the manifests say."""
    if not manifests:
        return 1, [Finding("manifest", None, "no manifest of a release is given")]
    named: list[str] = []
    for manifest in manifests:
        value = manifest.get("commitment")
        named += [str(v) for v in value] if isinstance(value, list) else [] if value is None else [str(value)]
    different = sorted(set(named))
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


def _order(name: str, first: str, earlier: datetime | None, second: str, later: datetime | None) -> Finding:
    if earlier is None or later is None:
        missing = first if earlier is None else second
        return Finding(name, None, f"no date of {missing} is given")
    said = f"{first}: {earlier.isoformat()}, {second}: {later.isoformat()}"
    return Finding(name, earlier <= later, said if earlier <= later else f"{said}: too late")


def _spent(claim: Detection, evidence: Evidence) -> Finding:
    if evidence.ledger is None:
        return Finding("batches spent", None, "the ledger is not given, so nobody can tell which batches were public before")
    spent = revealed_batches(evidence.ledger)
    used = [batch for batch in claim.details.get("batches", []) if batch in spent]
    if not used:
        return Finding("batches spent", True, f"the claim's batches were secret; {len(spent)} batches are spent")
    if evidence.first_seen is None:
        return Finding("batches spent", None, f"batches {used} are public, and no date is given when the model was first seen")
    late = [batch for batch in used if date(spent[batch], "ledger") < evidence.first_seen]
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
    entered = place is not None and evidence.ledger[found[place].number]["hash"] == own.get("head")
    if place is None or not entered or not math.isclose(found[place].log10_p, claim.log10_p, rel_tol=1e-9, abs_tol=1e-9):
        said = "the ledger does not hold this claim as the record has it"
        return min(0.0, claim.log10_p + more), [Finding("ledger", False, said)]
    adjusted = holm_log10_p([use.log10_p for use in found])[place]
    said = f"the keys were used {len(found)} times; corrected for all of them (Holm) log10 p is {adjusted:.2f}"
    return min(0.0, adjusted + more), [Finding("ledger", True, said)]

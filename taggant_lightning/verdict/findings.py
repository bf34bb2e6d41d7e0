"""What a verifier has, what was found, and what of it rests on the claimant's word."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from taggant_lightning.evidence.moments import Moment

LEVEL = 1e-3
Rankings = Sequence[Sequence[int | None] | None]  # in key order; None for a refusal, or for a label without counterpart


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: In a word or two.
        holds: Whether it is as it must be; None where what would show it was not given.
        sentence: What was found.
        note: Whether nothing was checked, and the sentence says what to weigh.
        word: What rests on the claimant's word although this holds, each as a clause after "that".
    """

    name: str
    holds: bool | None
    sentence: str
    note: bool = False
    word: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """One word for it: `holds`, `fails`, `unknown` or `note`."""
        return "note" if self.note else {True: "holds", False: "fails", None: "unknown"}[self.holds]


@dataclass(frozen=True)
class Asked:
    """What a verifier was answered who asked the model herself.

    Attributes:
        answers: The rankings, in key order.
        identity: Of what was asked: `file_sha256` or `url`.
        settings: Preprocessing that she took.
    """

    answers: Rankings
    identity: dict[str, Any]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What a verifier has beside the claim and the revealed keys.

    Attributes:
        claim_sha256: Of the record's file, which the ledger holds; None where only the record is at hand.
        source_checked: Whether the choice of real key images was recomputed from the source.
        answers: The model's rankings as the claimant shows them; None where they are not at hand.
        asked: The model's answers to the verifier; None where she did not ask.
        manifests: The manifest of every release of this dataset by this owner, as JSON.
        promised: When the promise of a KeySet with a beacon was published, by a public timestamp.
        beacon: When the beacon's value was published.
        committed: When the commitment was published, by a public timestamp.
        released: When the release was published.
        first_seen: When the suspect model was first seen.
        ledger: Entries of the KeySet's ledger, chain checked.
        heads: Heads of the ledger that were published; that each occurs in it is checked beforehand.
        level: Largest corrected p-value with which a claim holds.
    """

    claim_sha256: str | None = None
    source_checked: bool = False
    answers: Rankings | None = None
    asked: Asked | None = None
    manifests: Sequence[dict[str, Any]] = ()
    promised: Moment | None = None
    beacon: Moment | None = None
    committed: Moment | None = None
    released: Moment | None = None
    first_seen: Moment | None = None
    ledger: Sequence[dict[str, Any]] | None = None
    heads: Sequence[str] = ()
    level: float = LEVEL


@dataclass(frozen=True)
class Verification:
    """What a verifier found.

    Attributes:
        findings: All that was looked at.
        log10_p: Of the claim.
        corrected_log10_p: The same, or that of the verifier's own asking if it is weaker, after the corrections for other uses
            and other commitments.
        holds: Whether everything that was looked at holds and the corrected p-value is at most the level.
        asked: Whether the model was asked again.
    """

    findings: list[Finding]
    log10_p: float
    corrected_log10_p: float
    holds: bool
    asked: bool

    @property
    def words(self) -> list[str]:
        """What rests on the claimant's word, each as a clause after "that"."""
        return [clause for finding in self.findings for clause in finding.word]

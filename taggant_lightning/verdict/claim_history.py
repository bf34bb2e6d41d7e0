"""What was fixed and published when, what stands in the ledger, and what nothing but the claimant's word says."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from taggant_lightning.commitment.beacon import promise_of
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Use, uses
from taggant_lightning.evidence.ledger import revealed as revealed_batches
from taggant_lightning.evidence.moments import Moment, date
from taggant_lightning.evidence.record import Detection
from taggant_lightning.methods.taggants.reveal import Revealed
from taggant_lightning.outside import shown
from taggant_lightning.statistics.multiple import holm_log10_p
from taggant_lightning.verdict.findings import Evidence, Finding


def check_choice(keys: Revealed, evidence: Evidence) -> Finding:
    """Look whether secrets can have been tried before the commitment."""
    name = "choice of the secret"
    if keys.header.get("beacon") is None:
        said = (
            "nothing shows that secrets were not tried before the commitment, against models like the suspect; train models on "
            "the originals and ask them the same keys"
        )
        return Finding(name, True, said, note=True, word=("no secrets were tried before the commitment (there is no beacon)",))
    beacon, promised = keys.header["beacon"], promise_of(keys.header)
    steps = (
        (f"the promise {promised}", evidence.promised),
        ("the beacon", evidence.beacon),
        ("the commitment", evidence.committed),
    )
    order = check_order(name, *steps)
    if not order.holds:
        return order
    word = (
        f"{shown(beacon['value'])} is the value of {shown(beacon['source'])}",
        "this promise was the claimant's only one, published where all of hers would be seen",
    )
    return Finding(name, True, order.sentence, word=word)


def published(manifests: Sequence[dict[str, Any]]) -> list[str]:
    """Return the different commitments that manifests of releases name, sorted."""
    named: list[str] = []
    for manifest in manifests:
        value = manifest.get("commitment")
        named += [str(v) for v in value] if isinstance(value, list) else [] if value is None else [str(value)]
    return sorted(set(named))


def check_manifests(keys: Revealed, manifests: Sequence[dict[str, Any]]) -> Finding:
    """Look whether a whole manifest names this commitment, and how many commitments all of them name."""
    if not manifests:
        return Finding("manifest", None, "no manifest of a release is given")
    different = published(manifests)
    if keys.commitment not in different:
        said = f"the release does not name the commitment {keys.commitment}: {shown(different or 'it names none')}"
        return Finding("manifest", False, said)
    for manifest in manifests:
        if keys.commitment in published([manifest]) and (wrong := _unfit(manifest, keys.header)):
            return Finding("manifest", False, wrong)
    count = len(different)
    said = (
        "the release names this commitment and no other"
        if count == 1
        else f"{count} commitments were published for this dataset; the p-value is multiplied by {count}"
    )
    word = ("these are the manifests of all releases of this dataset, and their files are as published",)
    return Finding("manifest", True, said, word=word)


def _unfit(manifest: dict[str, Any], header: dict[str, Any]) -> str | None:
    """Say why a manifest is none of a release of the header's dataset; None where nothing speaks against it."""
    classes, images, hashes = manifest.get("classes"), manifest.get("num_images"), manifest.get("hashes")
    whole = str(manifest.get("format", "")).startswith("taggant-lightning/release/") and isinstance(classes, list)
    if not whole or type(images) is not int or images < 1 or not isinstance(hashes, str) or len(hashes) != 64:
        return "what names this commitment is no manifest of a release: its format, classes, images or hashes are missing"
    if len(classes or ()) != header["num_classes"]:
        return f"the release has {len(classes or ())} classes, and the keys were drawn for {header['num_classes']}"
    said, statement = manifest.get("statement"), header["statement"]
    if said and statement and said != statement:
        return f"the release says that it is '{shown(said)}', and the keys were drawn for '{shown(statement)}'"
    return None


def check_order(name: str, *steps: tuple[str, Moment | None]) -> Finding:
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


def check_spent(claim: Detection, evidence: Evidence) -> Finding:
    """Look whether the claim's keys were public before the model was seen."""
    name = "batches spent"
    if evidence.ledger is None:
        return Finding(name, None, "the ledger is not given, so nobody can tell which batches were public before")
    spent = revealed_batches(evidence.ledger)
    used = [batch for batch in claim.details.get("batches", []) if batch in spent]
    if not used:
        return Finding(name, True, f"the claim's batches were secret; {len(spent)} batches are spent")
    if evidence.first_seen is None:
        return Finding(name, None, f"batches {used} are public, and no date is given when the model was first seen")
    late = [batch for batch in used if date(spent[batch], "ledger").start < evidence.first_seen.end]
    if late:
        return Finding(name, False, f"batches {late} were public before the model was first seen; anybody may train on them")
    return Finding(name, True, f"batches {used} became public after the model was seen; {len(spent)} batches are spent")


def check_ledger(claim: Detection, evidence: Evidence, log10_p: float, commitments: int) -> tuple[float, list[Finding]]:
    """Correct a number for all uses of the keys and for the number of commitments.

    Args:
        claim: The record.
        evidence: What the verifier has.
        log10_p: The number to correct.
        commitments: How many commitments were published for this dataset, from 1.

    Returns:
        The corrected number, and what the ledger says of this use.
    """
    more = math.log10(commitments)
    uncorrected = min(0.0, log10_p + more)
    if evidence.ledger is None:
        return uncorrected, [Finding("ledger", None, "the ledger is not given, so other uses are not known")]
    own = claim.provenance.get("ledger") or {}
    found = uses(evidence.ledger)
    place = next((i for i, use in enumerate(found) if use.number == own.get("entry") and not use.look), None)
    entry = None if place is None else evidence.ledger[found[place].number]
    if place is None or entry is None or not _entered(claim, entry, found[place], evidence):
        return uncorrected, [Finding("ledger", False, "the ledger does not hold this claim as the record has it")]
    if wrong := _untimely(evidence, entry):
        return uncorrected, [Finding("ledger", False, wrong)]
    numbers = [log10_p if i == place else use.log10_p for i, use in enumerate(found)]
    adjusted = holm_log10_p(numbers)[place]
    looks = sum(use.look for use in found)
    said = f"the keys were used {len(found)} times{f', {looks} of them looks' if looks else ''}; corrected for all of them"
    said += f" (Holm) log10 p is {adjusted:.2f}"
    uncounted = sum(e["kind"] == "curve" for e in evidence.ledger)
    if uncounted:
        holds, said = None, f"{said}; but {uncounted} trainings were watched by a version that did not count its looks"
    else:
        holds = True
    since = " after the published head" if evidence.heads else ": no head of it that was published is given (--head)"
    return min(0.0, adjusted + more), [
        Finding("ledger", holds, said, word=(f"the ledger holds every use and every look{since}",)),
        _labels(claim, entry),
        _settings(claim, entry),
        _identity(claim, entry),
    ]


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


def _untimely(evidence: Evidence, entry: dict[str, Any]) -> str | None:
    """Say what is wrong with the times of a ledger; None where nothing is."""
    try:
        times = [date(str(e["time"]), "ledger").start for e in evidence.ledger or ()]
    except TaggantError as error:
        return str(error)
    if any(a > b for a, b in itertools.pairwise(times)):
        return "the ledger's times run backwards: it was not written entry by entry"
    released = evidence.released
    if released is not None and date(str(entry["time"]), "ledger").start < released.start:
        return f"the ledger has the model asked on {entry['time']}, before the release of {released}"
    return None


def _labels(claim: Detection, entry: dict[str, Any]) -> Finding:
    table, entered = claim.provenance.get("labels"), entry.get("labels")
    if table != entered:
        return Finding(
            "labels", False, f"the claim's label table is {shown(table)}, and the ledger has entered {shown(entered)}"
        )
    if table is None:
        if entry.get("access") == "predictions":
            word = ("the labels in the answers were not renamed after looking",)
            return Finding("labels", True, "no label table was used", word=word)
        return Finding("labels", True, "no label table was used: the model numbers its classes as the owner does")
    # A service's answers come after the entry but for the first; other answers were there before it.
    when = "with the first answer" if entry.get("access") == "url" else "when the answers may have been there"
    said = f"a label table was used (SHA-256 {shown(table)}), entered {when}; ask for it, and check that it maps by names"
    word = (f"the label table {shown(table, 16)} maps classes by their names, whatever the model answers to keys",)
    return Finding("labels", True, said, note=True, word=word)


def _settings(claim: Detection, entry: dict[str, Any]) -> Finding:
    """Look at what shaped the queries: chosen after looking, it could be chosen to fit."""
    used, entered = claim.provenance.get("settings") or {}, entry.get("settings") or {}
    if used != entered:
        return Finding("settings", False, f"the claim says {shown(used)}, and the ledger has entered {shown(entered)}")
    chosen = {name: value for name, value in used.items() if value is not None}
    if not chosen:
        return Finding("settings", True, "keys were asked as they are, without preprocessing of the claimant's choice")
    said = f"asked with {shown(', '.join(f'{name}={value}' for name, value in chosen.items()))}"
    return Finding(
        "settings", True, said, note=True, word=(f"{shown(', '.join(chosen))} are the model's own, and not chosen to fit",)
    )


def _identity(claim: Detection, entry: dict[str, Any]) -> Finding:
    """Look which model the record names."""
    used, entered = claim.provenance.get("identity") or {}, entry.get("identity") or {}
    if used != entered:
        return Finding("identity", False, f"the claim is on {shown(used)}, and the ledger has entered {shown(entered)}")
    known = {name: value for name, value in used.items() if value is not None}
    suspect = f"'{shown(claim.provenance.get('suspect'))}'"
    said = shown(", ".join(f"{name}={value}" for name, value in known.items()))
    sentence = f"the claim is on {suspect} ({said or 'nothing identifies it'}), asked on {entry['time']}"
    word = [f"what was asked is {suspect}"]
    if entry.get("access") == "predictions":
        who = shown(known.get("collected_by") or "somebody whom the record does not name")
        when = shown(known.get("collected_on") or "a day that it does not say")
        word = [f"{who} collected the answers from {suspect}, on {when}"]
    return Finding("identity", True, sentence, note=True, word=tuple(word))

"""What a claim says of keys, test, batches and number, checked against the revealed keys."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from taggant_lightning.access.answer import Answer
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.record import MEANING, Detection, p_value
from taggant_lightning.methods.base import method_of
from taggant_lightning.methods.taggants.batches import admissible, choices
from taggant_lightning.methods.taggants.hits import incomplete, key_ranks
from taggant_lightning.methods.taggants.reveal import Revealed
from taggant_lightning.outside import shown
from taggant_lightning.statistics.tests import paid, validity
from taggant_lightning.verdict.findings import Evidence, Finding, Rankings


def check_keys(claim: Detection, keys: Revealed) -> Finding:
    """Look whether the claim is on these keys."""
    if claim.commitment == keys.commitment:
        return Finding("keys", True, "the claim names the commitment of the revealed keys")
    return Finding(
        "keys", False, f"the claim names the commitment {shown(claim.commitment)}, and the revealed keys have {keys.commitment}"
    )


def check_secret(keys: Revealed) -> Finding:
    """Look whether the secret is one that others can guess, and whether all batches' secrets were fixed together."""
    if keys.header["demo_only"] or keys.guessable:
        return Finding("secret", False, "the secret is one that anybody can guess")
    if not keys.tied:
        said = (
            "these reveals, of format v1, show a secret for each batch and nothing that ties them together: each may have been "
            "tried by itself until its labels suited; ask for the whole secret (--secret-file)"
        )
        return Finding("secret", None, said)
    return Finding("secret", True, "the secret is not a demonstration's, and all batches follow from what was fixed at once")


def check_images(keys: Revealed, evidence: Evidence) -> Finding:
    """Look whether the key images follow from the secret."""
    if keys.header["derivation"]["source"] == "noise":
        return Finding("images", True, "the key images follow from the secret")
    if evidence.source_checked:
        return Finding("images", True, "the key images are the ones that the secret chooses from the source")
    said = (
        "the key images are real ones, and nothing shows that they were not picked to fit the labels; name the KeySet's "
        "folder with --source"
    )
    return Finding("images", None, said)


def check_record(claim: Detection, keys: Revealed) -> Finding:
    """Look whether method, meaning and p-value are what this program writes."""
    fits = claim.method == method_of(keys.header) and claim.claim == MEANING
    value = p_value(claim.log10_p)
    same = value is None if claim.p_value is None else value is not None and math.isclose(value, claim.p_value, rel_tol=1e-9)
    if fits and same:
        return Finding("record", True, "method, meaning and p-value are those of this program")
    return Finding("record", False, "method, meaning or p-value of the record were changed")


def check_test(claim: Detection, keys: Revealed) -> Finding:
    """Look whether the test is the one that the commitment fixes."""
    fixed, used = keys.header["test"], claim.details.get("test")
    if used == fixed and claim.details.get("num_classes") == keys.header["num_classes"]:
        return Finding("test", True, f"the test is the one the commitment fixes, {fixed}")
    return Finding("test", False, f"the commitment fixes {fixed}, and the claim uses {shown(used)}")


def numbers_of(claim: Detection, keys: Revealed) -> list[int] | None:
    """Return the keys of the claim's batches, or None where those are none that a use may ask."""
    batches = claim.details.get("batches")
    if not isinstance(batches, list) or not admissible(keys.header, batches):
        return None
    return [key for batch in batches for key in keys.batches[batch]]


def check_batches(claim: Detection, keys: Revealed) -> Finding:
    """Look whether the claim rests on whole batches that a use may ask, and whether their choice is paid for."""
    numbers, used = numbers_of(claim, keys), claim.details.get("num_keys")
    if numbers is None:
        return Finding(
            "batches",
            False,
            f"batches {shown(claim.details.get('batches'))} are not whole batches that a use of this KeySet may ask",
        )
    if not keys.test.fits(int(used or 0), len(numbers)):
        return Finding(
            "batches", False, f"the claim rests on {used} keys, and its batches hold {len(numbers)}: a part was chosen"
        )
    said = f"the claim rests on whole batches, {len(claim.details['batches'])} of {len(keys.batches)}"
    ways = choices(keys.header)
    return Finding(
        "batches",
        True,
        said if ways == 1 else f"{said}; which was the claimant's choice among {ways}, so the p-value is multiplied by {ways}",
    )


def unpaid_choices(claim: Detection, keys: Revealed) -> float:
    """Return what is still to be added to a record's log10 p for the choice of batches; earlier versions left it out."""
    return 0.0 if "choices" in claim.details else math.log10(choices(keys.header))


def check_number(claim: Detection, keys: Revealed, evidence: Evidence) -> Finding:
    """Compute the number again from the answers that the claimant shows."""
    if evidence.answers is None:
        if evidence.asked is not None:
            return Finding("number", True, "the claimant's answers are not at hand; the number is that of asking again")
        return Finding("number", None, "the model's answers are not at hand; give them, or ask the model again (--ask)")
    try:
        answers, log10_p, details = computed(claim, keys, evidence.answers)
    except TaggantError as error:
        return Finding("number", False, str(error))
    said = f"from the answers log10 p is {log10_p:.4f}; the claim says {claim.log10_p:.4f}"
    if not math.isclose(log10_p, claim.log10_p + unpaid_choices(claim, keys), rel_tol=1e-9, abs_tol=1e-9) and log10_p < 0:
        return Finding("number", False, said)
    lacking, refused = incomplete(answers, keys.test.places), sum(a.labels is None for a in answers)
    ways = choices(keys.header) if "choices" in claim.details else 1
    expected = {**details, "incomplete": lacking, "refused": refused}
    if "choices" in claim.details:
        expected["choices"] = ways
    changed = [name for name, value in expected.items() if claim.details.get(name) != value]
    if changed or claim.validity != validity(keys.test, incomplete=lacking, ways=ways):
        return Finding(
            "number", False, f"{said}, but of the record {', '.join(changed) or 'validity'} does not follow from the answers"
        )
    word = () if evidence.asked is not None else ("these are the model's answers: ask it yourself (--ask)",)
    return Finding("number", True, said, word=word)


def computed(claim: Detection, keys: Revealed, rankings: Rankings) -> tuple[list[Answer], float, dict[str, Any]]:
    """Run the KeySet's test on rankings.

    Returns:
        The answers, log10 p with the choice of batches paid for, and the test's details.

    Raises:
        TaggantError: If the keys of the claim's batches are not revealed, or the rankings are none.
    """
    numbers = numbers_of(claim, keys)
    if numbers is None or not set(numbers[: len(rankings)]) <= set(keys.labels):
        raise TaggantError("the keys of the claim's batches are not revealed")
    asked = numbers[: len(rankings)] if keys.test.may_stop_early else numbers
    answers = [Answer(i, None if labels is None else tuple(labels)) for i, labels in enumerate(rankings)]
    labels = np.array([keys.labels[number] for number in asked], dtype=np.int64)
    outcome = keys.test.evaluate(key_ranks(answers, labels, keys.header["num_classes"]))
    return answers, paid(outcome.log10_p, choices(keys.header)), outcome.details


def check_asked(claim: Detection, keys: Revealed, evidence: Evidence) -> tuple[Finding, float]:
    """Compare the verifier's own asking with the claim.

    Returns:
        The finding, and log10 p of the weaker of the two.
    """
    stated = min(0.0, claim.log10_p + unpaid_choices(claim, keys))
    if evidence.asked is None:
        said = "the model was not asked; what it answers is known from the claimant alone"
        return Finding("asked again", True, said, note=True), stated
    own = evidence.asked
    recorded = claim.provenance.get("identity") or {}
    for name, value in own.identity.items():
        if recorded.get(name) not in (None, value):
            return Finding(
                "asked again", False, f"{name} is {shown(value)}, and the claim is on {shown(recorded[name])}"
            ), stated
    try:
        _, log10_p, details = computed(claim, keys, own.answers)
    except TaggantError as error:
        return Finding("asked again", False, str(error)), stated
    places, looked_at = keys.test.places, own.answers[: int(details["num_keys"])]
    differ = None if evidence.answers is None else _different(looked_at, evidence.answers, places)
    said = f"asked again the model hits {details['hits']} of {details['num_keys']} keys, log10 p {log10_p:.4f}"
    if differ:
        said += f"; {differ} answers differ from those that the claimant shows, and the weaker number counts"
    elif differ == 0:
        said += f"; every answer is the claimant's at the {places} places that the test looks at"
    word: list[str] = []
    if not any(recorded.get(name) for name in own.identity):
        word.append("this is the model that the claim is about: its record does not identify it")
    if own.settings != (claim.provenance.get("settings") or {}):
        said += f"; with other settings, {own.settings}"
    return Finding("asked again", True, said, word=tuple(word)), max(stated, log10_p)


def _different(own: Rankings, shown: Rankings, places: int) -> int:
    """Count the answers that differ at the places that a test looks at, those that one side lacks among them."""

    def first(answer: Sequence[int | None] | None) -> tuple[int | None, ...] | None:
        return None if answer is None else tuple(answer[:places])

    common = sum(first(a) != first(b) for a, b in zip(own, shown, strict=False))
    return common + abs(len(own) - len(shown))

"""The sentences that a person needs beside the figures."""

import math

from taggant_lightning.evidence.record import MEANING, Detection
from taggant_lightning.statistics.tests import SignificanceTest, read_test


def upper_bound(log10_p: float) -> str:
    """Return a p-value as text that survives underflow, for instance `10^-8.0` or `0.62`.

    Rounded up, never to the nearest: it stands behind `p ≤`, and must not claim more than was found.
    """
    if log10_p <= -3:
        return f"10^{math.ceil(log10_p * 10 - 1e-9) / 10:.1f}"
    value = 10**log10_p
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{min(1.0, math.ceil(value / unit - 1e-9) * unit):.2g}"


def finding(name: str, detection: Detection) -> str:
    """Return one sentence on one tested model."""
    d = detection.details
    if one_answer(detection):
        return (
            f"{name} answered every key and every decoy alike: the queries do not reach this model (another scale or size of "
            "images, a wrong mapping of its fields, a file without its weights), so what follows is no verdict on it."
        )
    return f"{test_of(detection).found(name, d)}: p ≤ {upper_bound(detection.log10_p)}."


def test_of(detection: Detection) -> SignificanceTest:
    """Return the test of a record."""
    return read_test(detection.details["test"], detection.details["num_classes"])


def one_answer(detection: Detection) -> bool:
    """Return whether all queries, decoys included, got the same answer: the record is then no verdict on the model."""
    checks = detection.provenance.get("checks")
    return isinstance(checks, dict) and checks.get("one_answer") is True


def shortcomings(detection: Detection) -> list[str]:
    """Return a sentence for each thing that makes the p-value conservative, or unfit for a claim."""
    d, lines = detection.details, []
    if d.get("refused"):
        lines.append(
            f"{d['refused']} keys got no usable answer (a refusal, NaN, or none at all); they count against the claimant."
        )
    if d.get("incomplete", 0) > d.get("refused", 0):
        lines.append(
            f"{d['incomplete'] - d.get('refused', 0)} answers name fewer of the owner's classes than the test looks at; what "
            "they leave out counts against the claimant."
        )
    if test_of(detection).bounds_only:
        lines.append("A number that holds whenever the test stops bounds the probability from above.")
    if detection.validity == "conservative":
        lines.append("So the p-value is conservative: the true one is no larger.")
    if d.get("keys_in_batches", d["num_keys"]) > d["num_keys"]:
        lines.append(f"The test stopped after {d['num_keys']} of {d['keys_in_batches']} keys, as it was fixed beforehand.")
    if d.get("demo_only"):
        lines.append("The keys come from a secret that anybody can guess: good for a story, refused for a claim.")
    return lines


def strength(log10_p: float) -> str:
    """Return how much a p-value says, in plain words that somebody can repeat who knows no statistics.

    Args:
        log10_p: Of the corrected p-value, at most 0.
    """
    if log10_p <= -3:
        word = "Very strong" if log10_p <= -6 else "Strong"
        often = f"{10 ** int(-log10_p + 1e-9):,}" if log10_p > -10 else f"10^{int(-log10_p + 1e-9)}"
        return f"{word} evidence: of models that owe nothing to the keys, at most one in {often} does as well."
    per_mille = min(1000, math.ceil(1000 * 10**log10_p - 1e-9))
    often = f"of models that owe nothing to the keys, up to {per_mille} in 1,000 do as well."
    if per_mille == 1000:
        return "No evidence: chance explains this."
    if log10_p <= math.log10(0.05):
        return f"Weak evidence, too weak for a claim (which needs p ≤ 0.001): {often}"
    return f"No evidence: chance explains this; {often}"


def meaning() -> str:
    """Return what a p-value means here and what it does not."""
    return (
        f"A p-value here is {MEANING}.\n"
        "It is not the probability that the model's owner is innocent. Fine-tuning or distilling a model that was trained\n"
        "on the release raises hits too; training on the unsigned originals does not."
    )


def visibility(eps_steps: int, psnr: float) -> str:
    """Return one honest sentence on how visible the perturbation is.

    Args:
        eps_steps: Bound, n of n/255.
        psnr: Mean peak signal-to-noise ratio of the signed images in dB.
    """
    if eps_steps <= 8 and psnr >= 35:
        word = "hard to see"
    elif eps_steps <= 16 and psnr >= 27:
        word = "faintly visible"
    else:
        word = "plainly visible"
    return f"The perturbation (at most {eps_steps}/255, PSNR {psnr:.1f} dB) is {word} on these images."

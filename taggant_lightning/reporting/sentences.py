"""The sentences that a person needs beside the figures."""

import math

from taggant_lightning.evidence.record import MEANING, Detection


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
    expected = d["num_keys"] * d["rate"]
    answer = f"{name} answered {d['hits']} of {d['num_keys']} keys with the key's label in its top {d['top_k']}"
    return f"{answer} ({expected:g} expected by chance): p ≤ {upper_bound(detection.log10_p)}."


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

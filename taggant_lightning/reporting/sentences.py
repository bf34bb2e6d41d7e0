"""The sentences that a person needs beside the figures."""

from taggant_lightning.evidence.record import MEANING, Detection


def power(log10_p: float) -> str:
    """Return a p-value in words that survive underflow, for instance `10^-8.0` or `0.61`."""
    return f"{10**log10_p:.2g}" if log10_p > -3 else f"10^{log10_p:.1f}"


def finding(name: str, detection: Detection) -> str:
    """Return one sentence on one tested model."""
    d = detection.details
    expected = d["num_keys"] * d["rate"]
    answer = f"{name} answered {d['hits']} of {d['num_keys']} keys with the key's label in its top {d['top_k']}"
    return f"{answer} ({expected:g} expected by chance): p ≤ {power(detection.log10_p)}."


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

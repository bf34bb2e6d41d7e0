"""Verifying somebody's claim: was it fixed before the release, is it whole, is the number right, and what does it come to?

The threat is grinding: after the model has answered, a claimant could try secrets, key images, tests, batches, preprocessing or
parts of a KeySet until some fit. So a claim stands on one commitment, published before the release that names it, and on
everything that it binds; what nothing can show is listed as the claimant's word.
"""

import math

from taggant_lightning.evidence.record import Detection
from taggant_lightning.methods.taggants.reveal import Revealed
from taggant_lightning.verdict.claim_checks import (
    check_asked,
    check_batches,
    check_images,
    check_keys,
    check_number,
    check_record,
    check_secret,
    check_test,
)
from taggant_lightning.verdict.claim_history import (
    check_choice,
    check_ledger,
    check_manifests,
    check_order,
    check_spent,
    published,
)
from taggant_lightning.verdict.findings import Evidence, Finding, Verification

ROUNDING = 1e-9  # the accuracy that log10 p is computed to: a p-value equal to the level holds


def verify_claim(claim: Detection, keys: Revealed, evidence: Evidence) -> Verification:
    """Check a claim.

    Args:
        claim: The public record.
        keys: The revealed keys, already checked against their secret or their paths.
        evidence: What else is known.

    Returns:
        Everything that was looked at, failures included; nothing is raised for a claim that does not hold.
    """
    asked, log10_p = check_asked(claim, keys, evidence)
    corrected, of_ledger = check_ledger(claim, evidence, log10_p, max(1, len(published(evidence.manifests))))
    findings = [
        check_keys(claim, keys),
        check_secret(keys),
        check_choice(keys, evidence),
        check_images(keys, evidence),
        check_record(claim, keys),
        check_test(claim, keys),
        check_batches(claim, keys),
        check_number(claim, keys, evidence),
        asked,
        check_manifests(keys, evidence.manifests),
        check_order("commitment before release", ("the commitment", evidence.committed), ("the release", evidence.released)),
        check_order("release before model", ("the release", evidence.released), ("the model", evidence.first_seen)),
        check_spent(claim, evidence),
        *of_ledger,
        Finding(
            "significance",
            corrected <= math.log10(evidence.level) + ROUNDING,
            f"the corrected log10 p is {corrected:.2f}; the level is {evidence.level:g}",
        ),
    ]
    holds = all(finding.holds is True for finding in findings)
    return Verification(findings, claim.log10_p, corrected, holds, evidence.asked is not None)

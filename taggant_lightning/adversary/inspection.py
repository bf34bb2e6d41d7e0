"""What the owner adds to a suspicious user's search: which images are signed, and how many of them it finds."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.adversary.detectors import NOISE
from taggant_lightning.adversary.roc import Roc, area, found_at, roc
from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.errors import TaggantError
from taggant_lightning.release.signature import Signature, pixel_digest
from taggant_lightning.release.traces import high_frequency_energy
from taggant_lightning.release.writing import Progress, quiet

# No index: which images are signed is a secret.
OTHER = (
    "truth: the data's images are not those that the Signature changes, in its order; write the configuration of the data that "
    "were signed, with --data SignedDataModule --data.signature DIR"
)
RATES = {"found_at_1": 0.01, "found_at_5": 0.05}


class Truth(NamedTuple):
    """Which images are signed. A secret.

    Attributes:
        signed: (N,) bool, over the images in use; signed images that came out unchanged are none.
        applied: Whether the data holds the signed images; otherwise their originals, which makes a control: what sets these
            images apart before anything is done to them.
    """

    signed: NDArray[np.bool_]
    applied: bool


def truth(data: ImageDataModule, signature: Signature) -> Truth:
    """Find the signed images among those in use, and check pixel by pixel that they are there.

    Args:
        data: What was published, or its originals.
        signature: What its owner changed.

    Raises:
        TaggantError: If the data are others, or none of the images in use is signed, or all are.
    """
    source, in_use = data.train_source, set(data.train_indices.tolist())
    chosen, applied = [], 0
    if len(signature) and int(signature.indices.max()) >= len(source):  # the release of a subset numbers its images anew
        raise TaggantError(OTHER)
    for position, (index, steps) in enumerate(zip(signature.indices.tolist(), signature.steps, strict=True)):
        if index not in in_use or not np.any(steps):
            continue
        pixels, wanted = source.pixels(index), signature.originals[position]
        chosen.append(index)
        if pixels.shape == steps.shape and pixel_digest((pixels.astype(np.int16) - steps).astype(np.uint8)) == wanted:
            applied += 1
        elif pixel_digest(pixels) != wanted:
            raise TaggantError(OTHER)
    if applied not in (0, len(chosen)):
        raise TaggantError(
            f"truth: {applied} of {len(chosen)} images are signed in the data; inspect the whole release or none"
        )
    if not 0 < len(chosen) < len(in_use):
        raise TaggantError(
            f"truth: {len(chosen)} of the {len(in_use)} images in use are signed, and a search wants signed and unsigned ones; "
            "write the train_subset and subset_seed of signing"
        )
    return Truth(np.isin(data.train_indices, chosen), applied > 0)


def measure(scores: dict[str, NDArray[np.float64]], signed: NDArray[np.bool_]) -> tuple[dict[str, float], dict[str, Roc]]:
    """Return how well each detector finds the signed images.

    Args:
        scores: (N,) suspicion by detector.
        signed: (N,) which images are signed.

    Returns:
        Figures: for each detector `_auc`, `_found_at_1` and `_found_at_5` (shares of signed images above the threshold that 1
        and 5 % of unsigned ones pass); of DBSCAN's own verdict `dbscan_noise_found` and `dbscan_noise_false_positives`;
        `signed_share`. And the curves by detector.
    """
    figures, curves = {"signed_share": float(signed.mean())}, {}
    for name, values in scores.items():
        found, others = values[signed], values[~signed]
        figures[f"{name}_auc"] = area(found, others)
        figures |= {f"{name}_{what}": found_at(found, others, rate) for what, rate in RATES.items()}
        curves[name] = roc(found, others)
        if name == "dbscan":
            figures["dbscan_noise_found"] = float((found > NOISE).mean())
            figures["dbscan_noise_false_positives"] = float((others > NOISE).mean())
    return figures, curves


def energies(data: ImageDataModule, progress: Progress = quiet) -> NDArray[np.float64]:
    """Return the high-frequency energy (N,) of the images in use, as stored."""
    found = []
    for place, index in enumerate(data.train_indices.tolist()):
        found.append(high_frequency_energy(data.train_source.pixels(index)))
        progress("pixels", place + 1, len(data.train_indices))
    return np.array(found)

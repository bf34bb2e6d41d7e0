"""A forged claim: 100,000 honest secrets are tried against a clean model, the best is claimed, and verification looks at it.

    PYTHONPATH=. TAGGANT_DATA=… python benchmarks/grinding.py --json experiments/grinding/results.json

No release was ever signed. The model is a small CNN trained on the original CIFAR-100 images; it is asked in memory, and a
served copy is asked over HTTP for the winner, and for a sample that must be answered alike. Then `taggant keys verify --claim`
sees the forged claim as an attacker might dress it up. Last, what grinding *before* a commitment would reach: the best secrets,
and labels chosen outright, against clean models of other seeds.
"""

import argparse
import contextlib
import hashlib
import io
import json
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import CIFAR, EPOCHS, train, write_figures
from numpy.typing import NDArray
from service import serve

from taggant_lightning import ImageClassifier, ImageDataModule, KeySet
from taggant_lightning.access.answer import Query
from taggant_lightning.access.services.journal import Journal
from taggant_lightning.access.services.service import Service
from taggant_lightning.cli import main as taggant
from taggant_lightning.data.dataset import to_float
from taggant_lightning.data.resize import fit
from taggant_lightning.evidence.record import Detection
from taggant_lightning.files import write_json
from taggant_lightning.statistics import binomial_log10_p
from tests.control import control
from tests.manifests import whole_manifest

NUM_KEYS, NUM_CLASSES, TOP_K, SIZE, BLOCK, MODEL = 10, 100, 10, 16, 400, "small_cnn"


def secret_of(number: int) -> bytes:
    """Return one of the attacker's secrets."""
    return hashlib.sha256(f"grinding {number}".encode()).digest()  # one that was typed would be refused


def draw(number: int) -> KeySet:
    """Draw the KeySet of one secret, as anybody would."""
    return KeySet.draw(
        num_keys=NUM_KEYS, num_classes=NUM_CLASSES, shape=(3, 32, 32), grid=4, top_k=TOP_K, secret=secret_of(number)
    )


def clean_model(seed: int, data: ImageDataModule, weights: Path | None, epochs: int = EPOCHS) -> ImageClassifier:
    """Train a clean model, or read its weights where an earlier run has left them."""
    if weights is not None and (path := weights / f"clean-{seed}.pt").exists():
        model = ImageClassifier(MODEL, num_classes=NUM_CLASSES, image_size=SIZE, channels=3)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    model = train(MODEL, seed, data, epochs=epochs)
    if weights is not None:
        weights.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), weights / f"clean-{seed}.pt")
    return model


def first_classes(model: ImageClassifier, images: NDArray[np.uint8], places: int = TOP_K) -> NDArray[np.int64]:
    """Return the first classes of each image, (N, places)."""
    with torch.no_grad():
        logits = model(fit(to_float(images), SIZE))
    # Stable, so that equal scores go to the lowest class, as everywhere.
    return np.argsort(-logits.numpy(), axis=1, kind="stable")[:, :places]


def hits_of(model: ImageClassifier, keys: list[KeySet]) -> list[int]:
    """Return the hits of several KeySets, asked in one pass."""
    answers = first_classes(model, np.concatenate([k.images for k in keys])).reshape(len(keys), NUM_KEYS, TOP_K)
    labels = np.stack([k.labels for k in keys])
    return (answers == labels[:, :, None]).any(-1).sum(-1).tolist()  # type: ignore[no-any-return]  # numpy types tolist as Any


def grind(model: ImageClassifier, secrets: int) -> tuple[list[int], list[int]]:
    """Try all secrets; return hits by number, and the numbers of the twenty best."""
    found: list[int] = []
    begun = time.monotonic()
    for first in range(0, secrets, BLOCK):
        found += hits_of(model, [draw(n) for n in range(first, min(first + BLOCK, secrets))])
        if first // BLOCK % 25 == 0:
            print(f"{len(found)} secrets, best {max(found)} hits, {time.monotonic() - begun:.0f} s", flush=True)
    return found, sorted(range(secrets), key=lambda n: -found[n])[:20]


def asked_over_http(model: ImageClassifier, sets: int) -> dict[str, int]:
    """Ask a served copy the keys of some secrets one by one; count whole rankings that differ from those in memory."""
    images = np.concatenate([draw(n).images for n in range(sets)])
    in_memory = first_classes(model, images, NUM_CLASSES)

    def respond(image: NDArray[np.uint8]) -> dict[str, Any]:
        return {"labels": first_classes(model, image[None], NUM_CLASSES)[0].tolist()}

    with tempfile.TemporaryDirectory() as name, serve(respond) as service:
        journal = Journal(Path(name) / "secret" / "answers.jsonl", {})
        Service(service.url).ask([Query(f"{i:05}", image) for i, image in enumerate(images)], journal)
        differ = sum(journal.answers[f"{i:05}"].labels != tuple(row.tolist()) for i, row in enumerate(in_memory))
    return {"queries": len(images), "different_rankings": differ}


def verdicts(model: ImageClassifier, number: int) -> list[dict[str, Any]]:
    """Claim the winner over HTTP, and verify the claim as an attacker might dress it up."""

    def respond(image: NDArray[np.uint8]) -> dict[str, Any]:
        return {"labels": first_classes(model, image[None])[0].tolist()}

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, serve(respond) as service:
        folder = Path(name)
        keys = draw(number)
        keys.save(folder / "keys")
        with contextlib.redirect_stdout(io.StringIO()):
            taggant(["detect", "--keys", str(folder / "keys"), "--url", service.url, "--out", str(folder / "run")])
        claim = Detection.load(folder / "run" / "detection.json")
        own = whole_manifest(keys)
        other, none = {**own, "commitment": "00" * 32}, {**own, "commitment": None}
        early, late = "2026-01-01", "2026-09-01"
        fewer = {**claim.details, "num_keys": claim.details["hits"]}
        top_k = {**claim.details, "test": {"name": "binomial_top_k", "top_k": 20}, "top_k": 20, "rate": 0.2}
        whole = [{**own, "commitment": [keys.commitment, *(f"{n:064x}" for n in range(1, 100_000))]}]
        cases: list[tuple[str, Detection, list[dict[str, Any]], str]] = [
            ("the release names no commitment", claim, [none], early),
            ("the release names another commitment", claim, [other], early),
            ("the commitment is later than the release", claim, [own], late),
            ("all 100,000 commitments were published before", claim, whole, early),
            ("a second commitment was published", claim, [own, other], early),
            ("another k, after the answers", replace(claim, details=top_k), [own], early),
            ("only the keys that hit", replace(claim, details=fewer, log10_p=-NUM_KEYS / 2), [own], early),
        ]
        for said, bent, manifests, committed in cases:
            write_json(folder / "claim.json", asdict(bent))
            words = ["keys", "verify", str(folder / "keys"), "--claim", str(folder / "claim.json"), "--committed", committed]
            for place, manifest in enumerate(manifests):
                write_json(folder / f"manifest-{place}.json", manifest)
                words += ["--manifest", str(folder / f"manifest-{place}.json")]
            words += ["--answers", str(folder / "run" / "secret" / "detection.secret.json")]
            words += ["--released", "2026-06-01", "--first-seen", "2026-08-01"]
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
                code = taggant(words)
            failing = [line for line in out.getvalue().splitlines() if line.startswith(("FAILS", "unknown"))]
            corrected = next(line for line in out.getvalue().splitlines() if "significance" in line)
            # 3: nothing speaks against the claim, and its answers are the attacker's word; asking the model confirms them here.
            rows.append({"attack": said, "verifies": code in (0, 3), "failing": failing, "significance": corrected})
            print(f"{said}: {'STANDS' if code in (0, 3) else 'rejected'}; {'; '.join(failing)}; {corrected}", flush=True)
        rows.append({"attack": "the claim itself", "hits": claim.details["hits"], "log10_p": claim.log10_p})
    return rows


def before_commitment(model: ImageClassifier, others: list[ImageClassifier], best: list[int]) -> dict[str, Any]:
    """Return what a claimant reaches who grinds against her own clean model and then meets other clean models."""
    chosen = [draw(n) for n in best]
    fresh = np.concatenate([draw(10_000_000 + n).images for n in range(50)])
    own = first_classes(model, fresh)[:, 0]
    return {
        "hits_of_the_best_on_the_attackers_model": hits_of(model, chosen),
        "hits_of_the_best_on_other_clean_models": [hits_of(other, chosen) for other in others],
        # Labels that were chosen, not drawn: the limit of what grinding without end would reach.
        "share_of_top_1_among_the_first_k_of_others": [
            float((first_classes(other, fresh) == own[:, None]).any(1).mean()) for other in others
        ],
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secrets", type=int, default=100_000)
    parser.add_argument("--served", type=int, default=30, help="secrets whose keys are asked over HTTP too, ten queries each")
    parser.add_argument("--others", type=int, default=3, help="further clean models")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of all models, fewer for a quick form")
    parser.add_argument("--weights", type=Path, help="folder that keeps the clean models")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    data = ImageDataModule(**CIFAR, augment="simple", seed=140)
    model, *others = [clean_model(140 + n, data, arguments.weights, arguments.epochs) for n in range(1 + arguments.others)]
    begun = time.monotonic()
    found, best = grind(model, arguments.secrets)
    seconds = time.monotonic() - begun
    top = max(found)
    fit_p = control(found, NUM_KEYS, TOP_K / NUM_CLASSES, bins=20)
    print(
        f"best {top} of {NUM_KEYS}, raw log10 p {binomial_log10_p(top, NUM_KEYS, TOP_K / NUM_CLASSES):.2f}; fit p = {fit_p:.2f}"
    )
    figures: dict[str, Any] = {
        "secrets": arguments.secrets,
        "seconds": seconds,
        "hits": dict(sorted(Counter(found).items())),
        "goodness_of_fit_p": fit_p,
        "best_hits": top,
        "best_log10_p": binomial_log10_p(top, NUM_KEYS, TOP_K / NUM_CLASSES),
    }
    # Whatever comes after the long part adds to what is written already.
    for part, made in {
        "served": lambda: asked_over_http(model, arguments.served),
        "claims": lambda: verdicts(model, best[0]),
        "before_commitment": lambda: before_commitment(model, others, best),
    }.items():
        if arguments.json:
            write_figures(arguments.json, figures)
        figures[part] = made()
    print(json.dumps(figures["served"]))
    print(json.dumps(figures["before_commitment"]))
    if arguments.json:
        write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()

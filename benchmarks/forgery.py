"""False accusations: what a hostile claimant reaches, and what verification says of it.

    PYTHONPATH=. python benchmarks/forgery.py --json experiments/forgery/results.json

Every suspect is innocent: its answers are drawn without the labels. First each attack by itself: how far it gets once answers
are known, and how verification ends. Then a claimant who uses every freedom that verification leaves her at once (batches,
suspects, looks, two published commitments), in many worlds: her smallest corrected p-value must be valid.
"""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from common import write_figures

from taggant_lightning import KeySet
from taggant_lightning.access.answer import Answer
from taggant_lightning.evidence.moments import date
from taggant_lightning.evidence.record import Detection
from taggant_lightning.files import canonical_json, sha256_hex
from taggant_lightning.methods.taggants.batches import admissible
from taggant_lightning.methods.taggants.reveal import Revealed
from taggant_lightning.statistics import binomial_log10_p
from taggant_lightning.verdict.claims import verify_claim
from taggant_lightning.verdict.findings import Asked, Evidence, Verification
from taggant_lightning.verdict.verdict import incomplete_answers, judge, ranks_of
from tests.manifests import whole_manifest

CLASSES, TOP_K = 20, 2
LEVELS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5)
DAYS = {
    name: date(day, name) for name, day in (("committed", "2026-01-01"), ("released", "2026-02-01"), ("seen", "2026-03-01"))
}


class World:
    """A KeySet, its ledger, and an innocent model's answers.

    Args:
        seed: Of the secret and of the models.
        more: For `KeySet.draw`.
    """

    def __init__(self, seed: int, **more: Any) -> None:
        secret = sha256_hex(f"forgery {seed}".encode())
        arguments = {"num_keys": 12, "batches": [3] * 4, "num_classes": CLASSES, "shape": (1, 1, 1), "top_k": TOP_K, **more}
        self.keys = KeySet.draw(**arguments, secret=bytes.fromhex(secret))
        self.entries: list[dict[str, Any]] = []

    def enter(self, kind: str, **facts: Any) -> dict[str, Any]:
        """Append to the ledger."""
        entry = {"number": len(self.entries), "time": "2026-04-01T00:00:00+00:00", "kind": kind, **facts}
        entry["previous"] = self.entries[-1]["hash"] if self.entries else self.keys.commitment
        entry["hash"] = sha256_hex(canonical_json(entry))
        self.entries.append(entry)
        return entry

    def answers(self, model: int, batches: Sequence[int]) -> list[Answer]:
        """Return an innocent model's answers to the keys of some batches."""
        return [Answer(place, self._ranking(model, number)) for place, number in enumerate(self.keys.numbers(batches))]

    def _ranking(self, model: int, number: int) -> tuple[int, ...]:
        return tuple(np.random.default_rng([model, number]).permutation(CLASSES)[:TOP_K].tolist())

    def claim(self, model: int, batches: Sequence[int], answers: Sequence[Answer] | None = None, **facts: Any) -> Detection:
        """Enter a use and conclude on it."""
        given = self.answers(model, batches) if answers is None else list(answers)
        entry = self.enter("use", suspect=f"model {model}", batches=list(batches), access="url", **facts)
        origin = {"suspect": f"model {model}", "ledger": {"entry": entry["number"], "head": entry["hash"]}, **facts}
        lacking = incomplete_answers(given, self.keys)
        found = judge(ranks_of(given, self.keys, batches), self.keys, origin, batches=batches, incomplete=lacking)
        self.enter("result", use=entry["number"], log10_p=found.log10_p, detection="")
        return found

    def verify(self, claim: Detection, answers: Sequence[Answer], **more: Any) -> Verification:
        """Verify a claim as a third party with everything that a claimant hands over."""
        given = {
            "answers": [a.labels for a in answers],
            "manifests": [whole_manifest(self.keys)],
            "committed": DAYS["committed"],
            "released": DAYS["released"],
            "first_seen": DAYS["seen"],
            "ledger": self.entries,
        }
        return verify_claim(claim, Revealed.of(self.keys), Evidence(**{**given, **more}))

    def hits(self, model: int) -> list[bool]:
        """Return which keys a model hits, in order."""
        return [int(label) in self._ranking(model, number) for number, label in enumerate(self.keys.labels)]

    def windows(self) -> list[list[int]]:
        """Return every run of batches that a use may ask."""
        count = len(self.keys.batches)
        runs = [list(range(a, e)) for a in range(count) for e in range(a + 1, count + 1)]
        return [run for run in runs if admissible(self.keys.header, run)]


def ending(found: Verification) -> str:
    """Say in a few words how a verification ended."""
    wrong = [finding.name for finding in found.findings if finding.holds is not True]
    if wrong:
        return f"does not verify: {', '.join(wrong)}"
    if found.asked:
        return "verifies"
    return "nothing speaks against it (exit 3): " + "; ".join(w for w in found.words if "answers" in w or "chosen" in w)


def window(world: World) -> tuple[float, str]:
    """Conclude on the best run of batches after looking at all answers."""

    def raw(batches: Sequence[int], hits: Sequence[bool]) -> float:
        flags = [hits[number] for number in world.keys.numbers(batches)]
        return binomial_log10_p(sum(flags), len(flags), world.keys.rate)

    best = min((raw(run, world.hits(model)), model, run) for model in range(20) for run in world.windows())
    claim = world.claim(best[1], best[2])
    return best[0], ending(world.verify(claim, world.answers(best[1], best[2])))


def looks(world: World) -> tuple[float, str]:
    """Look at 40 checkpoints, and test the luckiest: every look stands in the ledger."""
    batches = list(range(len(world.keys.batches)))
    found = []
    for model in range(40):
        world.enter("look", suspect=f"epoch {model}", batches=batches)
        found.append((binomial_log10_p(sum(world.hits(model)), len(world.keys), world.keys.rate), model))
    raw, model = min(found)
    return raw, ending(world.verify(world.claim(model, batches), world.answers(model, batches)))


def untied(world: World) -> tuple[float, str]:
    """Reveals of format v1 with several batches: labels that were chosen one batch after another."""
    batches = list(range(len(world.keys.batches)))
    answers = _right(world)
    claim = world.claim(0, batches, answers)
    found = verify_claim(
        claim,
        replace(Revealed.of(world.keys), tied=False),
        Evidence(
            answers=[a.labels for a in answers],
            manifests=[whole_manifest(world.keys)],
            committed=DAYS["committed"],
            released=DAYS["released"],
            first_seen=DAYS["seen"],
            ledger=world.entries,
        ),
    )
    return claim.log10_p, ending(found)


def _right(world: World) -> list[Answer]:
    """Return answers that hit every key."""
    return [Answer(i, (int(label), (int(label) + 1) % CLASSES)) for i, label in enumerate(world.keys.labels)]


def fabricated(world: World, asked: bool) -> tuple[float, str]:
    """Show answers that no model gave; then the verifier asks the model herself."""
    batches = list(range(len(world.keys.batches)))
    claim = world.claim(0, batches, _right(world))
    own = Asked([a.labels for a in world.answers(0, batches)], {"url": "https://model.example"}, {})
    return claim.log10_p, ending(world.verify(claim, _right(world), asked=own if asked else None))


def preprocessing(world: World, asked: bool) -> tuple[float, str]:
    """Choose the mean that an innocent model's answers fit best; asked again without, the model hits what chance gives."""
    batches = list(range(len(world.keys.batches)))
    tried = [(binomial_log10_p(sum(world.hits(s)), len(world.keys), world.keys.rate), s) for s in range(20_000)]
    raw, setting = min(tried)
    settings = {"mean": [setting / 20_000]}
    claim = world.claim(setting, batches, settings=settings)
    own = Asked([a.labels for a in world.answers(7, batches)], {"file_sha256": "ab" * 32}, {})
    return raw, ending(world.verify(claim, world.answers(setting, batches), asked=own if asked else None))


def rewritten(world: World) -> tuple[float, str]:
    """Write the ledger anew without the uses that failed; the head that the release published is missing in it."""
    batches = list(range(len(world.keys.batches)))
    for model in range(10):
        world.claim(model, batches)
    head, world.entries = world.entries[3]["hash"], []
    world.claim(0, batches)
    missing = head not in {entry["hash"] for entry in world.entries}
    return 0.0, "refused: the ledger does not hold the published head" if missing else "verifies"


def demonstration(world: World) -> tuple[float, str]:
    """Claim on keys that anybody can draw."""
    batches = list(range(len(world.keys.batches)))
    return world.claim(0, batches, _right(world)).log10_p, ending(
        world.verify(world.claim(0, batches, _right(world)), _right(world))
    )


ATTACKS: dict[str, tuple[Callable[[], tuple[float, str]], str]] = {
    "best run of batches, v1 keys of 60 one-key batches": (
        lambda: window(World(1, version=1, num_keys=60, batches=[1] * 60)),
        "batches",
    ),
    "best run of batches, v2 keys of 60 one-key batches": (lambda: window(World(1, num_keys=60, batches=[1] * 60)), "batches"),
    "the luckiest of 40 checkpoints looked at": (lambda: looks(World(2)), "looks"),
    "batch secrets chosen one by one (v1)": (lambda: untied(World(3, version=1)), "secrets"),
    "answers that no model gave": (lambda: fabricated(World(4), asked=False), "answers"),
    "answers that no model gave; the verifier asks": (lambda: fabricated(World(4), asked=True), "answers"),
    "the luckiest of 20,000 preprocessings": (lambda: preprocessing(World(5), asked=False), "settings"),
    "the luckiest of 20,000 preprocessings; the verifier asks": (lambda: preprocessing(World(5), asked=True), "settings"),
    "the ledger written anew, its head published": (lambda: rewritten(World(6)), "ledger"),
    "a demonstration's keys": (lambda: demonstration(World(7, demo_only=True)), "secret"),
}


def freest(seed: int, suspects: int, looks: int) -> float:
    """Return the smallest corrected log10 p of a claimant who uses all that is left open, in one world.

    She publishes two commitments for one dataset, looks at some models and asks others all keys, concludes on each with the
    batches that suit it best, and claims what is smallest in the end.
    """
    worlds = [World(2 * seed + c) for c in range(2)]
    manifests = [whole_manifest(world.keys) for world in worlds]
    smallest = 0.0
    for world in worlds:
        for look in range(looks):
            world.enter("look", suspect=f"look {look}", batches=[0, 1, 2, 3])
        claims = []
        for model in range(1000 * seed, 1000 * seed + suspects):
            hits = world.hits(model)
            best = min(world.windows(), key=lambda run: _raw(world, hits, run))
            claims.append((world.claim(model, best), world.answers(model, best)))
        for claim, answers in claims:
            found = world.verify(claim, answers, manifests=manifests)
            wrong = [f.name for f in found.findings if f.holds is not True and f.name != "significance"]
            if wrong:
                raise RuntimeError(f"an honest form was refused: {wrong}")
            smallest = min(smallest, found.corrected_log10_p)
    return smallest


def _raw(world: World, hits: Sequence[bool], run: Sequence[int]) -> float:
    flags = [hits[number] for number in world.keys.numbers(run)]
    return binomial_log10_p(sum(flags), len(flags), world.keys.rate)


def main() -> None:
    """Run the attacks and the Monte Carlo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=2000)
    parser.add_argument("--suspects", type=int, default=3)
    parser.add_argument("--looks", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=10_000)
    parser.add_argument("--json", required=True)
    arguments = parser.parse_args()
    rows = []
    for name, (attack, fails) in ATTACKS.items():
        reached, said = attack()
        rows.append({"attack": name, "raw_log10_p": round(reached, 2), "verification": said, "about": fails})
        print(f"{name}: raw log10 p {reached:.2f}; {said}", flush=True)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.worlds)
    found = np.array([freest(seed, arguments.suspects, arguments.looks) for seed in seeds])
    claims = arguments.worlds * arguments.suspects * 2
    shares = []
    for level in LEVELS:
        reached = int((found <= math.log10(level) + 1e-9).sum())
        excess = binomial_log10_p(reached, len(found), level)  # of a valid p-value: P[at least so many worlds]
        shares.append({"level": level, "worlds": reached, "share": reached / len(found), "log10_p_of_excess": round(excess, 3)})
        print(f"corrected p <= {level}: {reached} of {len(found)} worlds ({reached / len(found):.4f})", flush=True)
    write_figures(arguments.json, {"attacks": rows, "claims": claims, "worlds": arguments.worlds, "freest": shares})


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

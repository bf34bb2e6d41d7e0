"""Verification of claims: an honest one holds, and each way of bending it fails by the finding that is made for it."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taggant_lightning.access.answer import Answer
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger
from taggant_lightning.evidence.record import Detection
from taggant_lightning.taggants.claims import Evidence, Verification, date, verify_claim
from taggant_lightning.taggants.keys import KeySet
from taggant_lightning.taggants.reveal import Revealed, reveal
from taggant_lightning.taggants.verdict import detect, incomplete_answers, ranks_of

COMMITTED, RELEASED, SEEN = (date(f"2026-{month:02}-01", "test") for month in (1, 2, 6))


class Case:
    """A KeySet whose keys a model answers but for the last one, and the claim on it."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.keys = KeySet.draw(**{"num_keys": 8, "num_classes": 10, "shape": (1, 4, 4), "batches": [4, 4], **more})
        self.keys.save(folder / "keys")
        self.ledger = Ledger(folder / "keys", self.keys.commitment)
        self.answers = [
            [(int(label) + (i == len(self.keys) - 1) + j) % 10 for j in range(10)] for i, label in enumerate(self.keys.labels)
        ]

    def claim(self, batches: list[int] | None = None, suspect: str = "bob") -> Detection:
        numbers = self.keys.numbers(batches)
        answers = [Answer(i, tuple(self.answers[key])) for i, key in enumerate(numbers)]
        entry = self.ledger.append("use", suspect=suspect, batches=batches or [0, 1], access="url")
        origin = {"suspect": suspect, "ledger": {"entry": entry["number"], "head": entry["hash"]}}
        lacking = incomplete_answers(answers, self.keys)
        found = detect(ranks_of(answers, self.keys, batches), self.keys, origin, batches=batches, incomplete=lacking)
        self.ledger.append("result", use=entry["number"], log10_p=found.log10_p, detection="")
        return found

    def evidence(self, **more: Any) -> Evidence:
        manifest = {"commitment": self.keys.commitment}
        given = {"answers": self.answers, "manifests": [manifest], "committed": COMMITTED, "released": RELEASED}
        return Evidence(**{**given, "first_seen": SEEN, "ledger": self.ledger.entries(), **more})

    def verify(self, claim: Detection, **more: Any) -> Verification:
        return verify_claim(claim, Revealed.of(self.keys), self.evidence(**more))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def failing(found: Verification) -> set[str]:
    return {finding.name for finding in found.findings if finding.holds is not True}


@pytest.mark.parametrize("test", ["binomial_top_k", "rank_score", "sequential_top_k"])
def test_an_honest_claim_holds(tmp_path: Path, test: str) -> None:
    case = Case(tmp_path, test=test)
    claim = case.claim()
    found = case.verify(claim)
    assert failing(found) == set()
    assert found.holds
    assert found.corrected_log10_p == pytest.approx(claim.log10_p)


def test_a_sequential_claim_may_have_stopped(tmp_path: Path) -> None:
    case = Case(tmp_path, test="sequential_top_k")
    answers = [Answer(i, tuple(case.answers[i])) for i in range(5)]
    entry = case.ledger.append("use", suspect="bob", batches=[0, 1], access="url")
    origin = {"suspect": "bob", "ledger": {"entry": entry["number"], "head": entry["hash"]}}
    claim = detect(ranks_of(answers, case.keys), case.keys, origin)
    case.ledger.append("result", use=entry["number"], log10_p=claim.log10_p, detection="")
    assert case.verify(claim, answers=case.answers[:5]).holds


def test_a_changed_k(case: Case) -> None:
    claim = case.claim()
    test = {"name": "binomial_top_k", "top_k": 2}
    found = case.verify(replace(claim, details={**claim.details, "test": test, "top_k": 2, "rate": 0.2}))
    assert {"test"} <= failing(found) <= {"test", "number"}


def test_a_subset_of_keys(case: Case) -> None:
    claim = case.claim()
    chosen = detect(np.ones(7, dtype=np.int64), case.keys, dict(claim.provenance))
    found = case.verify(chosen)
    assert {"batches", "number", "ledger"} <= failing(found)
    for batches in ([0, 2], [1, 0], [], "all", [0, 0], [-1]):
        bent = replace(claim, details={**claim.details, "batches": batches})
        assert "batches" in failing(case.verify(bent, ledger=None))


def test_half_the_keys_as_a_whole_batch(case: Case) -> None:
    claim = case.claim([0])
    assert case.verify(claim, answers=case.answers[:4]).holds
    # The same batch cannot borrow the answers of another one.
    assert "number" in failing(case.verify(claim, answers=case.answers[4:]))


def test_a_number_that_is_not_that_of_the_answers(case: Case) -> None:
    claim = replace(case.claim(), log10_p=-20.0)
    assert failing(case.verify(claim)) == {"number", "ledger", "record"}
    assert failing(case.verify(case.claim(), answers=None)) == {"number"}
    doubled = [[1, 1], *case.answers[1:]]
    assert failing(case.verify(case.claim(), answers=doubled)) == {"number"}
    assert failing(case.verify(case.claim(), answers=case.answers[:7])) == {"number"}


def test_commitment_absent(case: Case) -> None:
    claim = case.claim()
    for manifest in ({"commitment": None}, {"commitment": "00" * 32}, {}):
        found = case.verify(claim, manifests=[manifest])
        assert failing(found) == {"manifest"}
    assert failing(case.verify(claim, manifests=[])) == {"manifest"}


def test_commitment_after_the_release(case: Case) -> None:
    found = case.verify(case.claim(), committed=date("2026-02-02", "test"))
    assert failing(found) == {"commitment before release"}
    assert failing(case.verify(case.claim(), committed=None)) == {"commitment before release"}


def test_a_release_after_the_model(case: Case) -> None:
    assert failing(case.verify(case.claim(), first_seen=date("2026-01-31", "test"))) == {"release before model"}


def test_several_commitments_multiply(case: Case) -> None:
    claim, own = case.claim(), case.keys.commitment
    others = [{"commitment": f"{n:064x}"} for n in range(9)]
    found = case.verify(claim, manifests=[{"commitment": own}, *others])
    assert found.holds
    assert found.corrected_log10_p == pytest.approx(claim.log10_p + 1)
    listed = case.verify(claim, manifests=[{"commitment": [own, "00" * 32]}])
    assert listed.corrected_log10_p == pytest.approx(claim.log10_p + math.log10(2))
    # The same one twice is one.
    assert case.verify(claim, manifests=[{"commitment": own}] * 2).corrected_log10_p == pytest.approx(claim.log10_p)
    many = [{"commitment": f"{n:064x}"} for n in range(10**5)]
    assert failing(case.verify(claim, manifests=[{"commitment": own}, *many])) == {"significance"}


def test_other_uses_are_corrected_for(case: Case) -> None:
    for number in range(3):
        case.ledger.append("use", suspect=f"left off {number}", batches=[0, 1], access="url")
    claim = case.claim()
    found = case.verify(claim)
    assert found.holds
    assert found.corrected_log10_p == pytest.approx(claim.log10_p + math.log10(4))
    # A ledger without the claim, and a claim with another ledger's entry.
    assert "ledger" in failing(case.verify(claim, ledger=case.ledger.entries()[:3]))
    stranger = replace(claim, provenance={**claim.provenance, "ledger": {"entry": 0, "head": "00"}})
    assert "ledger" in failing(case.verify(stranger))
    assert {"ledger", "batches spent"} == failing(case.verify(claim, ledger=None))


def test_batches_that_were_public_before(case: Case) -> None:
    claim = case.claim()
    reveal(case.keys, 0, case.ledger)
    found = case.verify(claim, first_seen=date((datetime.now(UTC) + timedelta(days=2)).isoformat(), "test"))
    assert failing(found) == {"batches spent"}
    assert case.verify(claim).holds  # the model was there before
    assert failing(case.verify(claim, first_seen=None)) == {"release before model", "batches spent"}
    assert any("1 batches are spent" in f.sentence for f in case.verify(claim).findings)


def test_keys_that_are_not_revealed(case: Case) -> None:
    claim, whole = case.claim(), Revealed.of(case.keys)
    half = replace(whole, labels={i: whole.labels[i] for i in range(4)})
    assert failing(verify_claim(claim, half, case.evidence())) == {"number"}


def test_a_secret_that_others_can_guess(tmp_path: Path) -> None:
    case = Case(tmp_path, demo_only=True)
    assert failing(case.verify(case.claim())) == {"secret"}


def test_other_keys(case: Case, tmp_path: Path) -> None:
    other = Case(tmp_path / "other")
    assert {"keys", "ledger"} <= failing(case.verify(other.claim()))


def test_a_clean_model_is_not_significant(case: Case) -> None:
    case.answers = [[(label + 1) % 10, (label + 2) % 10] for label in case.keys.labels.tolist()]
    found = case.verify(case.claim())
    assert failing(found) == {"significance"}
    assert not found.holds


def test_the_same_day_needs_times(case: Case) -> None:
    claim = case.claim()
    for committed, holds in (
        ("2026-02-01", None),
        ("2026-02-01T08:00", None),
        ("2026-01-31T23:00", True),
        ("2026-02-02", False),
    ):
        found = case.verify(claim, committed=date(committed, "test"))
        assert next(f.holds for f in found.findings if f.name == "commitment before release") is holds
    times = {"committed": date("2026-02-01T08:00", "t"), "released": date("2026-02-01T09:00", "t")}
    assert case.verify(claim, **times).holds


def test_other_batches_than_those_asked(case: Case) -> None:
    """A use asked all batches; a claim on one of them, with its own right number, is not the use."""
    whole = case.claim()
    numbers = case.keys.numbers([0])
    answers = [Answer(i, tuple(case.answers[key])) for i, key in enumerate(numbers)]
    part = detect(ranks_of(answers, case.keys, [0]), case.keys, dict(whole.provenance), batches=[0])
    case.ledger.append("result", use=whole.provenance["ledger"]["entry"], log10_p=part.log10_p, detection="")
    assert "ledger" in failing(case.verify(part, answers=case.answers[:4]))


def test_of_several_results_of_a_use_the_weakest_counts(case: Case) -> None:
    claim = case.claim()
    case.ledger.append("result", use=claim.provenance["ledger"]["entry"], log10_p=-0.2, detection="")
    assert failing(case.verify(claim)) == {"ledger"}


def test_label_tables(case: Case) -> None:
    claim = case.claim()
    bent = replace(claim, provenance={**claim.provenance, "labels": "ab" * 32})
    assert failing(case.verify(bent)) == {"labels"}
    entry = case.ledger.append("use", suspect="bob", batches=[0, 1], access="url", labels="ab" * 32)
    case.ledger.append("result", use=entry["number"], log10_p=claim.log10_p, detection="")
    ledger = {"entry": entry["number"], "head": entry["hash"]}
    found = case.verify(replace(bent, provenance={**bent.provenance, "ledger": ledger}))
    assert failing(found) == set()
    assert any("check that it maps classes by their names" in f.sentence for f in found.findings)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"method": "other"}, "record"),
        ({"claim": "proof of guilt"}, "record"),
        ({"p_value": 1e-99}, "record"),
        ({"p_value": None}, "record"),
        ({"validity": "conservative"}, "number"),
        ({"details": {"hits": 8}}, "number"),
        ({"details": {"refused": 3}}, "number"),
        ({"details": {"rate": 0.01}}, "number"),
        ({"provenance": {"suspect": "MegaCorp"}}, "ledger"),
    ],
)
def test_a_record_that_was_changed(case: Case, change: dict[str, Any], name: str) -> None:
    claim = case.claim()
    merged = {k: {**getattr(claim, k), **v} if isinstance(v, dict) else v for k, v in change.items()}
    assert name in failing(case.verify(replace(claim, **merged)))


def test_a_file_that_is_not_the_ledgers(case: Case) -> None:
    assert failing(case.verify(case.claim(), claim_sha256="ab")) == {"ledger"}


def test_real_images_need_their_source(tmp_path: Path) -> None:
    """Otherwise pictures could be picked that any model answers with the drawn labels."""
    source = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), dtype=np.uint8)
    case = Case(tmp_path, source_images=source)
    assert failing(case.verify(case.claim())) == {"images"}
    assert case.verify(case.claim(), source_checked=True).holds


def test_dates() -> None:
    day = date("2026-11-24", "released")
    assert (day.start, str(day)) == (datetime(2026, 11, 24, tzinfo=UTC), "2026-11-24")
    assert day.end - day.start == timedelta(days=1, microseconds=-1)
    assert date("2026-11-24T12:00+02:00", "released").start.utcoffset() == timedelta(hours=2)
    with pytest.raises(TaggantError, match="released='yesterday' is no date; write ISO 8601"):
        date("yesterday", "released")

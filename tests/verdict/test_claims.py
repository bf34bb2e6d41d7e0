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
from taggant_lightning.evidence.moments import date
from taggant_lightning.evidence.record import Detection
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.methods.taggants.reveal import Revealed, reveal
from taggant_lightning.statistics import binomial_log10_p
from taggant_lightning.verdict.claims import verify_claim
from taggant_lightning.verdict.findings import Asked, Evidence, Verification
from taggant_lightning.verdict.verdict import incomplete_answers, judge, ranks_of
from tests.manifests import whole_manifest

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
        found = judge(ranks_of(answers, self.keys, batches), self.keys, origin, batches=batches, incomplete=lacking)
        self.ledger.append("result", use=entry["number"], log10_p=found.log10_p, detection="")
        return found

    def evidence(self, **more: Any) -> Evidence:
        manifest = whole_manifest(self.keys)
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
    claim = judge(ranks_of(answers, case.keys), case.keys, origin)
    case.ledger.append("result", use=entry["number"], log10_p=claim.log10_p, detection="")
    assert case.verify(claim, answers=case.answers[:5]).holds


def test_a_changed_k(case: Case) -> None:
    claim = case.claim()
    test = {"name": "binomial_top_k", "top_k": 2}
    found = case.verify(replace(claim, details={**claim.details, "test": test, "top_k": 2, "rate": 0.2}))
    assert {"test"} <= failing(found) <= {"test", "number"}


def test_a_subset_of_keys(case: Case) -> None:
    claim = case.claim()
    chosen = judge(np.ones(7, dtype=np.int64), case.keys, dict(claim.provenance))
    found = case.verify(chosen)
    assert {"batches", "number", "ledger"} <= failing(found)
    for batches in ([0, 2], [1, 0], [], "all", [0, 0], [-1]):
        bent = replace(claim, details={**claim.details, "batches": batches})
        assert "batches" in failing(case.verify(bent, ledger=None))


def test_half_the_keys_as_a_whole_batch(tmp_path: Path) -> None:
    case = Case(tmp_path, uses="one")
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
    whole = whole_manifest(case.keys)
    found = case.verify(claim, manifests=[whole, *others])
    assert found.holds
    assert found.corrected_log10_p == pytest.approx(claim.log10_p + 1)
    listed = case.verify(claim, manifests=[{**whole, "commitment": [own, "00" * 32]}])
    assert listed.corrected_log10_p == pytest.approx(claim.log10_p + math.log10(2))
    # The same one twice is one.
    assert case.verify(claim, manifests=[whole] * 2).corrected_log10_p == pytest.approx(claim.log10_p)
    many = [{"commitment": f"{n:064x}"} for n in range(10**5)]
    assert failing(case.verify(claim, manifests=[whole, *many])) == {"significance"}


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
    part = judge(ranks_of(answers, case.keys, [0]), case.keys, dict(whole.provenance), batches=[0])
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
    assert any("check that it maps by names" in f.sentence for f in found.findings)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"method": "other"}, "record"),
        ({"claim": "proof of guilt"}, "record"),
        ({"p_value": 1e-99}, "record"),
        ({"p_value": None}, "record"),
        ({"validity": "exact"}, "number"),
        ({"details": {"choices": 1}}, "number"),
        ({"provenance": {"settings": {"mean": [0.1]}}}, "settings"),
        ({"provenance": {"identity": {"file_sha256": "ab"}}}, "identity"),
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


def test_the_choice_of_batches_is_paid_for(tmp_path: Path) -> None:
    """Whoever holds the keys can ask all batches and conclude on those that suit: no record shows that she did not."""
    for more, runs in (({"uses": "rest"}, 4), ({"uses": "one"}, 4), ({"version": 1}, 10)):
        case = Case(tmp_path / str(more), batches=[2, 2, 2, 2], **more)
        chosen = {"rest": [2, 3], "one": [2]}.get(str(more.get("uses")), [1, 2])
        claim = case.claim(chosen)
        numbers = case.keys.numbers(chosen)
        alone = binomial_log10_p(len(numbers) - (7 in numbers), len(numbers), 0.1)  # the model misses the last key
        assert claim.log10_p == pytest.approx(alone + math.log10(runs))
        assert (claim.details["choices"], claim.validity) == (runs, "conservative")
        answers = [case.answers[i] for i in case.keys.numbers(chosen)]
        assert "batches" not in failing(case.verify(claim, answers=answers))
        # Another run of batches than the commitment allows is refused, whatever its number.
        if more.get("version") != 1:
            assert "batches" in failing(case.verify(replace(claim, details={**claim.details, "batches": [0, 1]})))


def test_an_older_record_pays_for_its_choice_when_it_is_verified(tmp_path: Path) -> None:
    """Earlier versions wrote the number of the batches at hand; verification multiplies it by their runs."""
    case = Case(tmp_path, version=1)
    claim = case.claim()
    plain = {name: value for name, value in claim.details.items() if name != "choices"}
    before = claim.log10_p - math.log10(3)
    older = replace(claim, details=plain, log10_p=before, p_value=10**before, validity="exact")
    entry = case.ledger.append("use", suspect="bob", batches=[0, 1], access="url")
    case.ledger.append("result", use=entry["number"], log10_p=before, detection="")
    older = replace(older, provenance={**older.provenance, "ledger": {"entry": entry["number"], "head": entry["hash"]}})
    found = case.verify(older)
    assert failing(found) == set()
    assert found.corrected_log10_p == pytest.approx(before + math.log10(3) + math.log10(2))  # and for the use before


def test_reveals_of_v1_tie_nothing_together(tmp_path: Path) -> None:
    case = Case(tmp_path, version=1)
    untied = replace(Revealed.of(case.keys), tied=False)
    found = verify_claim(case.claim(), untied, case.evidence())
    assert failing(found) == {"secret"}
    assert "each may have been tried by itself" in found.findings[1].sentence


def test_looks_are_uses(case: Case) -> None:
    for epoch in range(9):
        case.ledger.append("look", suspect="run", batches=[0, 1], epoch=epoch)
    claim = case.claim()
    found = case.verify(claim)
    assert found.corrected_log10_p == pytest.approx(claim.log10_p + 1)
    assert any("used 10 times, 9 of them looks" in f.sentence for f in found.findings)
    case.ledger.append("curve", run="x")  # an earlier version counted no looks, so nobody knows how many there were
    assert failing(case.verify(claim)) == {"ledger"}


def test_what_shaped_the_queries_is_told(case: Case) -> None:
    settings, identity = {"mean": [0.1], "std": None}, {"file_sha256": "ab" * 32}
    entry = case.ledger.append("use", suspect="bob", batches=[0, 1], access="onnx", settings=settings, identity=identity)
    claim = case.claim()
    origin = {"settings": settings, "identity": identity, "ledger": {"entry": entry["number"], "head": entry["hash"]}}
    case.ledger.append("result", use=entry["number"], log10_p=claim.log10_p, detection="")
    found = case.verify(replace(claim, provenance={**claim.provenance, **origin}))
    assert failing(found) == set()
    said = {f.name: f for f in found.findings}
    assert said["settings"].note
    assert said["settings"].word == ("mean are the model's own, and not chosen to fit",)
    assert "file_sha256=abab" in said["identity"].sentence


def test_the_claimants_word(case: Case) -> None:
    found = case.verify(case.claim())
    for clause in ("these are the model's answers", "no secrets were tried", "the ledger holds every use", "releases of this"):
        assert any(clause in word for word in found.words), clause
    assert any("no head of it" in word for word in found.words)
    assert any("after the published head" in word for word in case.verify(case.claim(), heads=["ab"]).words)


def test_asked_again(case: Case) -> None:
    claim = case.claim()
    asked = Asked(case.answers, {"file_sha256": "cd" * 32}, {})
    found = case.verify(claim, asked=asked)
    assert found.holds
    assert found.asked
    assert not any("these are the model's answers" in word for word in found.words)
    assert any("its record does not identify it" in word for word in found.words)
    # Fabricated answers: the model itself hits nothing, and the weaker number counts.
    wrong = [[(label + 1) % 10] for label in case.keys.labels.tolist()]
    refuted = case.verify(claim, asked=replace(asked, answers=wrong))
    assert failing(refuted) == {"significance"}
    assert refuted.corrected_log10_p == 0
    assert any("7 answers differ from those that the claimant shows" in f.sentence for f in refuted.findings)
    named = replace(claim, provenance={**claim.provenance, "identity": {"file_sha256": "ee" * 32}})
    assert "asked again" in failing(case.verify(named, asked=asked))
    assert case.verify(claim, asked=asked, answers=None).holds
    assert "asked again" in failing(case.verify(claim, asked=replace(asked, answers=case.answers[:3])))


def test_a_p_value_equal_to_the_level_holds(tmp_path: Path) -> None:
    case = Case(tmp_path, num_keys=3, batches=[3])
    case.answers = [[int(label)] for label in case.keys.labels]
    claim = case.claim([0])
    assert claim.log10_p == pytest.approx(-3)
    assert case.verify(claim, level=1e-3).holds
    assert failing(case.verify(claim, level=0.99e-3)) == {"significance"}


def test_times_of_the_ledger(case: Case) -> None:
    claim = case.claim()
    later = date((datetime.now(UTC) + timedelta(days=2)).isoformat(timespec="seconds"), "test")
    assert failing(case.verify(claim, released=later, first_seen=later)) == {"ledger"}
    entries = case.ledger.entries()
    bent = [{**entries[0], "time": "2030-01-01T00:00:00+00:00"}, *entries[1:]]
    assert failing(case.verify(claim, ledger=bent)) == {"ledger"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"statement": "other photographs"}, "the release says that it is 'other photographs'"),
        ({"classes": ["a"]}, "has 1 classes, and the keys were drawn for 10"),
        ({"hashes": ""}, "no manifest of a release"),
        ({"num_images": 0}, "no manifest of a release"),
        ({"format": "x"}, "no manifest of a release"),
    ],
)
def test_manifests_that_are_none(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    case = Case(tmp_path, statement="photographs")
    found = case.verify(case.claim(), manifests=[whole_manifest(case.keys, **{"statement": "photographs", **change})])
    assert failing(found) == {"manifest"}
    assert any(message in f.sentence for f in found.findings)


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
    for text in ("2026-11-24T12:00+02:00", "2026-11-24T10:00", "2026-11-24 10:00:00Z", "2026-11-24T10:00:00.0"):
        assert date(text, "released").start == date(text, "released").end == datetime(2026, 11, 24, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["yesterday", "2026-W45", "2026-W45-2", "T12", "20261124", "2026-11", "2026-13-01", "2026-11-24T12", "2026-11-24T12:00 Z",
     "٢٠٢٦-11-24", "", "2026-11-24T24:01", "0001-01-01T00:00+23:59", "2026-11-24T12:00:00,5", "2026-328"],
)  # fmt: skip
def test_what_is_no_date(text: str) -> None:
    """A week is no day, and an hour no instant, whatever a library makes of them."""
    with pytest.raises(TaggantError, match="released='.*' is no date; write 2026-11-24, or with a time"):
        date(text, "released")

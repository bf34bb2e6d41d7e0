"""The evidence page as a pure function: what it shows, that it escapes, and that its figures and its control are right."""

import base64
import dataclasses
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taggant_lightning.evidence.ledger import Use
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.reporting.check_commands import check_commands
from taggant_lightning.reporting.evidence_figures import fresh_figure, null_figure
from taggant_lightning.reporting.fresh_labels import fresh_labels, goodness_of_fit, rank_table
from taggant_lightning.reporting.page import Given, Model, Shown, page, powers, render, two_decimals
from taggant_lightning.reporting.sentences import shortcomings, strength
from taggant_lightning.statistics.tests import make_test
from taggant_lightning.verdict.verdict import judge

FIGURE = Shown("data:image/svg+xml;base64,", "a figure", "null-1")
SECRET = bytes.fromhex("4f1c0e9a7738d2b5a1c69e03f85b2d47")
TESTS = ("binomial_top_k", "rank_score", "sequential_top_k")


def drawn(test: str = "binomial_top_k", **more: Any) -> KeySet:
    arguments = {"num_keys": 12, "num_classes": 10, "shape": (1, 2, 2), "test": test, "statement": "words", "secret": SECRET}
    return KeySet.draw(**{**arguments, **more})


def model(keys: KeySet, ranks: list[int], name: str = "Bob", use: int | None = 0, **more: Any) -> Model:
    record = judge(np.array(ranks), keys, {"suspect": name, "access": "url"})
    given = {
        "checks": [("keys", "holds", "they are"), ("number", "unknown", "not at hand")],
        "words": ["these are its answers"],
        "null": FIGURE,
        **more,
    }
    return Model(name, f"{name}/detection.json", "ab" * 32, record, use, record.log10_p, **given)


HITS, MISSES = [1] * 8 + [5] * 4, [5] * 12


def given(keys: KeySet, *models: Model, **more: Any) -> Given:
    uses = [Use(n, "2026-11-24T10:00:00+00:00", m.name, (0,), m.detection.log10_p, True) for n, m in enumerate(models)]
    uses.append(Use(9, "2026-11-25T10:00:00+00:00", "somebody-else", (0,), 0.0, False))
    return Given(models, header=keys.header, uses=uses, head="cd" * 32, **more)


def test_what_one_model_is_shown_with() -> None:
    keys = drawn()
    shown = page(given(keys, model(keys, HITS)))
    html = render(shown)
    assert shown["title"] == "Was Bob trained on the release?"
    assert "Bob answered 8 of 12 keys with the key&#39;s label in its top 1 (1.2 expected by chance)" in html
    assert shown["models"][0]["correction"] == "corrected for 2 uses of these keys (Holm)"
    assert keys.commitment in html
    assert "It is not the probability that the model&#39;s owner is innocent" in html
    assert "The correction is over all entries of the ledger, not over those chosen for this page." in html
    assert "another model" in html
    assert "somebody-else" not in html
    assert "not finished" in html
    assert shown["combined"] is None
    assert "Fisher" not in html
    assert "Demonstration" not in html
    assert "somebody-else" in render(page(given(keys, model(keys, HITS), all_names=True)))


def test_several_models_share_keys_and_every_table_says_so() -> None:
    keys = drawn()
    html = render(page(given(keys, model(keys, HITS), model(keys, MISSES, "Eve", use=1))))
    assert "summary (shared keys), not a p-value" in html
    assert "a p-value under any dependence" in html
    assert html.count("share the randomness of the labels") == 3  # models, combination, ledger
    batches = drawn(batches=[6, 6])
    apart = [model(batches, HITS), model(batches, MISSES, "Eve", use=1)]
    for number, one in enumerate(apart):
        one.detection.details["batches"] = [number]
    assert page(given(batches, *apart))["combined"]["shared_keys"] is False


def test_what_is_not_at_hand_is_said() -> None:
    keys = drawn()
    shown = page(Given([model(keys, HITS, use=None)]))
    html = render(shown)
    assert shown["models"][0]["corrected"] is None
    assert "not corrected" in html
    assert "made from public records alone" in html
    assert "the ledger is not at hand: other uses of the keys are unknown" in html
    assert len(shown["lacking"]) == 4
    foreign = page(given(keys, model(keys, HITS, use=None)))
    assert "the ledger does not hold this record" in foreign["models"][0]["correction"]
    several = page(Given([model(keys, HITS, use=None)], published=["aa" * 32, keys.commitment]))
    assert "2 commitments published" in several["models"][0]["correction"]
    assert several["models"][0]["corrected"] is not None


def test_demo_keys_and_failing_checks_stand_out() -> None:
    keys = drawn(demo_only=True)
    one = model(keys, HITS, checks=[("batches spent", "fails", "public before")])
    html = render(page(given(keys, one)))
    assert 'class="banner"' in html
    assert "Not everything about this claim holds: batches spent" in html


@pytest.mark.parametrize("place", ["name", "statement", "provenance", "timestamp", "command", "calibration", "manifest"])
def test_everything_is_escaped(place: str) -> None:
    evil = "<script>alert('1')</script>"
    keys = drawn(statement=evil if place == "statement" else "words")
    one = model(keys, HITS, evil if place == "name" else "Bob")
    if place == "provenance":
        one.detection.provenance["hardware"] = {evil: evil}
    more: dict[str, Any] = {
        "timestamp": {"timestamp": evil},
        "command": {"command": evil},
        "calibration": {"calibration": [{"name": evil}]},
        "manifest": {"manifests": [(evil, "ab" * 32, {"statement": evil})], "published": [evil]},
    }.get(place, {})
    html = render(page(given(keys, one, **more)))
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_nothing_is_asked_from_the_network() -> None:
    keys = drawn()
    html = render(page(given(keys, model(keys, HITS), timestamp="https://archive.example.org")))
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:)|url\(|@import", html)
    assert "default-src 'none'" in html


def test_audit_and_calibration() -> None:
    keys = drawn()
    audit = {"bound": 8, "max_step": 7, "psnr": 36.44, "ssim": 0.95, "lpips": None}
    rows = [{"name": "resnet", "kind": "clean", "test": "binomial_top_k", "p": 0.4126, "expected": None}]
    html = render(page(given(keys, model(keys, HITS), audit=audit, calibration=rows)))
    assert "The perturbation (at most 7/255, PSNR 36.4 dB) is hard to see" in html
    assert "0.413" in html
    assert "LPIPS" not in html
    bare = page(given(keys, model(keys, HITS), audit={"bound": None, "max_step": None, "psnr": None}))
    assert bare["quality"] == {"facts": [("bound", "none declared")], "said": None}


def test_texts() -> None:
    assert powers("p ≤ 10^-16.2, or 10^3") == [("p ≤ 10", "−16.2"), (", or 10", "3"), ("", "")]
    assert powers("0.38") == [("0.38", "")]
    assert (two_decimals(-0.001), two_decimals(-16.249)) == ("0.00", "-16.25")
    assert strength(-16.2).startswith("Very strong evidence: of models that owe nothing to the keys, at most one in 10^16 ")
    assert "Strong evidence" in strength(-3.0)
    assert "one in 1,000 " in strength(-3.0)
    assert "up to 4 in 1,000" in strength(-2.5)
    assert "Weak" in strength(-2.5)
    assert strength(-0.43).startswith("No evidence: chance explains this; ")
    assert strength(0.0) == "No evidence: chance explains this."


def test_commands_are_those_that_verify() -> None:
    keys = drawn(batches=[6, 6])
    record = model(keys, HITS).detection
    command = check_commands([("a/b c.json", record), ("b/b c.json", record)], {"committed": "2026-11-24", "released": None})
    assert len(command) == 2  # one for both records
    one_line = command[0].replace("\\\n    ", "")
    assert one_line == (
        "taggant keys verify --reveal reveal-0.json --reveal reveal-1.json --claim 'b c.json' --answers detection.secret.json "
        "--ledger ledger.jsonl --manifest manifest.json --committed 2026-11-24 --released DATE --first-seen DATE"
    )


@pytest.mark.parametrize("test", TESTS)
def test_fresh_labels_follow_the_null_whatever_the_model_answers(test: str) -> None:
    """A model that always answers the same, and one that answers at random."""
    keys = drawn(test)
    rng = np.random.default_rng(0)
    for answers in ([list(range(10))] * 12, [rng.permutation(10).tolist() for _ in range(12)]):
        fresh = fresh_labels(answers, keys.test, 10)
        assert fresh.fit is not None
        assert fresh.fit > 1e-3
        assert abs(fresh.share - fresh.exact) < 0.012
        assert fresh.exact <= 0.05
        assert np.isclose(fresh.null.sum(), 1)


@pytest.mark.parametrize("test", TESTS)
def test_refusals_make_the_null_a_bound(test: str) -> None:
    answers: list[list[int | None] | None] = [list(range(10))] * 8
    fresh = fresh_labels([*answers, None, None, [None, *range(9)], []], drawn(test).test, 10)
    assert (fresh.fit, fresh.incomplete) == (None, 4)
    assert fresh.share < fresh.exact


def test_the_control_has_power() -> None:
    test = drawn().test
    rng = np.random.default_rng(1)
    for rate, fits in ((0.1, True), (0.13, False), (0.08, False)):
        p = goodness_of_fit(rng.binomial(12, rate, 10_000), test.null(12))
        assert p is not None
        assert (p > 1e-3) is fits
    assert goodness_of_fit(np.full(9, 3), np.array([0, 0, 0, 1.0])) is None
    assert fresh_labels([[0, 1]], make_test("binomial_top_k", num_classes=2, top_k=2), 2).fit is None  # every answer hits


def test_ranks_of_every_class() -> None:
    assert rank_table([[2, None, 0], None], 3).tolist() == [[3, 4, 1], [4, 4, 4]]
    for wrong, error in (([-1], ValueError), ([3], IndexError)):
        with pytest.raises(error):
            rank_table([wrong], 3)


@pytest.mark.parametrize("test", TESTS)
def test_figures_are_deterministic_and_tell_in_words(test: str) -> None:
    keys = drawn(test)
    record = model(keys, HITS).detection
    first, again = null_figure(record), null_figure(record)
    assert (first.svg, first.png) == (again.svg, again.png)
    assert b"dc:date" not in first.svg
    assert Image.open(io.BytesIO(first.png)).size[0] > 500
    assert "p ≤" in first.alt
    if test != "binomial_top_k":
        fresh = fresh_labels([list(range(10))] * 12, keys.test, 10, draws=500)
        assert fresh_figure(fresh, keys.test).svg == fresh_figure(fresh, keys.test).svg


def test_a_figure_beyond_what_a_float_holds() -> None:
    keys = drawn(num_keys=400, num_classes=1000)
    record = dataclasses.replace(model(keys, [1] * 400).detection)
    assert record.log10_p < -1000
    assert null_figure(record).svg.startswith(b"<?xml")
    assert base64.b64encode(null_figure(model(drawn(top_k=10), HITS).detection).png)  # every answer hits: one bar


def test_the_sequential_test_says_why_it_is_conservative() -> None:
    assert "holds whenever the test stops" in shortcomings(model(drawn("sequential_top_k"), HITS).detection)[0]

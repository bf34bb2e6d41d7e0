"""The one rule for services that do not answer every query: what ends a run, and why misses accuse nobody."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.access.services.ending import Asked, check_ending
from taggant_lightning.access.services.failures import Failure
from taggant_lightning.errors import TaggantError, Unavailable
from taggant_lightning.methods.taggants.hits import key_ranks
from taggant_lightning.statistics.tests import TESTS, make_test

TIME_OUT, FORBIDDEN = Failure("a time-out"), Failure("HTTP 403", "put valid credentials into it", final=True)
REFUSED = Failure("HTTP 422", "write a mapping")
FIELDS = Failure("an answer without labels", "write a mapping", detail="it begins {}")


@pytest.mark.parametrize(
    "asked",
    [
        Asked(20, 20),
        Asked(20, 19, failures=[FORBIDDEN]),
        Asked(20, 1, useless=[REFUSED] * 10, failures=[TIME_OUT] * 9),
        Asked(20, 1, useless=[REFUSED] * 19, present=False),  # nothing is left to ask
    ],
)
@pytest.mark.parametrize("count_missing", [False, True])
def test_single_failures_end_nothing(asked: Asked, count_missing: bool) -> None:
    check_ending(asked, "url=u", count_missing=count_missing)


@pytest.mark.parametrize(
    "asked",
    [Asked(20, 4, failures=[FORBIDDEN, TIME_OUT], present=False), Asked(20, 4, failures=[TIME_OUT], untried=15, present=False)],
)
def test_a_service_that_went_away_may_come_back(asked: Asked) -> None:
    with pytest.raises(Unavailable, match="url=u answered 4 of 20 queries, and the last failure was a time-out; run the same"):
        check_ending(asked, "url=u", count_missing=False)
    check_ending(asked, "url=u", count_missing=True)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            Asked(2, 0, failures=[FORBIDDEN] * 2),
            "^url=u gave no usable answer to 2 queries: HTTP 403; put valid credentials into it$",
        ),
        (Asked(2, 0, useless=[REFUSED] * 2), "^url=u gave no usable answer to 2 queries: HTTP 422; write a mapping$"),
        (
            Asked(20, 0, failures=[TIME_OUT, FIELDS, FIELDS, FORBIDDEN], untried=16, present=False),
            r"to 4 queries: an answer without labels \(2 times\), a time-out \(1 times\), HTTP 403 \(1 times\); it begins {}; "
            "write a mapping; --count-missing asks the other 16 all the same$",
        ),
    ],
)
@pytest.mark.parametrize("count_missing", [False, True])
def test_a_set_up_that_brings_no_answer_ends_with_what_to_write(asked: Asked, message: str, count_missing: bool) -> None:
    with pytest.raises(TaggantError, match=message) as caught:
        check_ending(asked, "url=u", count_missing=count_missing)
    assert not isinstance(caught.value, Unavailable)


@pytest.mark.parametrize("count_missing", [False, True])
def test_nobody_there(count_missing: bool) -> None:
    with pytest.raises(Unavailable, match="url=u answered 0 of 20 queries, and the last failure was a time-out"):
        check_ending(Asked(20, 0, failures=[TIME_OUT] * 20, present=False), "url=u", count_missing=count_missing)


@given(
    seed=st.integers(0, 2**32 - 1),
    test=st.sampled_from(tuple(TESTS)),
    missing=st.lists(st.booleans(), min_size=12, max_size=12),
    invented=st.lists(st.integers(0, 9), min_size=12, max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_whatever_a_run_lacks_gives_the_claimant_less(seed: int, test: str, missing: list[bool], invented: list[int]) -> None:
    """Over every test: no set of misses, and no invented label at any place, makes the p-value smaller than the full answers'.

    So neither a claimant gains by stopping early or by losing answers, nor does a suspect's refusal accuse it.
    """
    classes = 8
    fixed = make_test(test, num_classes=classes, top_k=None if test == "rank_score" else 2)
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, 12)
    full = rank(generator.normal(size=(12, classes)) + 3 * generator.random() * np.eye(classes)[labels])

    def spoilt(answer: Answer) -> Answer:
        if missing[answer.query] or answer.labels is None:
            return Answer(answer.query, None)
        place = invented[answer.query]
        return Answer(answer.query, (*answer.labels[:place], None, *answer.labels[place:]))

    p = [fixed.evaluate(key_ranks(answers, labels, classes)).log10_p for answers in (full, [spoilt(a) for a in full])]
    assert p[0] <= p[1] <= 0 or math.isclose(*p, abs_tol=1e-12)

"""What a suspect is asked: every key once, in order, among decoys that nothing but the secret tells apart."""

import numpy as np
import pytest

from taggant_lightning.access.answer import Answer
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.methods.taggants.queries import plan_queries, query_name


def drawn(**more: object) -> KeySet:
    arguments = {"num_keys": 12, "num_classes": 5, "shape": (3, 8, 8), "grid": 4, "batches": [4, 8], "secret": bytes(16)}
    return KeySet.draw(**{**arguments, **more})


@pytest.mark.parametrize("decoys", [0, 1, 3])
def test_each_key_once_in_order(decoys: int) -> None:
    keys = drawn()
    plan = plan_queries(keys, decoys=decoys)
    assert [k for k in plan.keys if k is not None] == list(range(12))
    assert len(plan.queries) == 12 * (1 + decoys)
    assert len({q.name for q in plan.queries}) == len(plan.queries)
    assert len({q.image.tobytes() for q in plan.queries}) == len(plan.queries)
    for query, key in zip(plan.queries, plan.keys, strict=True):
        if key is not None:
            assert np.array_equal(query.image, keys.images[key])
            assert query.name == query_name(keys, key)
    # A batch is asked as a whole before the next one.
    first = 4 * (1 + decoys)
    assert sum(k is not None for k in plan.keys[:first]) == 4


def test_the_same_queries_each_time_and_whatever_else_is_asked() -> None:
    keys = drawn()
    one, two, second = plan_queries(keys, decoys=1), plan_queries(keys, decoys=2), plan_queries(keys, [1], decoys=1)
    names = {q.name: q.image.tobytes() for q in two.queries}
    assert all(names[q.name] == q.image.tobytes() for q in one.queries)
    assert [q.name for q in second.queries] == [q.name for q in one.queries[8:]]
    other = plan_queries(drawn(secret=bytes([1] * 16)))
    assert not {q.name for q in other.queries} & set(names)


def test_the_order_tells_nothing() -> None:
    """Over many secrets, keys and decoys are equally often at each place."""
    at = np.zeros(8)
    for number in range(400):
        keys = KeySet.draw(num_keys=4, num_classes=5, shape=(1, 2, 2), secret=number.to_bytes(16, "big"))
        at += [key is not None for key in plan_queries(keys).keys]
    assert np.abs(at - 200).max() < 5 * np.sqrt(100)


def test_answers_to_keys_come_back_in_key_order() -> None:
    keys = drawn()
    plan = plan_queries(keys, [1])
    answers = [Answer(i, (0,) if key is None else (key % 5,)) for i, key in enumerate(plan.keys)]
    found = plan.of_keys(answers[::-1])
    assert {a.query: a.labels for a in found} == {i: (key % 5,) for i, key in enumerate(range(4, 12))}


@pytest.mark.parametrize("blend", [1, 2])
def test_decoys_of_real_keys_are_other_real_images(blend: int) -> None:
    source = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
    keys = drawn(grid=None, source_images=source, blend=blend)
    plan = plan_queries(keys, decoys=1, source_images=source)
    assert len({q.image.tobytes() for q in plan.queries}) == 24
    if blend == 1:
        assert {q.image.tobytes() for q in plan.queries} <= {image.tobytes() for image in source}
    with pytest.raises(TaggantError, match="decoys must come from the same folder; write --source DIR"):
        plan_queries(keys)
    with pytest.raises(TaggantError, match="name the original folder"):
        plan_queries(keys, source_images=source[:50])
    with pytest.raises(TaggantError, match="60 images and 72 are needed"):
        plan_queries(keys, decoys=2 if blend == 2 else 6, source_images=source)


def test_a_blend_is_the_mean() -> None:
    source = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    keys = drawn(shape=(1, 4, 4), grid=None, source_images=source, blend=2)
    means = {((a.astype(int) + b + 1) // 2).astype(np.uint8).tobytes() for a in source for b in source}
    assert all(image.tobytes() in means for image in keys.images)
    keys.check(keys.commitment, source)


@pytest.mark.parametrize(
    ("batches", "decoys", "message"),
    [([2], 1, r"batches=\[2\] must name different batches of 0..1"), ([0, 0], 1, "different batches"), (None, -1, "decoys=-1")],
)
def test_wrong_arguments(batches: list[int] | None, decoys: int, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        plan_queries(drawn(), batches, decoys)

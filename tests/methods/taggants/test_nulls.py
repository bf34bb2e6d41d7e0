"""The null holds for models that owe nothing to the keys, and the control that says so fails on planted mutants."""

import numpy as np
import pytest

from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.commitment import derivation
from taggant_lightning.methods.taggants import key_images
from taggant_lightning.methods.taggants.hits import count_hits, key_ranks
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.statistics import binomial_log10_p
from tests.control import control

LEVEL = 1e-3


def labels_of(number: int, keys: int, classes: int) -> np.ndarray:
    """Draw the labels of one KeySet, with images of one pixel."""
    return KeySet.draw(num_keys=keys, num_classes=classes, shape=(1, 1, 1), secret=number.to_bytes(16, "big")).labels


def permutation_answers(number: int, classes: int) -> list[Answer]:
    """A model that answers another class on each key."""
    return [Answer(i, (int(c),)) for i, c in enumerate(np.random.default_rng(number).permutation(classes))]


def test_permutation_model_with_independent_labels() -> None:
    counts = [count_hits(key_ranks(permutation_answers(n, 10), labels_of(n, 10, 10), 10), 1) for n in range(6000)]
    assert control(counts, 10, 0.1) > LEVEL


def test_mutant_distinct_labels_with_a_permutation_model() -> None:
    def distinct(number: int) -> np.ndarray:
        return np.random.default_rng(number + 10**6).permutation(10)

    counts = [count_hits(key_ranks(permutation_answers(n, 10), distinct(n), 10), 1) for n in range(20_000)]
    assert control(counts, 10, 0.1, bins=40) < LEVEL


CONSTANT = [Answer(i, (0,)) for i in range(20)]


def test_constant_model_with_uniform_labels() -> None:
    counts = [count_hits(key_ranks(CONSTANT, labels_of(n, 20, 6), 6), 1) for n in range(1000)]
    assert control(counts, 20, 1 / 6) > LEVEL


def test_mutant_modulo_biased_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of 3 bits taken modulo 6 without rejection favour the classes 0 and 1."""

    def biased(bound: int, secret: bytes, purpose: str, context: bytes, index: int) -> int:
        return derivation.expand(secret, purpose, context, index, 1)[0] % 8 % bound

    monkeypatch.setattr(key_images, "uniform_below", biased)
    counts = [count_hits(key_ranks(CONSTANT, labels_of(n, 20, 6), 6), 1) for n in range(1000)]
    assert control(counts, 20, 1 / 6) < LEVEL


def scores_of(number: int, keys: int, classes: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(keys, classes))


@pytest.mark.parametrize("padded", [False, True])
def test_mutant_padded_sampler(padded: bool) -> None:
    """Five keys on two processes: a sampler that pads asks the first key twice, and its hit counts twice."""
    counts = []
    for n in range(3000):
        ranks = key_ranks(rank(scores_of(n, 5, 10)), labels_of(n, 5, 10), 10)
        counts.append(count_hits(np.append(ranks, ranks[0]) if padded else ranks, 2))
    assert (control(counts, 5, 0.2) < LEVEL) == padded


@pytest.mark.parametrize("mutant", [False, True])
def test_mutant_ties_for_the_claimant(mutant: bool) -> None:
    """A model with coarse scores: rank one plus the number of strictly better classes would favour the claimant."""
    counts = []
    for n in range(1000):
        scores, labels = np.round(scores_of(n, 20, 10)), labels_of(n, 20, 10)
        ranks = key_ranks(rank(scores), labels, 10)
        if mutant:
            ranks = 1 + (scores > scores[np.arange(20), labels][:, None]).sum(axis=1)
        counts.append(count_hits(ranks, 1))
    assert (control(counts, 20, 0.1) < LEVEL) == mutant


@pytest.mark.parametrize("mutant", [False, True])
def test_mutant_best_k_afterwards(mutant: bool) -> None:
    counts, rates = [], []
    for n in range(1000):
        ranks = key_ranks(rank(scores_of(n, 20, 10)), labels_of(n, 20, 10), 10)
        k = min(range(1, 6), key=lambda k: binomial_log10_p(count_hits(ranks, k), 20, k / 10)) if mutant else 2
        counts.append(count_hits(ranks, k))
        rates.append(k / 10)
    assert (control(counts, 20, rates) < LEVEL) == mutant


def test_the_control_sees_too_few_and_too_even_counts() -> None:
    assert control([0] * 24, 20, 0.1) < LEVEL
    assert control([2] * 200, 20, 0.1) < LEVEL
    assert control(np.random.default_rng(0).binomial(20, 0.1, 24).tolist(), 20, 0.1) > LEVEL

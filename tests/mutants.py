"""Planted mistakes in drawing, asking, counting and testing, each beside the true way: the control must tell them apart.

A case runs the mistaken or the true way on many KeySets that the model owes nothing to. Two-sided cases return numbers that are
uniform on [0, 1] if the null is exact, one-sided ones log10 p-values that must not be too small.
"""

from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.commitment import derivation
from taggant_lightning.methods.taggants import key_images
from taggant_lightning.methods.taggants.hits import count_hits, key_ranks
from taggant_lightning.statistics import binomial_log10_p, rank_scores, sequential_log10_p
from tests.answerers import LISTED, constant_ranking, labels_of, partial_lists, permutation, random_scores, scores_of
from tests.control import control_of, excess_of, score_tail, top_k_tail, transform

K, C, TOP = 20, 20, 4
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A planted mistake.

    Attributes:
        name: The mistake, in words.
        test: The test it is planted in.
        run: (whether mistaken, number of KeySets) → numbers for the control.
        keysets: How many KeySets it takes to see the mistake.
        one_sided: Whether log10 p-values come back.
    """

    name: str
    test: str
    run: Callable[[bool, int], Values]
    keysets: int = 800
    one_sided: bool = False

    def p(self, mutant: bool) -> float:
        """Return the p-value of the control; bins grow with the numbers."""
        values = self.run(mutant, self.keysets)
        return excess_of(values) if self.one_sided else control_of(values, bins=8 if self.keysets < 5000 else 40)


def scored(ranks: NDArray[np.int64], classes: int = C) -> int:
    """Return the total of the rank test."""
    return int(rank_scores(classes)[np.minimum(ranks, classes) - 1].sum())


def biased_labels(mutant: bool, keysets: int) -> Values:
    """Bytes modulo the number of classes, without rejection, against a constant ranking; 100 classes."""

    def biased(bound: int, secret: bytes, purpose: str, context: bytes, index: int) -> int:
        return derivation.expand(secret, purpose, context, index, 1)[0] % bound

    with patch.object(key_images, "uniform_below", biased if mutant else derivation.uniform_below):
        labels = [labels_of(n, K, 100) for n in range(keysets)]
    totals = [scored(key_ranks(constant_ranking(n, K, 100), own, 100), 100) for n, own in enumerate(labels)]
    return transform(score_tail(K, 100), totals)


def distinct_labels(mutant: bool, keysets: int) -> Values:
    """Labels that never repeat, against a model that answers another class on each key; 10 keys of 10 classes."""

    def labels(n: int) -> NDArray[np.int64]:
        return np.random.default_rng(n + 10**6).permutation(10) if mutant else labels_of(n, 10, 10)

    hits = [count_hits(key_ranks(permutation(n, 10, 10), labels(n), 10), 1) for n in range(keysets)]
    return transform(top_k_tail(10, 1, 10), hits)


def _claimants_ranks(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one plus the number of strictly better classes."""
    own = scores[np.arange(len(labels)), labels][:, None]
    return np.asarray(1 + (scores > own).sum(axis=1), dtype=np.int64)


def ties(mutant: bool, keysets: int) -> Values:
    """Ties count for the claimant, with a model that rounds its scores."""
    totals = []
    for n in range(keysets):
        scores, labels = np.round(scores_of(n, K, C)), labels_of(n, K, C)
        totals.append(scored(_claimants_ranks(scores, labels) if mutant else key_ranks(rank(scores), labels, C)))
    return transform(score_tail(K, C), totals)


def best_k(mutant: bool, keysets: int) -> Values:
    """The k with the smallest p-value is chosen afterwards."""
    u = []
    for n in range(keysets):
        ranks = key_ranks(random_scores(n, K, C), labels_of(n, K, C), C)
        choices = range(1, 11) if mutant else [TOP]
        k = min(choices, key=lambda k: top_k_tail(K, k, C)[count_hits(ranks, k)])
        u.append(transform(top_k_tail(K, k, C), [count_hits(ranks, k)], seed=n)[0])
    return np.array(u)


def padded(mutant: bool, keysets: int) -> Values:
    """Two processes share five keys, and a sampler that pads asks the first one twice."""
    hits = []
    for n in range(keysets):
        ranks = key_ranks(random_scores(n, 5, C), labels_of(n, 5, C), C)
        hits.append(min(5, count_hits(np.append(ranks, ranks[0]) if mutant else ranks, TOP)))
    return transform(top_k_tail(5, TOP, C), hits)


def dropped(mutant: bool, keysets: int) -> Values:
    """Keys whose label is not on a list of five are dropped as unanswered, rather than counted as misses (top-4)."""
    p = []
    for n in range(keysets):
        ranks = key_ranks(partial_lists(n, K, C), labels_of(n, K, C), C)
        kept = ranks[ranks <= LISTED] if mutant else ranks
        p.append(binomial_log10_p(count_hits(kept, TOP), len(kept), TOP / C) if len(kept) else 0.0)
    return np.array(p)


def behind_the_list(mutant: bool, keysets: int) -> Values:
    """A label that a list of five does not name takes the next place, rather than the last."""
    p = []
    for n in range(keysets):
        ranks = key_ranks(partial_lists(n, K, C), labels_of(n, K, C), C)
        p.append(score_tail(K, C)[scored(np.minimum(ranks, LISTED + 1) if mutant else ranks)])
    return np.array(p)


def optional_stopping(mutant: bool, keysets: int) -> Values:
    """Asking stops where the plain binomial p-value is smallest, rather than by the sequential test."""
    p = []
    for n in range(keysets):
        hit = key_ranks(random_scores(n, K, C), labels_of(n, K, C), C) <= TOP
        counts = np.cumsum(hit)
        binomial = min(float(top_k_tail(m + 1, TOP, C)[counts[m]]) for m in range(K))
        p.append(binomial if mutant else sequential_log10_p(hit.tolist(), TOP / C, 0.5))
    return np.array(p)


def bet_afterwards(mutant: bool, keysets: int) -> Values:
    """The bet with the smallest p-value is chosen afterwards; of 60 keys: with few, the test is too coarse to show it."""
    p, bets = [], np.linspace(0.21, 0.99, 40).tolist() if mutant else [0.5]
    for n in range(keysets):
        hit = (key_ranks(random_scores(n, 60, C), labels_of(n, 60, C), C) <= TOP).tolist()
        p.append(min(sequential_log10_p(hit, TOP / C, bet) for bet in bets))
    return np.array(p)


def asked_until_hit(mutant: bool, keysets: int) -> Values:
    """A query that missed is sent once more to a model that answers at random, and the better answer counts."""
    hits = []
    for n in range(keysets):
        labels = labels_of(n, K, C)
        ranks = key_ranks(random_scores(n, K, C), labels, C)
        again = key_ranks(random_scores(n + 10**7, K, C), labels, C)
        hits.append(count_hits(np.minimum(ranks, again) if mutant else ranks, TOP))
    return transform(top_k_tail(K, TOP, C), hits)


def swapped(mutant: bool, keysets: int) -> Values:
    """Answers arrive in another order and are matched to the keys so that they fit best, rather than by their numbers."""
    hits = []
    for n in range(keysets):
        labels, answers = labels_of(n, K, C), random_scores(n, K, C)
        if mutant:  # of a few orders, the best
            orders = [np.roll(np.arange(K), shift) for shift in range(3)]
            tries = [[Answer(i, answers[j].labels) for i, j in enumerate(order)] for order in orders]
        else:
            tries = [answers[::-1]]
        hits.append(max(count_hits(key_ranks(own, labels, C), TOP) for own in tries))
    return transform(top_k_tail(K, TOP, C), hits)


CASES = (
    Case("labels by modulo, without rejection", "rank score", biased_labels),
    Case("labels that never repeat", "top-k", distinct_labels, keysets=20_000),
    Case("ties for the claimant", "rank score", ties),
    Case("best k chosen afterwards", "top-k", best_k),
    Case("padded sampler", "top-k", padded, keysets=3000),
    Case("misses asked again", "top-k", asked_until_hit),
    Case("answers matched to fit", "top-k", swapped),
    Case("unlisted labels dropped as refusals", "top-k", dropped, one_sided=True),
    Case("unlisted label right behind the list", "rank score", behind_the_list, one_sided=True),
    Case("optional stopping on the binomial p", "sequential", optional_stopping, one_sided=True),
    Case("bet chosen afterwards", "sequential", bet_afterwards, keysets=2000, one_sided=True),
)

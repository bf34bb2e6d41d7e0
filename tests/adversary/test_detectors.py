"""Detectors against slow references and planted images; wrong input has its sentence."""

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from taggant_lightning.adversary.detectors import (
    DETECTORS,
    Evidence,
    activation_clustering,
    check_detectors,
    dbscan,
    high_frequency,
    knn,
    loss_quantile,
    low_loss,
    spectral_signatures,
)
from taggant_lightning.errors import TaggantError


def clusters(per_class: int = 40, classes: int = 3, width: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features of well-separated classes, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    return (6 * np.eye(classes, width)[labels] + rng.normal(0, 0.4, (len(labels), width))).astype(np.float32), labels


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def distances(points: np.ndarray) -> np.ndarray:
    wide = points.astype(np.float64)
    return np.linalg.norm(wide[:, None] - wide[None], axis=2)


def test_knn_is_the_mean_distance_to_the_nearest_others() -> None:
    features, _ = clusters()
    features[7] = features[8]  # a copy is at distance 0 and not its own neighbour
    slow = np.sort(distances(unit(features)) + np.diag(np.full(len(features), np.inf)), axis=1)[:, :5].mean(axis=1)
    assert np.allclose(knn(features, 5), slow, atol=1e-3)
    assert knn(features, 10_000).shape == (len(features),)


def test_dbscan_turns_at_the_radius_where_sklearn_stops_calling_noise() -> None:
    features, labels = clusters(seed=3)
    rng = np.random.default_rng(4)
    features[::9] += rng.normal(0, 3, (len(features[::9]), features.shape[1])).astype(np.float32)
    found = dbscan(features, labels, min_samples=4)
    assert (found.noise == (found.scores > 1)).all()
    for label in range(3):
        own = labels == label
        far = distances(unit(features[own]))
        core = np.sort(far, axis=1)[:, 3]
        radius = np.array([min(max(far[i, j], core[j]) for j in range(len(far))) for i in range(len(far))])
        ratio = radius / found.scores[own]
        assert np.allclose(ratio, ratio[0], rtol=1e-3)  # one eps a class
        assert np.isclose(core, ratio[0], rtol=1e-3).any()  # which is one of its core distances
        for eps in np.quantile(radius, [0.05, 0.3, 0.6, 0.9, 0.99]) * 1.0001:
            sklearn = DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit(far).labels_ == -1
            assert (sklearn == (radius > eps)).all()


def test_spectral_signatures_is_the_square_on_the_first_principal_component() -> None:
    features, labels = clusters(seed=5)
    found = spectral_signatures(features, labels)
    for label in range(3):
        own = features[labels == label].astype(np.float64)
        own -= own.mean(axis=0)
        values, vectors = np.linalg.eigh(own.T @ own)
        squares = (own @ vectors[:, -1]) ** 2
        assert values[-1] == values.max()
        assert np.allclose(found[labels == label], squares, rtol=1e-6)


@pytest.mark.parametrize("name", ["knn", "dbscan", "spectral_signatures"])
def test_gross_outliers_come_first(name: str) -> None:
    features, labels = clusters()
    features[[3, 50, 100], 9] += 30
    scores = DETECTORS[name](Evidence(features, np.zeros(len(labels)), labels))
    planted = {3, 50, 100} if name != "knn" else set()
    if name == "knn":  # together they would be each other's neighbours: one alone
        features, labels = clusters()
        features[3, 9] += 30
        scores, planted = knn(features), {3}
    assert set(np.argsort(-scores)[: len(planted)].tolist()) == planted


@pytest.mark.parametrize("name", ["spectral_signatures", "activation_clustering"])
def test_a_planted_group_of_poisons_comes_first(name: str) -> None:
    features, labels = clusters(per_class=60)
    poisons = np.arange(60, 69)  # 9 of class 1's 60
    features[poisons, 8] += 8
    scores = DETECTORS[name](Evidence(features, np.zeros(len(labels)), labels))
    assert scores.dtype == np.float64
    assert set(np.argsort(-scores)[:9].tolist()) == set(poisons.tolist())


def test_activation_clustering_of_a_class_without_two_clusters_is_silent() -> None:
    same = np.ones((6, 4), dtype=np.float32)
    assert (activation_clustering(same, np.zeros(6, dtype=np.int64)) == 0).all()
    few = np.array([[0, 0], [1, 1], [2, 2], [5, 5]], dtype=np.float32)
    assert np.isfinite(activation_clustering(few, np.array([0, 0, 1, 1]))).all()


def test_loss_and_pixels() -> None:
    losses = np.array([0.3, 0.1, 0.1, 9.0])
    assert loss_quantile(losses).tolist() == [0.625, 0.25, 0.25, 0.875]
    assert low_loss(losses).tolist() == [0.375, 0.75, 0.75, 0.125]
    assert high_frequency(losses).tolist() == losses.tolist()
    seen = Evidence(np.zeros((4, 2), np.float32), losses, np.zeros(4, np.int64), losses)
    assert DETECTORS["high_frequency"](seen).argmax() == 3
    assert DETECTORS["loss_quantile"](seen).argmax() == 3
    with pytest.raises(TypeError, match="energies"):
        DETECTORS["high_frequency"](seen.__class__(seen.features, losses, seen.labels))


@pytest.mark.parametrize("name", ["knn", "dbscan", "spectral_signatures", "activation_clustering", "loss_quantile"])
def test_scores_are_finite_for_copies_small_classes_and_dead_features(name: str) -> None:
    features = np.zeros((9, 5), dtype=np.float32)
    features[4:7] = np.random.default_rng(0).normal(size=(3, 5))
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 3])
    scores = DETECTORS[name](Evidence(features, np.zeros(9), labels))
    assert scores.shape == (9,)
    assert np.isfinite(scores).all()


def test_wrong_input() -> None:
    features, labels = clusters()
    with pytest.raises(TaggantError, match="neighbours=0 must be at least 1"):
        knn(features, 0)
    with pytest.raises(TaggantError, match="inspect at least two"):
        knn(features[:1])
    with pytest.raises(TaggantError, match="min_samples=1 must be at least 2"):
        dbscan(features, labels, 1)
    with pytest.raises(TaggantError, match="detectors='nose' is unknown; write some of knn,dbscan"):
        check_detectors(["knn", "nose"])
    with pytest.raises(TaggantError, match="names one twice"):
        check_detectors(["knn", "knn"])

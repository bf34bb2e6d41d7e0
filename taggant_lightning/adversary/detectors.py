"""Detectors of images that do not belong, as a suspicious user of a dataset would run them. Pure functions.

Each returns a number an image, float64; a higher one is more suspicious. None is told which images are signed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError

Scores = NDArray[np.float64]
NOISE = 1.0  # DBSCAN calls noise what scores above
SMALLEST = 1e-12  # in place of a distance or spread of zero: images that are copies of each other


class Density(NamedTuple):
    """What DBSCAN finds.

    Attributes:
        scores: (N,) the radius at which an image stops being noise, in units of its class's eps.
        noise: (N,) whether it is noise at that eps, which is a score above 1.
    """

    scores: Scores
    noise: NDArray[np.bool_]


@dataclass(frozen=True)
class Evidence:
    """What the detectors look at, one entry an image.

    Attributes:
        features: (N, D) float32, from a model trained on the images.
        losses: (N,) float64, its cross-entropy.
        labels: (N,) int64.
        energies: (N,) float64, `high_frequency_energy` of the stored pixels; None where no detector asks for it.
    """

    features: NDArray[np.float32]
    losses: Scores
    labels: NDArray[np.int64]
    energies: Scores | None = None


def knn(features: NDArray[np.float32], neighbours: int = 20) -> Scores:
    """Score images by their mean distance to the nearest neighbours, whatever these neighbours' labels.

    The k-nearest-neighbour outlier score (Ramaswamy, Rastogi, Shim: Efficient algorithms for mining outliers from large data
    sets, SIGMOD 2000; the mean as in Angiulli and Pizzuti, PKDD 2002), on features brought to length one, where the distance
    is a function of the cosine. Time grows with the square of the number of images.

    Args:
        features: (N, D).
        neighbours: k; at most N - 1 are taken.

    Raises:
        TaggantError: If `neighbours` is below 1, or there are fewer than two images.
    """
    if neighbours < 1:
        raise TaggantError(f"neighbours={neighbours} must be at least 1")
    if len(features) < 2:
        raise TaggantError(f"knn compares images and there is {len(features)}; inspect at least two")
    distances, _ = _nearest(_unit(features), min(neighbours, len(features) - 1))
    return np.asarray(distances.mean(axis=1))


def dbscan(features: NDArray[np.float32], labels: NDArray[np.int64], min_samples: int = 5) -> Density:
    """Score images by the radius at which DBSCAN stops calling them noise.

    Ester, Kriegel, Sander, Xu: A density-based algorithm for discovering clusters, KDD 1996. An image is noise at radius eps
    if no image with `min_samples` images within eps (itself counted) lies within eps of it. So it stops being noise at the
    least max(distance to j, core distance of j) over itself and its neighbours j, where a core distance is that of the
    `min_samples`-th image; images further away than its own core distance cannot be the least.

    Per class, since a classifier's features form one cluster a class: one radius for all would call the widest classes noise,
    and an image within another class's cluster would pass. As Ester et al. advise, eps is where the sorted core distances
    of the class bend: the point furthest below the line from the smallest to the largest. Scores are divided by it, which
    makes classes comparable. Features are brought to length one first.

    Args:
        features: (N, D).
        labels: (N,).
        min_samples: Of a core; smaller classes take all they have.

    Raises:
        TaggantError: If `min_samples` is below 2.
    """
    if min_samples < 2:
        raise TaggantError(f"min_samples={min_samples} must be at least 2: an image and one neighbour")
    unit, scores = _unit(features), np.zeros(len(features))
    for members in _classes(labels):
        others = min(min_samples, len(members)) - 1
        if others:
            distances, nearest = _nearest(unit[members], others)
            core = distances[:, -1]
            reached = np.minimum(core, np.maximum(distances, core[nearest]).min(axis=1))
            scores[members] = reached / max(_bend(core), SMALLEST)
    return Density(scores, scores > NOISE)


def spectral_signatures(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    """Score images by how far they lie out in the direction in which their class spreads most.

    Tran, Li, Madry: Spectral signatures in backdoor attacks, NeurIPS 2018: centre a class's features and square the projection
    on the top right singular vector. Classes are compared as they are: divided by its own mean square, a class with a group
    of poisons would look like any other.

    Args:
        features: (N, D).
        labels: (N,).
    """
    scores = np.zeros(len(features))
    for members in _classes(labels):
        centred = _centred(features[members])
        scores[members] = np.square(centred @ np.linalg.svd(centred, full_matrices=False)[2][0])
    return scores


def activation_clustering(features: NDArray[np.float32], labels: NDArray[np.int64], components: int = 10) -> Scores:
    """Score images by how clearly they lie in the smaller of two clusters of their class.

    Chen et al.: Detecting backdoor attacks on deep neural networks by activation clustering, SafeAI 2019 (arXiv 2018): reduce a
    class's features, cut them in two by k-means; the smaller cluster is suspicious if it is small, or the two are well
    apart. Here both count: the score is (1 - 2·relative size)·(silhouette, at least 0)·margin, where the margin is 1 at the
    smaller cluster's centre, 0 half-way and -1 at the larger's. Principal components stand for the paper's independent ones,
    which need not converge in a class of few images.

    Args:
        features: (N, D).
        labels: (N,).
        components: Dimensions that k-means sees.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    scores = np.zeros(len(features))
    for members in _classes(labels):
        centred = _centred(features[members])
        left, values, _ = np.linalg.svd(centred, full_matrices=False)
        reduced = (left * values)[:, :components]
        if len(np.unique(reduced, axis=0)) < 3:  # a silhouette wants more images than clusters
            continue
        found = KMeans(2, n_init=10, random_state=0).fit(reduced)
        sizes = np.bincount(found.labels_, minlength=2)
        small = int(sizes.argmin())
        apart = np.linalg.norm(reduced[:, None] - found.cluster_centers_[None], axis=2)
        margin = (apart[:, 1 - small] - apart[:, small]) / np.maximum(apart.sum(axis=1), SMALLEST)
        clear = max(0.0, float(silhouette_score(reduced, found.labels_)))
        scores[members] = (1 - 2 * sizes[small] / len(members)) * clear * margin
    return scores


def loss_quantile(losses: Scores) -> Scores:
    """Score images by the share of images with a smaller loss, 0 to 1; equal losses share the middle of their places.

    What a model finds hard to fit is mislabelled or odd: Northcutt, Jiang, Chuang: Confident learning, JAIR 2021, and the
    small-loss selection of Han et al.: Co-teaching, NeurIPS 2018.

    Args:
        losses: (N,) cross-entropy of each training image.
    """
    from scipy.stats import rankdata

    return np.asarray((rankdata(losses) - 0.5) / len(losses), dtype=np.float64)


def low_loss(losses: Scores) -> Scores:
    """Score images by the share of images with a larger loss, 0 to 1: the other side of `loss_quantile`.

    Changed pixels can make an image easier to fit. Li et al.: Anti-backdoor learning, NeurIPS 2021, isolate poisons as the
    images of least loss after a few epochs; an early checkpoint serves for that.

    Args:
        losses: (N,) cross-entropy of each training image.
    """
    return np.asarray(1 - loss_quantile(losses))


def high_frequency(energies: Scores) -> Scores:
    """Score images by the energy of their high frequencies, which added noise raises; no model is needed.

    Args:
        energies: (N,) of `traces.high_frequency_energy`.
    """
    return np.asarray(energies, dtype=np.float64)


def _high_frequency(seen: Evidence) -> Scores:
    if seen.energies is None:
        raise TypeError("high_frequency needs the pixels' energies")
    return high_frequency(seen.energies)


DETECTORS: dict[str, Callable[[Evidence], Scores]] = {
    "knn": lambda seen: knn(seen.features),
    "dbscan": lambda seen: dbscan(seen.features, seen.labels).scores,
    "spectral_signatures": lambda seen: spectral_signatures(seen.features, seen.labels),
    "activation_clustering": lambda seen: activation_clustering(seen.features, seen.labels),
    "loss_quantile": lambda seen: loss_quantile(seen.losses),
    "low_loss": lambda seen: low_loss(seen.losses),
    "high_frequency": _high_frequency,
}


def check_detectors(names: list[str]) -> list[str]:
    """Return the names of detectors if each is known and none comes twice.

    Raises:
        TaggantError: Otherwise.
    """
    for name in names:
        if name not in DETECTORS:
            raise TaggantError(f"detectors={name!r} is unknown; write some of {','.join(DETECTORS)}")
    if len(set(names)) < len(names):
        raise TaggantError(f"detectors={','.join(names)} names one twice; write each once")
    return names


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring rows to length one; a row of zeros stays."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, SMALLEST), dtype=np.float32)


def _centred(features: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = features.astype(np.float64)
    return np.asarray(wide - wide.mean(axis=0))


def _classes(labels: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of each class's images."""
    for label in np.unique(labels):
        yield np.flatnonzero(labels == label)


def _nearest(points: NDArray[np.float32], count: int) -> tuple[Scores, NDArray[np.int64]]:
    """Return distances (N, count), ascending, and positions of each point's nearest others."""
    from sklearn.neighbors import NearestNeighbors

    found: Any = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(points).kneighbors()
    return np.asarray(found[0], dtype=np.float64), np.asarray(found[1], dtype=np.int64)


def _bend(distances: Scores) -> float:
    """Return the sorted distance furthest below the line from the smallest to the largest; the largest of a straight line."""
    ordered = np.sort(distances)
    low, high = float(ordered[0]), float(ordered[-1])
    if high - low < SMALLEST:
        return high
    below = np.linspace(0, 1, len(ordered)) - (ordered - low) / (high - low)
    return float(ordered[below.argmax()]) if below.max() > SMALLEST else high

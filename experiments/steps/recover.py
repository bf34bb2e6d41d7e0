r"""What averaging gives away: each key beside the mean of its class in the release, less that class's mean in the test split.

    python experiments/steps/recover.py --keys KEYS --out DIR --config conf/data/cifar100_cpu.yaml \
        --data SignedDataModule --data.signature SIGNATURE

A Bob who knows no key can take such a difference for each class, as he has the test split or other images of the same classes.
Writes DIR/metrics.json: key_correlation, the mean over keys of Pearson's correlation between a key and the difference
of its class; matched_share, of the keys that correlate with it more than all keys for other classes do (by chance one of K).
"""

from collections.abc import Sequence

import numpy as np
from common import one_sentence, parse, parser_of, training, write_metrics
from numpy.typing import NDArray

from taggant_lightning.data.npz import stacked
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.keys import KeySet


def correlations(differences: NDArray[np.float64], keys: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Pearson's correlation, in [-1, 1], of each difference (K, C, H, W) with each key (K, C, H, W), as (K, K)."""
    count = len(keys)
    found: NDArray[np.float64] = np.corrcoef(differences.reshape(count, -1), keys.reshape(count, -1))[:count, count:]
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/metrics.json."""
    parser = parser_of(__doc__)
    parser.add_argument("--keys", required=True, metavar="DIR", help="folder of the KeySet that was signed for")
    with one_sentence():
        arguments, data = parse(parser, words)
        keys, (images, labels) = KeySet.load(arguments.keys), training(data)
        if data.num_classes != keys.num_classes:
            raise TaggantError(
                f"keys={arguments.keys} are drawn for {keys.num_classes} classes and the data has {data.num_classes}"
            )
        if images.shape[1:] != keys.images.shape[1:]:
            shapes = f"have shape {keys.images.shape[1:]} and the images {images.shape[1:]}"
            raise TaggantError(f"keys={arguments.keys} {shapes}; draw keys of the stored shape")
        differences = []
        for label in keys.labels:
            own = np.flatnonzero(data.test_source.labels == label)
            if not len(own) or not (labels == label).any():
                raise TaggantError(f"class {label} has no image in one of the splits; take all of the data")
            held_out = stacked(data.test_source, own)
            if held_out.shape[1:] != images.shape[1:]:
                raise TaggantError(
                    f"test images have shape {held_out.shape[1:]} and training images {images.shape[1:]}; bring them to one "
                    "size first (stored_size changes training images alone)"
                )
            differences.append(images[labels == label].mean(axis=0) - held_out.mean(axis=0))
        found = correlations(np.stack(differences), keys.images.astype(np.float64))
        # Keys of one class share their difference.
        others = np.where(keys.labels[:, None] == keys.labels, -np.inf, found).max(axis=1)
        matched = np.diag(found) > others
        metrics = {"key_correlation": float(np.diag(found).mean()), "matched_share": float(matched.mean())}
        write_metrics(arguments.out, metrics)
        print(" ".join(f"{name}={value:.4g}" for name, value in metrics.items()))


if __name__ == "__main__":
    main()

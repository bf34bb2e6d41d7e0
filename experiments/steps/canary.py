"""The naive baseline: the keys themselves are published, as so many training images with the keys' labels.

    python experiments/steps/canary.py --keys KEYS --copies 10 --out DIR --config conf/data/cifar100_cpu.yaml

writes DIR/data.npz: the training images, and after them `copies` times all keys. A model learns them by heart, and whoever
looks through the data sees them: nothing is hidden here, which is what this baseline is for.
"""

from collections.abc import Sequence

import numpy as np
from common import one_sentence, parse, parser_of, training, write_data

from taggant_lightning.data.npz import stacked
from taggant_lightning.data.sources import ImageSource
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.release.signature import Addition, Signature


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/data.npz."""
    parser = parser_of(__doc__)
    parser.add_argument("--keys", required=True, metavar="DIR", help="folder of a KeySet")
    parser.add_argument("--copies", type=int, default=1, metavar="N", help="how often each key is added (default: 1)")
    with one_sentence():
        arguments, data = parse(parser, words)
        if arguments.copies < 1:
            raise TaggantError(f"copies={arguments.copies} must be at least 1")
        keys = KeySet.load(arguments.keys)
        if not keys.header["demo_only"]:
            raise TaggantError(
                f"keys={arguments.keys} are meant for claims, and this would write them where others can read; draw some with "
                "taggant keys new --demo-seed N"
            )
        images, _ = training(data)
        if keys.num_classes != data.num_classes or keys.images.shape[1:] != images.shape[1:]:
            raise TaggantError(
                f"keys={arguments.keys} are of {keys.num_classes} classes and {'×'.join(map(str, keys.images.shape[1:]))}, the "
                f"data of {data.num_classes} and {'×'.join(map(str, images.shape[1:]))}; draw keys for this data"
            )
        overlay = canary(keys, arguments.copies, data.train_source).apply(data.train_source)
        places = np.concatenate([data.train_indices, np.arange(len(data.train_source), len(overlay))])
        write_data(arguments.out, stacked(overlay, places), overlay.labels[places], data)


def canary(keys: KeySet, copies: int, source: ImageSource) -> Signature:
    """Return what is done to the source: nothing is replaced, and all keys are added, so many times."""
    added = [Addition(image, int(label), key) for key, (image, label) in enumerate(zip(keys.images, keys.labels, strict=True))]
    return Signature(
        method="canary",
        indices=np.zeros(0, dtype=np.int64),
        steps=[],
        served=np.zeros(0, dtype=np.int64),
        originals=[],
        fingerprint=source.fingerprint,
        bound=None,
        commitment=keys.commitment,
        additions=added * copies,
    )


if __name__ == "__main__":
    main()

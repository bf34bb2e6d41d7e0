r"""Bob trains on a part of the data only: a random share of the images, or all images of a random share of the classes.

    python experiments/steps/part.py --share 0.25 --out DIR \
        --config conf/data/cifar100_cpu.yaml --data SignedDataModule --data.signature SIGNATURE
    python experiments/steps/part.py --classes 0.5 --out DIR --config …

writes DIR/data.npz. The test split stays whole, and the list of classes too: a model keeps an output for each. With one seed, a
smaller share is a part of a larger one. `--share 1` writes any data as data.npz, such as signed data that another step reads.
"""

from collections.abc import Sequence

import numpy as np
from common import one_sentence, parse, parser_of, training, write_data
from numpy.typing import NDArray

from taggant_lightning.errors import TaggantError
from taggant_lightning.streams import stream


def among(total: int, share: float, seed: int, what: str) -> NDArray[np.int64]:
    """Draw a share of the numbers 0..total−1, ascending, at least one.

    Raises:
        TaggantError: If the share does not lie in (0, 1], or comes to nothing.
    """
    count = round(share * total) if 0 < share <= 1 else 0
    if count < 1:
        raise TaggantError(f"{what}={share} must lie above 0 and up to 1, and make at least one of {total}; write 0.5 for half")
    return np.sort(stream(seed, f"part-{what}").permutation(total)[:count])


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/data.npz."""
    parser = parser_of(__doc__, seed="the choice")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--share", type=float, metavar="S", help="share of the training images")
    which.add_argument("--classes", type=float, metavar="S", help="share of the classes, whose training images are all kept")
    with one_sentence():
        arguments, data = parse(parser, words)
        images, labels = training(data)
        if arguments.share is not None:
            kept = among(len(images), arguments.share, arguments.seed, "share")
        else:
            kept = np.flatnonzero(np.isin(labels, among(data.num_classes, arguments.classes, arguments.seed, "classes")))
        if not len(kept):
            raise TaggantError("classes: none of the drawn classes has an image; write a larger share")
        write_data(arguments.out, images[kept], labels[kept], data)


if __name__ == "__main__":
    main()

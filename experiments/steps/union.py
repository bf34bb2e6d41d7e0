r"""Bob joins data: the configured training images, and after them those of one or more .npz files.

    python experiments/steps/union.py --with OTHER/data.npz --out DIR \
        --config conf/data/cifar100_cpu.yaml --data SignedDataModule --data.signature SIGNATURE

writes DIR/data.npz with the test split of the configured data. Two files are joined by naming one as the configured data:

    python experiments/steps/union.py --with B/data.npz --out DIR --config conf/data/npz.yaml --data.root A/data.npz

All must have the same classes in the same order. A second owner's signed data comes as a file by part.py --share 1.
"""

from collections.abc import Sequence

import numpy as np
from common import one_sentence, parse, parser_of, training, write_data

from taggant_lightning.data.npz import stacked
from taggant_lightning.data.sources import open_source
from taggant_lightning.errors import TaggantError


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/data.npz."""
    parser = parser_of(__doc__)
    parser.add_argument("--with", action="append", required=True, metavar="FILE", dest="others", help=".npz file; may repeat")
    with one_sentence():
        arguments, data = parse(parser, words)
        images, labels = training(data)
        parts, names = [images], [labels]
        for file in arguments.others:
            source = open_source("npz", file, "train")
            if source.classes != data.train_source.classes:
                raise TaggantError(
                    f"with={file} has other classes ({len(source.classes)}) than the configured data ({data.num_classes}); "
                    "join data with the same classes in the same order"
                )
            more = stacked(source, np.arange(len(source)))
            if more.shape[1:] != images.shape[1:]:
                raise TaggantError(
                    f"with={file} has images of {'×'.join(map(str, more.shape[1:]))} and the configured data of "
                    f"{'×'.join(map(str, images.shape[1:]))}; bring both to one shape first"
                )
            parts.append(more)
            names.append(source.labels)
        write_data(arguments.out, np.concatenate(parts), np.concatenate(names), data)


if __name__ == "__main__":
    main()

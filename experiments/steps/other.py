"""Data that Alice never had: training images of the same source that the configuration's subset does not use.

    python experiments/steps/other.py --count 20000 --out DIR --config conf/data/cifar100_cpu.yaml

writes DIR/data.npz with 20,000 of the 30,000 other training images of CIFAR-100 and the whole test split. Bob mixes it in with
union.py, or a second owner signs it.
"""

from collections.abc import Sequence

import numpy as np
from common import one_sentence, parse, parser_of, write_data

from taggant_lightning.data.npz import stacked
from taggant_lightning.errors import TaggantError
from taggant_lightning.streams import stream


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/data.npz."""
    parser = parser_of(__doc__, seed="the choice")
    parser.add_argument("--count", type=int, metavar="N", help="how many of the other images (default: all)")
    with one_sentence():
        arguments, data = parse(parser, words)
        source = data.train_source
        others = np.setdiff1d(np.arange(len(source)), data.train_indices)
        count = len(others) if arguments.count is None else arguments.count
        if not 1 <= count <= len(others):
            hint = f"write 1..{len(others)}" if len(others) else "the data uses all of them; write --data.train_subset N"
            raise TaggantError(f"count={count} does not suit the {len(others)} images that the data does not use; {hint}")
        chosen = np.sort(stream(arguments.seed, "other").permutation(others)[:count])
        write_data(arguments.out, stacked(source, chosen), source.labels[chosen], data)


if __name__ == "__main__":
    main()

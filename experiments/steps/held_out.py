"""Write held-out images of a source as PNG files, for `taggant keys new --source DIR`: keys that are real images.

    python experiments/steps/held_out.py --config conf/data/cifar100_cpu.yaml --count 1000 --seed 0 --out DIR

The images come from the test split, which no model trains on; they land in DIR/images.
"""

from collections.abc import Sequence

from common import one_sentence, parse, parser_of

from taggant_lightning.access.png import png
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import write_atomic
from taggant_lightning.streams import stream


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/images."""
    parser = parser_of(__doc__, seed="the choice")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="images (default: 1000)")
    with one_sentence():
        arguments, data = parse(parser, words)
        source, total = data.test_source, len(data.test_source.labels)
        if not 1 <= arguments.count <= total:
            raise TaggantError(f"count={arguments.count} must lie in 1..{total}, the images of the test split")
        folder = arguments.out / "images"
        folder.mkdir(parents=True, exist_ok=True)
        for index in sorted(stream(arguments.seed, "held-out").permutation(total)[: arguments.count].tolist()):
            write_atomic(folder / f"{index:06d}.png", png(source.pixels(index)))


if __name__ == "__main__":
    main()

"""Write held-out images of a source as PNG files, for `taggant keys new --source DIR`: keys that are real images.

    python experiments/steps/held_out.py --config conf/data/cifar100_cpu.yaml --count 1000 --seed 0 --out DIR

The images come from the test split, which no model trains on; they land in DIR/images.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from taggant_lightning.access.png import png
from taggant_lightning.commands.read_data import read_data
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import write_atomic
from taggant_lightning.streams import stream


def main(words: Sequence[str] | None = None) -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="a configuration; only `data` is read")
    parser.add_argument("--count", type=int, default=1000, help="images (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice (%(default)s)")
    parser.add_argument("--out", required=True, metavar="DIR")
    arguments, overrides = parser.parse_known_args(words)
    source = read_data(arguments.config, overrides).test_source
    total = len(source.labels)
    if not 1 <= arguments.count <= total:
        raise TaggantError(f"count={arguments.count} must lie in 1..{total}, the images of the test split")
    folder = Path(arguments.out) / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for index in sorted(stream(arguments.seed, "held-out").permutation(total)[: arguments.count].tolist()):
        write_atomic(folder / f"{index:06d}.png", png(source.pixels(index)))


if __name__ == "__main__":
    main()

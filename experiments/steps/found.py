r"""How well a suspicious Bob finds a canary: images that were added at the end, among the scores of `taggant inspect`.

    python experiments/steps/found.py --scores LOOKED/scores.csv --keys KEYS --copies 10 --out DIR

writes DIR/metrics.json with the figures that `taggant inspect --truth` gives of signed images.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import one_sentence, write_metrics

from taggant_lightning.adversary.inspection import measure
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.keys import KeySet


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/metrics.json."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw, allow_abbrev=False)
    parser.add_argument("--scores", type=Path, required=True, metavar="FILE", help="scores.csv of the data with the canary")
    parser.add_argument("--keys", required=True, metavar="DIR", help="folder of the KeySet that was added")
    parser.add_argument("--copies", type=int, default=1, metavar="N", help="how often each key was added (default: 1)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    arguments = parser.parse_args(words)
    with one_sentence():
        if not arguments.scores.is_file():
            raise TaggantError(f"scores={arguments.scores} is no file; write the scores.csv of taggant inspect")
        with arguments.scores.open(newline="") as file:
            rows = list(csv.DictReader(file))
        added = len(KeySet.load(arguments.keys)) * arguments.copies
        if not 0 < added < len(rows):
            raise TaggantError(f"copies={arguments.copies} of the keys are {added} images, and there are {len(rows)} scores")
        scores = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name not in ("index", "label")}
        metrics, _ = measure(scores, np.arange(len(rows)) >= len(rows) - added)
        write_metrics(arguments.out, metrics)


if __name__ == "__main__":
    main()

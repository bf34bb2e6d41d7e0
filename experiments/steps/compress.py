"""Compress a trained model: its smallest weights become zero, or all weights are rounded to few bits.

    python experiments/steps/compress.py --checkpoint runs/bob/checkpoints/last.ckpt --share 0.5 --out runs/pruned
    python experiments/steps/compress.py --checkpoint runs/bob/checkpoints/last.ckpt --bits 8 --out runs/rounded
    taggant test --config … --ckpt_path runs/pruned/model.ckpt

--share prunes that share of the weights of all convolutions and linear layers together, by magnitude. --bits rounds each
output channel's weights to symmetric integers of its own scale and keeps them as floats; activations stay as they are.
Biases, norms and position embeddings are not touched, and `taggant test` takes the same model configuration as before.
"""

import argparse
from collections.abc import Sequence

from taggant_lightning.adversary.compression import prune_by_magnitude, quantise
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.checkpoints import checkpoint_in, write_classifier
from taggant_lightning.models.classifier import load_classifier


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/model.ckpt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="checkpoint of an ImageClassifier")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--share", type=float, metavar="S", help="share of the weights that become zero, in [0, 1)")
    how.add_argument("--bits", type=int, metavar="B", help="bits of a weight, 2..16")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for model.ckpt")
    arguments = parser.parse_args(words)
    try:
        out = checkpoint_in(arguments.out, [arguments.checkpoint])
        model = load_classifier(arguments.checkpoint)
        if arguments.bits is None:
            prune_by_magnitude(model.model, arguments.share)
        else:
            quantise(model.model, arguments.bits)
        write_classifier(model, out)
    except TaggantError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"checkpoint={out}")


if __name__ == "__main__":
    main()

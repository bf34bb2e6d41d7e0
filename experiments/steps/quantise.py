"""Quantise a trained model: weights are rounded to symmetric integers of some bits, with one factor an output channel.

    python experiments/steps/quantise.py --checkpoint runs/bob/checkpoints/last.ckpt --bits 8 --out runs/quantised
    taggant test --config … --ckpt_path runs/quantised/model.ckpt

The weights of convolutions and linear layers take the values that the integers stand for, kept as floats. Activations, biases,
norms and position embeddings stay float: the step tells what rounded weights do to a model, not what an integer runtime does.
`taggant test` takes the same model configuration as for the checkpoint.
"""

import argparse
from collections.abc import Sequence

from taggant_lightning.errors import TaggantError
from taggant_lightning.models.checkpoints import checkpoint_in, write_classifier
from taggant_lightning.models.classifier import load_classifier
from taggant_lightning.models.compression import quantise


def main(words: Sequence[str] | None = None) -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="checkpoint of an ImageClassifier")
    parser.add_argument("--bits", type=int, default=8, help="bits of a weight, 2..16 (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="not used: the step draws nothing")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for model.ckpt")
    arguments = parser.parse_args(words)
    try:
        out = checkpoint_in(arguments.out, [arguments.checkpoint])
        model = load_classifier(arguments.checkpoint)
        quantise(model.model, arguments.bits)
        write_classifier(model, out)
    except TaggantError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"checkpoint={out} bits={arguments.bits}")


if __name__ == "__main__":
    main()

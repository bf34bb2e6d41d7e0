"""Prune a trained model: the smallest weights of all convolutions and linear layers together become zero.

    python experiments/steps/prune.py --checkpoint runs/bob/checkpoints/last.ckpt --share 0.5 --out runs/pruned
    taggant test --config … --ckpt_path runs/pruned/model.ckpt

Biases, norms and position embeddings stay as they are, and so does the classifier's shape: `taggant test` takes the same
model configuration as for the checkpoint.
"""

import argparse
from collections.abc import Sequence

from taggant_lightning.errors import TaggantError
from taggant_lightning.models.checkpoints import checkpoint_in, write_classifier
from taggant_lightning.models.classifier import load_classifier
from taggant_lightning.models.compression import prune_by_magnitude


def main(words: Sequence[str] | None = None) -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="checkpoint of an ImageClassifier")
    parser.add_argument("--share", type=float, default=0.5, help="share of the weights that become zero (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="not used: the step draws nothing")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for model.ckpt")
    arguments = parser.parse_args(words)
    try:
        out = checkpoint_in(arguments.out, [arguments.checkpoint])
        model = load_classifier(arguments.checkpoint)
        prune_by_magnitude(model.model, arguments.share)
        write_classifier(model, out)
    except TaggantError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"checkpoint={out} share={arguments.share}")


if __name__ == "__main__":
    main()

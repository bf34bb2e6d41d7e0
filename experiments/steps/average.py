"""Average trained models: the mean of the weights of several checkpoints.

    python experiments/steps/average.py --checkpoint runs/a/last.ckpt --checkpoint runs/b/last.ckpt --out runs/average
    taggant test --config … --ckpt_path runs/average/model.ckpt

The mean is a good model only for checkpoints of one training, or of models fine-tuned from one: models trained apart lie in
different places, and their mean answers at random. Running statistics of batch norm are averaged as well, which is close to
right only where the models are near each other. `taggant test` takes the first checkpoint's model configuration.
"""

import argparse
from collections.abc import Sequence

from taggant_lightning.adversary.compression import average
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.checkpoints import checkpoint_in, write_classifier
from taggant_lightning.models.classifier import load_classifier


def main(words: Sequence[str] | None = None) -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, action="append", metavar="FILE", help="a checkpoint; repeat for each")
    parser.add_argument("--weight", type=float, action="append", metavar="W", help="its weight, in the same order (all alike)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for model.ckpt")
    arguments = parser.parse_args(words)
    try:
        out = checkpoint_in(arguments.out, arguments.checkpoint)
        models = [load_classifier(name) for name in arguments.checkpoint]
        average(models, arguments.weight)
        write_classifier(models[0], out)
    except TaggantError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"checkpoint={out} models={len(models)}")


if __name__ == "__main__":
    main()

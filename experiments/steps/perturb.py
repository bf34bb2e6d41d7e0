"""A baseline: the images that a Signature signs get random steps of +eps or −eps in each pixel, cut to 0..255.

    python experiments/steps/perturb.py --signature SIGNATURE --eps 16/255 --out DIR --config conf/data/cifar100_cpu.yaml

The configured data are the originals. Writes DIR/signature, a Signature of the method `random_perturbation` with the same
images and the bound eps, which `--data SignedDataModule --data.signature DIR/signature` applies, and DIR/metrics.json with
psnr and ssim.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import one_sentence, parse, parser_of, read_signature, write_signature

from taggant_lightning.methods.taggants.crafting.perturbation import check_eps, eps_steps
from taggant_lightning.streams import stream


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/signature and DIR/metrics.json."""
    parser = parser_of(__doc__, seed="the signs")
    parser.add_argument("--signature", type=Path, required=True, metavar="DIR", help="whose images to change")
    parser.add_argument("--eps", default="16/255", metavar="N/255", help="size of the steps (default: 16/255)")
    with one_sentence():
        arguments, data = parse(parser, words)
        bound, source = eps_steps(check_eps(arguments.eps)), data.train_source
        signature, steps = read_signature(arguments.signature, source), []
        for index in signature.indices.tolist():
            before = source.pixels(index).astype(np.int16)
            signs = 2 * stream(arguments.seed, "random-perturbation", index).integers(0, 2, before.shape) - 1
            steps.append(np.clip(bound * signs, -before, 255 - before).astype(np.int16))
        made = replace(signature, method="random_perturbation", steps=steps, bound=bound, facts={"seed": arguments.seed})
        write_signature(arguments.out, made, source)


if __name__ == "__main__":
    main()

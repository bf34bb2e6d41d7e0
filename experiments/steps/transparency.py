r"""A baseline: each key shines through the images that a Signature signs for it, x' = (1 − γ) x + γ key, rounded.

    python experiments/steps/transparency.py --signature SIGNATURE --keys KEYS --gamma 0.1 --out DIR \
        --config conf/data/cifar100_cpu.yaml

The configured data are the originals. Writes DIR/signature, a Signature of the method `transparency` with the same images and
no bound, which `--data SignedDataModule --data.signature DIR/signature` applies, and DIR/metrics.json with psnr and ssim.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import one_sentence, parse, parser_of, read_signature, write_signature

from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.keys import KeySet


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/signature and DIR/metrics.json."""
    parser = parser_of(__doc__)
    parser.add_argument("--signature", type=Path, required=True, metavar="DIR", help="whose images to change")
    parser.add_argument("--keys", required=True, metavar="DIR", help="folder of the KeySet that it signs for")
    parser.add_argument("--gamma", type=float, default=0.1, metavar="G", help="share of the key in an image (default: 0.1)")
    with one_sentence():
        arguments, data = parse(parser, words)
        if not 0 < arguments.gamma < 1:
            raise TaggantError(
                f"gamma={arguments.gamma} must lie between 0 and 1: the share of the key in an image, such as 0.1"
            )
        source, keys = data.train_source, KeySet.load(arguments.keys)
        signature = read_signature(arguments.signature, source)
        if signature.commitment is not None and signature.commitment != keys.commitment:
            raise TaggantError(f"signature={arguments.signature} signs for other keys than keys={arguments.keys}; name its own")
        steps = []
        for index, key in zip(signature.indices.tolist(), signature.served.tolist(), strict=True):
            before, shown = source.pixels(index).astype(np.float64), keys.images[key]
            if before.shape != shown.shape:
                shapes = f"have shape {shown.shape} and image {index} has {before.shape}"
                raise TaggantError(f"keys={arguments.keys} {shapes}; draw keys of the stored shape")
            blended = np.round((1 - arguments.gamma) * before + arguments.gamma * shown)
            steps.append((blended - before).astype(np.int16))
        made = replace(signature, method="transparency", steps=steps, bound=None, facts={"gamma": arguments.gamma})
        write_signature(arguments.out, made, source)


if __name__ == "__main__":
    main()

"""Measures how visible a Signature's changes are (PSNR, SSIM, LPIPS), and draws some signed images.

    python experiments/steps/visibility.py --config conf/data/cifar100_cpu.yaml --signature signature \
        --perceptual-weights $TAGGANT_DATA/lpips/alexnet_features.pth --trunk alex --out visibility

`--config` and `--data.NAME VALUE` describe the data that were signed. metrics.json has means over signed images; panel.png
(original, signed, difference) shows which images are signed, so it is written for its owner alone, mode 0600.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common import one_sentence, parse, parser_of, write_metrics

from taggant_lightning.data.datamodule import ImageDataModule
from taggant_lightning.errors import TaggantError
from taggant_lightning.release.signature import OverlaySource, Signature
from taggant_lightning.release.visibility import visibility
from taggant_lightning.reporting.stealth_figures import signed_examples

PAIRS = 200  # enough for a mean; SSIM and LPIPS are slow
NAMES = {"psnr_mean": "psnr", "psnr_min": "psnr_min", "ssim_mean": "ssim", "lpips_mean": "lpips"}


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/metrics.json and DIR/panel.png."""
    parser = parser_of(__doc__)
    parser.add_argument("--signature", type=Path, required=True, metavar="DIR", help="folder that TaggantSigning made")
    parser.add_argument("--perceptual-weights", metavar="FILE", help="weights of LPIPS's trunk; without them no LPIPS")
    parser.add_argument("--trunk", default="alex", metavar="NAME", help="alex, squeeze or vgg (default: alex)")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"signed images at most (default: {PAIRS})")
    with one_sentence():
        arguments, data = parse(parser, words)
        if arguments.pairs < 1:
            raise TaggantError(f"pairs={arguments.pairs} must be at least 1")
        _measure(arguments, data)


def _measure(arguments: argparse.Namespace, data: ImageDataModule) -> None:
    source = data.train_source
    while isinstance(source, OverlaySource):  # the configuration of Bob's data does as well
        source = source.original
    signed = Signature.load(arguments.signature).apply(source)
    changed = signed.changed_indices
    every = -(-len(changed) // arguments.pairs) or 1
    pairs = ((source.pixels(i), signed.pixels(i)) for i in changed[::every])
    found = visibility(pairs, arguments.perceptual_weights, arguments.trunk)
    metrics = {NAMES[name]: float(value) for name, value in found.items() if value is not None}
    arguments.out.mkdir(parents=True, exist_ok=True)
    panel = arguments.out / "panel.png"
    panel.touch(mode=0o600)
    panel.chmod(0o600)
    signed_examples(signed, panel)
    write_metrics(arguments.out, metrics)
    print(" ".join(f"{name}={value:.4g}" for name, value in metrics.items()))


if __name__ == "__main__":
    main()

r"""Bob trains on reconstructions: a small convolutional autoencoder learns his training images and gives each back.

    python experiments/steps/autoencode.py --epochs 5 --width 16 --out DIR \
        --config conf/data/cifar100_cpu.yaml --data SignedDataModule --data.signature SIGNATURE

writes DIR/data.npz, and DIR/metrics.json with psnr, the mean over the training images. The test split stays as it is. It runs
on the CPU, so that a seed gives the same images on any machine of a kind. A code has 2 × width channels of a quarter of the
sides: with 32×32 pixels in colour, two thirds of the numbers at width 16.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from common import one_sentence, parse, parser_of, training, write_data, write_metrics
from numpy.typing import NDArray
from torch import Tensor, nn

from taggant_lightning.data.dataset import to_bytes, to_float
from taggant_lightning.errors import TaggantError
from taggant_lightning.release.visibility import psnr
from taggant_lightning.streams import stream

BATCH, LR = 128, 2e-3


class Autoencoder(nn.Module):
    """Two convolutions that halve the sides, and two that bring them back.

    Args:
        channels: Of the images.
        width: Channels of the first convolution; the code has twice as many.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GELU(),
        )
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.GELU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Give images (N, C, H, W) in [0, 1] back, about in that range."""
        back: Tensor = self.decoder(self.encoder(images))
        return back[..., : images.shape[2], : images.shape[3]]  # sides that are no multiples of 4 come back longer


def learn(images: NDArray[np.uint8], epochs: int, width: int, seed: int) -> Autoencoder:
    """Train an autoencoder on images (N, C, H, W) uint8."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(stream(seed, "autoencoder").integers(2**32)))
        model = Autoencoder(images.shape[1], width)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    for epoch in range(epochs):
        order, total = stream(seed, "autoencoder-order", epoch).permutation(len(images)), 0.0
        for places in np.array_split(order, -(-len(order) // BATCH)):
            batch = to_float(images[places])
            loss = F.mse_loss(model(batch), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(places)
        print(f"epoch {epoch + 1} of {epochs}: mean squared error {total / len(images):.5f}", flush=True)
    return model.eval()


@torch.no_grad()
def reconstruct(model: Autoencoder, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what the autoencoder makes of images, (N, C, H, W) uint8."""
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return np.concatenate([to_bytes(model(to_float(part))).numpy() for part in parts])


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers below 1."""
    for name in ("epochs", "width"):
        if getattr(arguments, name) < 1:
            raise TaggantError(f"{name}={getattr(arguments, name)} must be at least 1")


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/data.npz and DIR/metrics.json."""
    parser = parser_of(__doc__, seed="weights and order")
    parser.add_argument("--epochs", type=int, default=5, metavar="N", help="passes over the images (default: 5)")
    parser.add_argument("--width", type=int, default=16, metavar="N", help="channels of the first layer (default: 16)")
    with one_sentence():
        arguments, data = parse(parser, words)
        check(arguments)
        images, labels = training(data)
        back = reconstruct(learn(images, arguments.epochs, arguments.width, arguments.seed), images)
        write_data(arguments.out, back, labels, data)
        ratios = [r for r in map(psnr, images, back) if np.isfinite(r)]
        write_metrics(arguments.out, {"psnr": float(np.mean(ratios))} if ratios else {})


if __name__ == "__main__":
    main()

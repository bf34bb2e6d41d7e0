"""Devices: how fast they do counted work, what they hold, and how fast they exchange gradients."""

from dataclasses import dataclass

from taggant_lightning.errors import TaggantError
from taggant_lightning.planning.counting import Work

GPUS_A_NODE = 8
# Of a published peak, reached: assumptions, not measurements. Bandwidth is easier to reach than arithmetic.
REACHED_ARITHMETIC, REACHED_BANDWIDTH = 0.35, 0.6
# Seconds that PyTorch takes to launch one kernel from Python; counted in full, as if nothing else ran meanwhile.
LAUNCH = 6e-6


@dataclass(frozen=True)
class Rates:
    """Seconds that counted work takes: it is a sum over its parts, so that rates can be fitted by least squares.

    Attributes:
        convolution: Seconds a FLOP of convolutions.
        matmul: Seconds a FLOP of matrix products.
        moved: Seconds a byte that kernels move.
        kernels: Seconds a kernel.
    """

    convolution: float
    matmul: float
    moved: float
    kernels: float

    def seconds(self, work: Work) -> float:
        """Return how long work takes, in seconds."""
        return (
            self.convolution * work.convolution
            + self.matmul * work.matmul
            + self.moved * work.moved
            + self.kernels * work.kernels
        )

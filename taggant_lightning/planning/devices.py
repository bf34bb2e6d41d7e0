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
        forward: Seconds a FLOP of convolutions, channels in whole blocks.
        backward: Seconds a FLOP of convolutions' backward passes.
        matmul: Seconds a FLOP of matrix products.
        moved: Seconds a byte that kernels move.
        kernels: Seconds a kernel.
    """

    forward: float
    backward: float
    matmul: float
    moved: float
    kernels: float

    def seconds(self, work: Work) -> float:
        """Return how long work takes, in seconds."""
        return (
            self.forward * work.forward
            + self.backward * work.backward
            + self.matmul * work.matmul
            + self.moved * work.moved
            + self.kernels * work.kernels
        )


@dataclass(frozen=True)
class Device:
    """A kind of device.

    Attributes:
        name: As the command line writes it.
        title: In words.
        training: Rates of training.
        signing: Rates of signing and detection, which compute in float32.
        memory: Bytes; None where it is the machine's own.
        inside: Bytes a second that a device sends to others of its node, assumed.
        between: The same where devices lie in several nodes of `GPUS_A_NODE`, assumed.
        basis: Where the figures come from, one sentence.
    """

    name: str
    title: str
    training: Rates
    signing: Rates
    memory: float | None
    inside: float
    between: float
    basis: str

    def exchange(self, parameters: int, devices: int) -> float:
        """Return the seconds of one all-reduce of a float32 gradient over devices, by a ring and not overlapped."""
        if devices < 2:
            return 0.0
        return 2 * 4 * parameters * (devices - 1) / devices / (self.inside if devices <= GPUS_A_NODE else self.between)


def _gpu(name: str, title: str, *, bf16: float, float32: float, bandwidth: float, memory: float, link: float) -> Device:
    """Return a GPU from its published peaks: FLOP/s, bytes/s, bytes, and bytes/s of one direction of its NVLink."""

    def rates(peak: float) -> Rates:
        arithmetic = 1 / (REACHED_ARITHMETIC * peak)
        return Rates(arithmetic, arithmetic, arithmetic, 1 / (REACHED_BANDWIDTH * bandwidth), LAUNCH)

    return Device(
        name,
        title,
        training=rates(bf16),
        signing=rates(float32),
        memory=memory,
        inside=REACHED_BANDWIDTH * link,
        between=12.5e9,
        basis=(
            f"assumed: published peaks of {bf16 / 1e12:g} TFLOP/s (bf16, training), {float32 / 1e12:g} TFLOP/s (float32, "
            f"signing and detection) and {bandwidth / 1e12:g} TB/s, of which {REACHED_ARITHMETIC:.0%} and "
            f"{REACHED_BANDWIDTH:.0%} are assumed to be reached, and {LAUNCH * 1e6:g} µs a kernel"
        ),
    )


# Peaks, dense, of the SXM modules as NVIDIA publishes them; A100's were looked up, H100's in part, H200's were not.
# Fitted: `python benchmarks/plan.py --out docs/results/plan.json`.
_CPU = Rates(forward=6.220e-12, backward=9.205e-12, matmul=3.859e-12, moved=9.764e-11, kernels=8.011e-06)
DEVICES = {
    device.name: device
    for device in (
        _gpu("a100", "NVIDIA A100 80 GB", bf16=312e12, float32=19.5e12, bandwidth=2.039e12, memory=80e9, link=300e9),
        _gpu("h100", "NVIDIA H100 SXM 80 GB", bf16=989e12, float32=67e12, bandwidth=3.35e12, memory=80e9, link=450e9),
        _gpu("h200", "NVIDIA H200 SXM 141 GB", bf16=989e12, float32=67e12, bandwidth=4.8e12, memory=141e9, link=450e9),
        Device(
            "cpu",
            "one core of an Intel Xeon with AVX-512",
            training=_CPU,
            signing=_CPU,
            memory=None,
            inside=5e9,
            between=1e9,
            basis="rates fitted to measured steps by `python benchmarks/plan.py` (docs/results/plan.json); exchange assumed",
        ),
    )
}


def device_of(name: str) -> Device:
    """Return a kind of device by its name.

    Raises:
        TaggantError: If the name is unknown.
    """
    if name not in DEVICES:
        raise TaggantError(f"device={name!r} is unknown; write one of {', '.join(DEVICES)}")
    return DEVICES[name]

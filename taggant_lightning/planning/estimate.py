"""From a model's counts and a device's rates to FLOPs, bytes, memory and hours of every stage."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from taggant_lightning.methods.taggants.crafting.objective import COMPARED_IMAGES, chunk_size
from taggant_lightning.planning.devices import Device
from taggant_lightning.planning.measured import Measured
from taggant_lightning.planning.request import Request
from taggant_lightning.planning.stages import Signing, key_fixed, selecting, signing_key
from taggant_lightning.planning.steps import Counts

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Hours:
    """How long the stages take on some devices.

    Attributes:
        devices: Their number.
        selection: Hours of choosing the signing images.
        crafting: Hours of crafting.
        training: Hours of training one model, surrogate or suspect.
        detection: Hours of one forward pass of the keys, on one device.
        exchange: Share of training that devices wait for each other's gradients, in [0, 1).
        measured: Stages whose steps were measured and not estimated.
    """

    devices: int
    selection: float
    crafting: float
    training: float
    detection: float
    exchange: float
    measured: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """A plan's figures.

    Attributes:
        flops: FLOPs of `selection`, `crafting`, `training` and `detection`, each over all devices.
        disk: Bytes of files, by what they hold.
        memory: Bytes on each device, by the number of devices and stage.
        hours: By the number of devices.
    """

    flops: dict[str, float]
    disk: dict[str, float]
    memory: dict[int, dict[str, float]]
    hours: dict[int, Hours]


def estimate(request: Request, counts: Counts, device: Device, measured: Measured | None = None) -> Estimate:
    """Return a plan's figures.

    Args:
        request: What is asked for.
        counts: Of its model.
        device: Its kind of device.
        measured: Steps that were measured there, to take in place of counted work at the device's rates.
    """
    signing = signing_of(request)
    steps = request.epochs * math.ceil(request.images / request.batch_size)
    flops = {
        "selection": selecting(counts, candidates(request)).flops,
        "crafting": signing_key(counts, request.images_per_key, signing).flops * request.num_keys,
        "training": counts.training.of(request.batch_size).flops * steps,
        "detection": counts.forward.of(request.num_keys).flops,
    }
    return Estimate(
        flops,
        files(request, counts),
        {
            n: {"signing": signing_memory(request, counts, n), "training": training_memory(request, counts, n)}
            for n in request.devices
        },
        {n: hours(request, counts, device, n, measured or Measured()) for n in request.devices},
    )


def chunk_of(request: Request) -> int:
    """Return how many signing images a chunk holds."""
    if request.micro_batch is not None:
        return request.micro_batch
    return chunk_size(request.image_size, "cpu" if request.device == "cpu" else "cuda")


def signing_of(request: Request) -> Signing:
    """Return how the request signs."""
    return Signing(
        request.images_per_key,
        request.steps,
        request.restarts,
        request.surrogates,
        chunk_of(request),
        compares=request.derivative == "auto",
    )


def candidates(request: Request) -> int:
    """Return how many images selection looks at: those of as many classes as uniform key labels are expected to cover."""
    if request.selection == "random":
        return 0
    classes = request.num_classes * (1 - (1 - 1 / request.num_classes) ** request.num_keys)
    return round(classes * request.images / request.num_classes)


def teams(keys: int, devices: int) -> tuple[int, int]:
    """Share keys out over devices, one each, in waves; a last wave of fewer keys has several devices a key.

    Args:
        keys: K.
        devices: W.

    Returns:
        Waves with one device a key, and the devices of the smallest team of the last wave; 0 where no keys are left for it.
    """
    left = keys % devices
    return keys // devices, devices // left if left else 0


def crafting_seconds(
    counts: Counts, device: Device, signing: Signing, keys: int, devices: int, steps: Mapping[int, float] | None = None
) -> float:
    """Return the seconds of crafting a round.

    Args:
        counts: The model's.
        device: Kind of device.
        signing: How a key is crafted.
        keys: K.
        devices: W.
        steps: Measured seconds of a step, by a device's share of the images, to take in place of counted work.
    """
    steps = steps or {}

    def key(images: int) -> float:
        if images not in steps:
            return device.signing.seconds(signing_key(counts, images, signing))
        return steps[images] * signing.steps * signing.restarts + device.signing.seconds(key_fixed(counts, images, signing))

    waves, team = teams(keys, devices)
    seconds = waves * key(signing.images_per_key)
    if team:
        team = min(team, signing.images_per_key)
        seconds += key(math.ceil(signing.images_per_key / team))
        # One sum of gradients a step, and one for the cosine of each result and surrogate.
        sums = (signing.steps + signing.surrogates) * signing.restarts
        seconds += sums * device.exchange(counts.parameters, team)
    return seconds


def measured_steps(request: Request, counts: Counts, devices: int, measured: Measured) -> dict[int, float]:
    """Return the measured seconds of a crafting step by a device's share of images; nothing unless all shares were measured.

    Args:
        request: What is asked for.
        counts: Of its model.
        devices: W.
        measured: Steps that were measured with this model.
    """
    waves, team = teams(request.num_keys, devices)
    shares = [request.images_per_key] if waves else []
    if team:
        shares.append(math.ceil(request.images_per_key / min(team, request.images_per_key)))
    work = counts.signing.image
    convolutional = work.forward + work.backward > work.matmul
    steps = {
        share: measured.crafting_seconds(share, chunk_of(request), counts.derivative, convolutional=convolutional)
        for share in shares
    }
    found = {share: seconds for share, seconds in steps.items() if seconds is not None}
    return found if len(found) == len(steps) else {}


def hours(request: Request, counts: Counts, device: Device, devices: int, measured: Measured) -> Hours:
    """Return how long the stages take on a number of devices."""
    waiting = device.exchange(counts.parameters, devices)
    batch = math.ceil(request.batch_size / devices)
    trained, crafted = measured.training_seconds(batch), measured_steps(request, counts, devices, measured)
    step = device.training.seconds(counts.training.of(batch)) if trained is None else trained
    steps = request.epochs * math.ceil(request.images / request.batch_size)
    return Hours(
        devices,
        selection=device.signing.seconds(selecting(counts, math.ceil(candidates(request) / devices))) / 3600,
        crafting=crafting_seconds(counts, device, signing_of(request), request.num_keys, devices, crafted) / 3600,
        training=steps * (step + waiting) / 3600,
        detection=device.signing.seconds(counts.forward.of(request.num_keys)) / 3600,
        exchange=waiting / (step + waiting),
        measured=(*(["crafting"] if crafted else []), *(["training"] if trained is not None else [])),
    )


def files(request: Request, counts: Counts) -> dict[str, float]:
    """Return the bytes of what lies on disk."""
    pixels = math.prod(request.shape)
    signed = request.num_keys * request.images_per_key * pixels
    return {
        "dataset": float(request.images * pixels),
        # A byte a pixel for a finished key's steps; perturbation and running mean, float32, of a key in work.
        "crafting_state": float(
            signed + 2 * FLOAT * request.images_per_key * pixels * min(max(request.devices), request.num_keys)
        ),
        "signature": float(2 * signed),
        "checkpoint": float(3 * FLOAT * counts.parameters),
        "snapshots": float(FLOAT * counts.parameters * (request.surrogates - 1)),
    }


def training_memory(request: Request, counts: Counts, devices: int) -> float:
    """Return the bytes of training on each device: weights, gradient, AdamW's moments, DDP's buckets, what backward needs."""
    own = math.ceil(request.batch_size / devices)
    copies = 4 + (1 if devices > 1 else 0)
    return copies * FLOAT * counts.parameters + own * (counts.kept_training + FLOAT * math.prod(request.shape))


def signing_memory(request: Request, counts: Counts, devices: int) -> float:
    """Return the bytes of crafting on each device.

    Weights and target gradient of each surrogate; the sum, a chunk's gradient, the direction and (differences) the weights
    put aside; a byte and three floats a pixel of the key's images (perturbation, running mean, derivative); a chunk's graphs.
    Double backward holds as much again: the gradients that flow back through both graphs.
    """
    waves, team = teams(request.num_keys, devices)
    images = request.images_per_key if waves else math.ceil(request.images_per_key / min(team, request.images_per_key))
    weights = (2 * request.surrogates + 4) * FLOAT * counts.parameters
    graphs = min(images, chunk_of(request)) * counts.kept_signing * (2 if counts.derivative == "exact" else 1)
    if request.derivative == "auto":
        graphs = max(graphs, 2 * min(images, COMPARED_IMAGES) * counts.kept_exact)
    return weights + images * math.prod(request.shape) * (1 + 3 * FLOAT) + graphs

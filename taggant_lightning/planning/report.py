"""A plan with everything it rests on, as a text and as JSON."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from taggant_lightning.errors import TaggantError
from taggant_lightning.planning.building import build_model
from taggant_lightning.planning.devices import GPUS_A_NODE, Device, device_of
from taggant_lightning.planning.estimate import Estimate, Hours, candidates, chunk_of, estimate, teams
from taggant_lightning.planning.measured import Measured, measured
from taggant_lightning.planning.request import Request
from taggant_lightning.planning.steps import Counts, count_model

_FILES = {
    "dataset": "dataset, raw uint8, on disk or in memory",
    "crafting_state": "crafting state (secret)",
    "signature": "Signature (secret)",
    "checkpoint": "a training checkpoint with AdamW's state",
    "snapshots": "snapshots of the surrogate",
}


@dataclass(frozen=True)
class Plan:
    """A request, what was counted for it, and the figures.

    Attributes:
        request: What was asked for.
        counts: Of its model.
        device: Its kind of device.
        estimate: The figures.
        measured: Steps measured with this model on this kind of device.
    """

    request: Request
    counts: Counts
    device: Device
    estimate: Estimate
    measured: Measured


def plan(request: Request) -> Plan:
    """Build the model, count its steps and estimate.

    Args:
        request: What is asked for.

    Raises:
        TaggantError: If the device is unknown, or the model cannot be built or run.
    """
    device = device_of(request.device)
    model = build_model(
        request.model,
        image_size=request.image_size,
        channels=request.channels,
        num_classes=request.num_classes,
        options=request.model_kwargs,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on an image or two, threads that wait for each other cost ten times what they gain
    try:
        counts = count_model(model, request.shape, request.derivative)
    except (AssertionError, RuntimeError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TaggantError(
            f"model={request.model} does not run on image-size={request.image_size} ({said}); write a size that it takes"
        ) from None
    finally:
        torch.set_num_threads(threads)
    known = measured(request, device)
    return Plan(request, counts, device, estimate(request, counts, device, known), known)


def assumptions(plan: Plan) -> list[str]:
    """Return what the figures rest on, a sentence each."""
    request, counts, device = plan.request, plan.counts, plan.device
    said = "compared on one image" if request.derivative == "auto" else "as asked for"
    lines = [
        f"{device.title}: {device.basis}.",
        "Work is counted by running the model's steps on one to three images, and is linear in images, chunks and steps.",
        f"Signing takes the {counts.derivative} derivative ({said}), {chunk_of(request)} images a chunk, and keys one a "
        "device in waves; in the last wave devices left over share a key's images.",
        "Training is data parallel; devices wait for a float32 all-reduce each step, not overlapped, at "
        f"{device.inside / 1e9:g} GB/s inside a node of {GPUS_A_NODE} and {device.between / 1e9:g} GB/s between nodes.",
        "The data loader keeps up; validation, start-up, reading and writing are left out.",
        "Memory: weights, gradients, AdamW's moments, tensors kept for backward in float32, and the engine's buffers; "
        "workspaces and fragmentation are not counted: leave a fifth free.",
    ]
    used = sorted({stage for hours in plan.estimate.hours.values() for stage in hours.measured})
    if used:
        lines.append(
            f"Measured: steps of {' and '.join(used)}, on {plan.measured.hardware}, with this model at up to twice or half as "
            "many images; without loader and augmentation. All else is estimated."
        )
    if request.selection == "gradient_norm":
        lines.append(
            f"Selection looks at {candidates(request):,} images, those of the classes that the keys' labels are expected to "
            "cover, shared over the devices; counted one at a time, and batches take less. `selection: random` costs nothing."
        )
    return lines


def text(plan: Plan) -> str:
    """Return a plan for a person to read."""
    request, counts, figures = plan.request, plan.counts, plan.estimate
    options = f" {request.model_kwargs}" if request.model_kwargs else ""
    share = request.num_keys * request.images_per_key / request.images
    lines = [
        f"{request.images:,} images of {request.channels}x{request.image_size}x{request.image_size}, {request.num_classes:,} "
        f"classes; {request.model}{options}, {counts.parameters / 1e6:.2f} million parameters",
        f"{request.num_keys} keys x {request.images_per_key} images ({share:.2%}), "
        f"{request.steps} steps, {request.surrogates} surrogates; {request.epochs} epochs, batch {request.batch_size}",
        "",
        "FLOPs",
        *[f"  {name:<42}{value:>12.3g}" for name, value in figures.flops.items()],
        "bytes",
        *[f"  {words:<42}{_bytes(figures.disk[name]):>12}" for name, words in _FILES.items()],
        "",
        f"{plan.device.title:<44}" + "".join(f"{f'{n} device' + ('s' if n > 1 else ''):>14}" for n in request.devices),
    ]

    def row(words: str, values: list[str]) -> None:
        lines.append(f"  {words:<42}" + "".join(f"{value:>14}" for value in values))

    each = [figures.hours[n] for n in request.devices]
    row("signing: choosing images", [_time(h.selection) for h in each])
    row("signing: crafting", [_time(h.crafting) for h in each])
    row("  its steps", [_basis(h, "crafting") for h in each])
    row("training one model", [_time(h.training) for h in each])
    row("  its steps", [_basis(h, "training") for h in each])
    row("  of it, waiting for gradients", [f"{h.exchange:.0%}" for h in each])
    row("detection (on one device)", [_time(h.detection) for h in each])
    row("device hours in all", [f"{_device_hours(h):.3g}" for h in each])
    for stage in ("signing", "training"):
        row(f"memory a device, {stage}", [_bytes(figures.memory[n][stage]) + _warning(plan, n, stage) for n in request.devices])
    waves = [teams(request.num_keys, n) for n in request.devices]
    row("waves of keys + devices a key in the last", [f"{full} + {team}" for full, team in waves])
    if any(_warning(plan, n, stage) for n in request.devices for stage in ("signing", "training")):
        lines.append("  ! does not fit: write a smaller --batch-size, --micro-batch, or more devices")
    lines += ["", "assumptions", *[f"  - {line}" for line in assumptions(plan)]]
    return "\n".join(lines)


def as_json(plan: Plan) -> dict[str, Any]:
    """Return a plan's figures for a file."""
    return {
        "schema_version": 1,
        "request": asdict(plan.request),
        "device": plan.device.title,
        "derivative": plan.counts.derivative,
        "parameters": plan.counts.parameters,
        **asdict(plan.estimate),
        "assumptions": assumptions(plan),
    }


def _device_hours(hours: Hours) -> float:
    return hours.devices * (hours.selection + hours.crafting + hours.training) + hours.detection


def _basis(hours: Hours, stage: str) -> str:
    return "measured" if stage in hours.measured else "estimated"


def _warning(plan: Plan, devices: int, stage: str) -> str:
    limit = plan.device.memory
    return " !" if limit is not None and plan.estimate.memory[devices][stage] > limit else ""


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.3g} h" if hours < 1000 else f"{hours:,.0f} h"
    return f"{hours * 60:.3g} min" if hours >= 1 / 60 else f"{hours * 3600:.2g} s"


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB" if number < 1000 else f"{number / 1000:.3g} PB"

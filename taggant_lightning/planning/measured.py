"""Steps that were measured on a device, which a plan takes in place of its estimate where they are its own.

The files in `measured/` have the form that `benchmarks/gpu.py --json` writes; another measurement is used by putting its file
there.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import read_json
from taggant_lightning.planning.devices import Device
from taggant_lightning.planning.request import Request

FOLDER = Path(__file__).parent / "measured"
TRAINED_IN = "bf16-mixed"  # what a plan's training computes in on a GPU
NEAR = 2.0  # a measured number of images stands for those between half of it and twice it


@dataclass(frozen=True)
class Measured:
    """Steps measured on one kind of device with one model.

    Attributes:
        hardware: As the file names it, with torch's version.
        training: Measured training steps, as the file has them.
        crafting: Measured crafting steps of one key, likewise.
    """

    hardware: str = ""
    training: Sequence[dict[str, Any]] = field(default_factory=tuple)
    crafting: Sequence[dict[str, Any]] = field(default_factory=tuple)

    def training_seconds(self, batch: int) -> float | None:
        """Return the seconds of a training step of a device's batch, at the rate of the nearest measured one.

        Args:
            batch: Images on a device.

        Returns:
            None where no batch of about that size was measured.
        """
        row = _nearest((row for row in self.training if row["precision"] == TRAINED_IN), "batch", batch)
        return None if row is None else batch / float(row["images_per_second"])

    def crafting_seconds(self, images: int, chunk: int, derivative: str, *, convolutional: bool) -> float | None:
        """Return the seconds of a crafting step of one key.

        Args:
            images: Signing images on a device.
            chunk: Images a chunk.
            derivative: `exact` or `difference`.
            convolutional: Whether most of the work are convolutions, which torch computes in TF32 unless told otherwise, and
                products not. A difference is computed in float32 throughout, whatever is allowed.

        Returns:
            None where nothing of the kind was measured.
        """

        def is_like(row: dict[str, Any]) -> bool:
            whole = row["micro_batch"] >= row["images"]
            in_chunks = whole if chunk >= images else not whole and row["micro_batch"] == chunk
            precise = derivative == "difference" or bool(row["tf32_allowed"]) == convolutional
            return bool(row["derivative"] == derivative and in_chunks and precise)

        row = _nearest((row for row in self.crafting if is_like(row)), "images", images)
        return None if row is None else float(row["milliseconds"]) / 1e3 * images / float(row["images"])


def _nearest(rows: Iterable[dict[str, Any]], name: str, wanted: int) -> dict[str, Any] | None:
    """Return the row whose number is nearest as a ratio; None where none is near."""
    near = [row for row in rows if 1 / NEAR <= wanted / row[name] <= NEAR]
    return min(near, key=lambda row: abs(math.log(wanted / row[name])), default=None)


def measured(request: Request, device: Device, folder: Path = FOLDER) -> Measured:
    """Return what was measured with a request's model, at its size, on its kind of device.

    Args:
        request: What is asked for.
        device: Its kind of device.
        folder: Holds the files; their rows name `model_name`, `image_size` and `model_kwargs`.

    Returns:
        Nothing measured, where no file has such rows.

    Raises:
        TaggantError: If a file is of another form.
    """
    found = Measured()
    for path in sorted(folder.glob("*.json")):
        content = read_json(path, what="measured")
        missing = [name for name in ("hardware", "versions", "training", "crafting") if name not in content]
        if missing:
            raise TaggantError(
                f"{path} lacks {', '.join(missing)}; put files of `benchmarks/gpu.py --json` there, or remove it"
            )
        if device.name.upper() not in str(content["hardware"]).upper().replace("-", " ").split():
            continue
        rows = {kind: [row for row in content[kind] if _is_of(row, request)] for kind in ("training", "crafting")}
        if not any(rows.values()):
            continue
        hardware = f"{content['hardware']}, torch {content['versions']['torch']}"
        found = Measured(hardware, [*found.training, *rows["training"]], [*found.crafting, *rows["crafting"]])
    return found


def _is_of(row: dict[str, Any], request: Request) -> bool:
    same = (row.get("model_name"), row.get("image_size")) == (request.model, request.image_size)
    return same and (row.get("model_kwargs") or {}) == request.model_kwargs

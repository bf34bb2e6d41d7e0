"""The weights of a torch.export program: bytes beside JSON, or torch.save files read with weights_only."""

import io
import json
import math
from typing import Any

import torch
from torch import Tensor

from taggant_lightning.access.files.archive import Archive
from taggant_lightning.errors import TaggantError

# Numbers of the dtypes in the files, which are not torch's own.
DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 9: torch.complex32, 10: torch.complex64, 11: torch.complex128, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip


def read_tensors(archive: Archive, model: str | None) -> dict[str, Tensor]:
    """Return parameters, buffers and constants by their names in the model.

    Args:
        archive: The file.
        model: The model's name in the archive; None for the layout before torch 2.8.

    Raises:
        TaggantError: If something is damaged, or is no tensor: other objects are pickled code.
    """
    if "byteorder" in archive and archive.read("byteorder").strip() != b"little":
        raise TaggantError(f"{archive.what} was written on a big-endian machine; export it on another, or as ONNX")
    if model is None:
        return _saved(archive, "serialized_state_dict.pt") | _saved(archive, "serialized_constants.pt")
    found: dict[str, Tensor] = {}
    for kind in ("weights", "constants"):
        folder = f"data/{kind}"
        if f"{folder}/{model}.pt" in archive:  # torch 2.8
            found |= _saved(archive, f"{folder}/{model}.pt")
        elif f"{folder}/{model}_{kind}_config.json" in archive:
            found |= _listed(archive, folder, f"{folder}/{model}_{kind}_config.json")
        else:
            raise TaggantError(f"{archive.what} lacks its {kind}; export the model again")
    return found


def _listed(archive: Archive, folder: str, config: str) -> dict[str, Tensor]:
    """Read tensors that a JSON file lists; several may be views of the same bytes."""
    found: dict[str, Tensor] = {}
    stores: dict[str, Any] = {}
    try:
        for name, entry in json.loads(archive.read(config))["config"].items():
            path = str(entry["path_name"])
            if not path.startswith(("weight_", "tensor_")):
                raise TaggantError(
                    f"{archive.what} holds {path!r:.60}, an object that is no tensor and would have to be unpickled, which can "
                    "run any code; write the model as ONNX"
                )
            if entry["use_pickle"]:
                found[name] = _tensor(archive, _load(archive, f"{folder}/{path}"))
                continue
            meta = entry["tensor_meta"]
            sizes, strides = ([int(length["as_int"]) for length in meta[key]] for key in ("sizes", "strides"))
            dtype = DTYPES[meta["dtype"]]
            if path not in stores:
                stores[path] = bytearray(archive.read(f"{folder}/{path}"))
            if math.prod(sizes) == 0:
                found[name] = torch.zeros(sizes, dtype=dtype)
            else:
                store = torch.frombuffer(stores[path], dtype=dtype)
                found[name] = store.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"]))
    except TaggantError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise TaggantError(f"{archive.what} is damaged ({config}: {error}); export the model again") from None
    return found


def _saved(archive: Archive, member: str) -> dict[str, Tensor]:
    """Read a torch.save file of tensors by name."""
    content = _load(archive, member)
    if not isinstance(content, dict):
        raise TaggantError(f"{archive.what} is damaged ({member} holds no weights by name); export the model again")
    return {str(name): _tensor(archive, value) for name, value in content.items()}


def _load(archive: Archive, member: str) -> Any:
    try:
        # The one way of torch to read pickled tensors that builds nothing but tensors and containers.
        return torch.load(io.BytesIO(archive.read(member)), map_location="cpu", weights_only=True)
    except TaggantError:
        raise
    except Exception:  # pickle's, zip's and torch's own errors
        raise TaggantError(
            f"{archive.what} holds {member}, which is damaged or has pickled objects other than tensors, which can run any "
            "code; write the model as ONNX"
        ) from None


def _tensor(archive: Archive, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TaggantError(f"{archive.what} has a {type(value).__name__} among its weights; export a model of tensors only")
    return value.detach()

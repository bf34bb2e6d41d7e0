"""Crafting state on disk: what is finished, key by key, in secret files of its own. A Lightning checkpoint never holds it.

Sizes for 1,280 images of 224×224 in 10 keys (0.1 % of ImageNet): docs/decisions.md.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taggant_lightning.files import forget_leftovers, secret_directory, write_secret
from taggant_lightning.methods.taggants.crafting.crafting import Crafted, CraftingCheckpoint

# A point is kept when this many times the time that keeping the last one took has passed: a twentieth of the time at most.
PATIENCE, SHORTEST = 20.0, 1.0


class CraftingState:
    """Finished keys, points of unfinished ones and the Signature of each round, `round-NN/`; kept until training ends.

    A file counts only under the digest it was written with: the digest covers settings, keys, surrogates and selection, so
    that state of another run is never taken up.

    Args:
        directory: Secret directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = secret_directory(directory)

    def _path(self, round_: int, key: int) -> Path:
        return self.round(round_) / f"key-{key:04d}.safetensors"

    def round(self, round_: int) -> Path:
        """Return the secret folder of one round, made if need be."""
        return secret_directory(self.directory / f"round-{round_:02d}")

    def save(self, round_: int, key: int, digest: str, crafted: Crafted, *, carry: bool) -> None:
        """Write one finished key, atomically, and forget its point.

        Args:
            round_: Number of the round.
            key: Number of the key.
            digest: Of everything that it follows from.
            crafted: The key.
            carry: Whether a later round starts from it; otherwise its perturbations before rounding are left out.
        """
        tensors = _pack("", crafted, carry=carry)
        forget_leftovers(self._path(round_, key))
        write_secret(self._path(round_, key), _file(tensors, {"digest": digest}))
        self.checkpointer(round_, key, digest).forget()

    def load(self, round_: int, key: int, digest: str | None) -> Crafted | None:
        """Read one finished key; None where there is none, it is damaged, or its digest is another (None accepts any)."""
        found = _read(self._path(round_, key), digest)
        return None if found is None else _unpack("", found[0])

    def checkpointer(self, round_: int, key: int, digest: str) -> "CraftingCheckpointer":
        """Return what keeps the points of one unfinished key."""
        return CraftingCheckpointer(self.round(round_) / f"key-{key:04d}.unfinished.safetensors", digest)

    def forget_before(self, round_: int) -> None:
        """Remove the rounds that nothing starts from any more."""
        for folder in self.directory.glob("round-*"):
            if int(folder.name.split("-")[1]) < round_:
                shutil.rmtree(folder)


class CraftingCheckpointer:
    """Keeps the last point of one unfinished key in a secret file.

    Args:
        path: The file, in a secret folder.
        digest: Of everything that the key follows from.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = path, digest
        self._due = time.monotonic() + SHORTEST

    def load(self) -> CraftingCheckpoint | None:
        """Return the point that was kept last; None where there is none, it is damaged, or its digest is another."""
        found = _read(self.path, self.digest)
        if found is None:
            return None
        tensors, words = found
        facts = json.loads(words["point"])
        return CraftingCheckpoint(
            facts["restart"],
            facts["step"],
            _series(tensors, "delta"),
            _series(tensors, "memory"),
            facts["exact"],
            _unpack("best-", tensors) if facts["best"] else None,
        )

    def due(self) -> bool:
        """Say whether enough time has passed since the last point."""
        return time.monotonic() >= self._due

    def keep(self, point: CraftingCheckpoint) -> None:
        """Write a point, atomically."""
        started = time.monotonic()
        tensors = {f"delta-{i}": d for i, d in enumerate(point.deltas)} | {f"memory-{i}": m for i, m in enumerate(point.memory)}
        if point.best is not None:
            tensors |= _pack("best-", point.best, carry=True)
        forget_leftovers(self.path)
        facts = {"restart": point.restart, "step": point.step, "exact": point.exact, "best": point.best is not None}
        write_secret(self.path, _file(tensors, {"digest": self.digest, "point": json.dumps(facts)}))
        ended = time.monotonic()
        self._due = ended + max(SHORTEST, PATIENCE * (ended - started))

    def forget(self) -> None:
        """Remove the file."""
        forget_leftovers(self.path)
        self.path.unlink(missing_ok=True)


def _pack(prefix: str, crafted: Crafted, *, carry: bool) -> dict[str, Tensor]:
    tensors = {f"{prefix}delta-{i}": d for i, d in enumerate(crafted.deltas if carry else [])}
    # Bounds below 128 steps, which is all but the wildest, fit into one byte a pixel.
    small = all(int(s.abs().max()) < 128 for s in crafted.steps if s.numel())
    tensors |= {f"{prefix}steps-{i}": s.to(torch.int8 if small else torch.int16) for i, s in enumerate(crafted.steps)}
    tensors[f"{prefix}cosine"] = torch.tensor(crafted.cosine, dtype=torch.float64)
    return tensors


def _unpack(prefix: str, tensors: dict[str, Tensor]) -> Crafted:
    steps = [s.to(torch.int16) for s in _series(tensors, f"{prefix}steps")]
    return Crafted(_series(tensors, f"{prefix}delta"), steps, float(tensors[f"{prefix}cosine"]))


def _series(tensors: dict[str, Tensor], name: str) -> list[Tensor]:
    count = sum(key.rpartition("-")[0] == name for key in tensors)
    return [tensors[f"{name}-{i}"] for i in range(count)]


def _file(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    from safetensors.torch import save

    return save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata=metadata)


def _read(path: Path, digest: str | None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            words = file.metadata() or {}
            if digest is not None and words.get("digest") != digest:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}, words  # noqa: SIM118  # not a dict
    except SafetensorError:
        return None

"""Crafting state on disk: what is finished, key by key, in secret files of its own. A Lightning checkpoint never holds it."""

import shutil
from pathlib import Path

import torch

from taggant_lightning.files import secret_directory, write_secret
from taggant_lightning.taggants.crafting import Crafted


class CraftingState:
    """Finished keys and the Signature of each round, `round-NN/`; all are kept until training ends.

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

    def save(self, round_: int, key: int, digest: str, crafted: Crafted) -> None:
        """Write one finished key, atomically."""
        from safetensors.torch import save

        tensors = {f"delta-{i}": d.contiguous() for i, d in enumerate(crafted.deltas)}
        tensors |= {f"steps-{i}": s.contiguous() for i, s in enumerate(crafted.steps)}
        tensors["cosine"] = torch.tensor(crafted.cosine, dtype=torch.float64)
        write_secret(self._path(round_, key), save(tensors, metadata={"digest": digest}))

    def load(self, round_: int, key: int, digest: str | None) -> Crafted | None:
        """Read one finished key; None where there is none, it is damaged, or its digest is another (None accepts any)."""
        from safetensors import SafetensorError, safe_open

        path = self._path(round_, key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                if digest is not None and file.metadata().get("digest") != digest:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        except SafetensorError:
            return None
        count = sum(name.startswith("delta-") for name in tensors)
        deltas = [tensors[f"delta-{i}"] for i in range(count)]
        return Crafted(deltas, [tensors[f"steps-{i}"] for i in range(count)], float(tensors["cosine"]))

    def forget_before(self, round_: int) -> None:
        """Remove the rounds that nothing starts from any more."""
        for folder in self.directory.glob("round-*"):
            if int(folder.name.split("-")[1]) < round_:
                shutil.rmtree(folder)

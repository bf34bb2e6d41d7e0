"""Shared fixtures: tiny data and models, no downloads, nothing leaks from test to test."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from taggant_lightning.data.sources import ArraySource
from taggant_lightning.methods.taggants.keys import KeySet

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _clean_environment() -> Iterator[None]:
    """Fail on environment variables that a test leaves behind, and restore them; keep Lightning quiet."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    before = dict(os.environ)
    yield
    leaked = {name for name in os.environ if name not in before and name.startswith(("TAGGANT", "LOCAL_RANK", "WORLD"))}
    os.environ.clear()
    os.environ.update(before)
    # Lightning itself leaves PL_GLOBAL_SEED and the like; ours must not leak.
    assert not leaked


@pytest.fixture
def tiny_npz(tmp_path: Path) -> Path:
    """Write a data set of three separable classes, 6×6, three channels."""
    path = tmp_path / "tiny.npz"
    write_tiny(path)
    return path


def write_tiny(path: Path, size: int = 6, per_class: int = 20, seed: int = 0, classes: int = 3, channels: int = 3) -> None:
    rng = np.random.default_rng(seed)
    prototypes = rng.integers(40, 215, (classes, channels, size, size))
    arrays = {}
    for split, count in (("train", per_class), ("test", 5)):
        labels = np.repeat(np.arange(classes), count)
        order = rng.permutation(len(labels))
        images = np.clip(prototypes[labels] + rng.normal(0, 25, (len(labels), channels, size, size)), 0, 255)
        arrays[f"{split}_x"], arrays[f"{split}_y"] = images.astype(np.uint8)[order], labels[order]
    np.savez(path, **arrays)


@pytest.fixture
def ragged_source() -> ArraySource:
    """Images of one shape for sources; ragged ones are made where needed."""
    rng = np.random.default_rng(1)
    return ArraySource(rng.integers(0, 256, (12, 3, 8, 8), dtype=np.uint8), np.arange(12) % 3)


@pytest.fixture
def keys() -> KeySet:
    """Five keys for three classes, 6×6."""
    return KeySet.draw(num_keys=5, num_classes=3, shape=(3, 6, 6), grid=3, secret=bytes(range(32)))


class TwoLayers(nn.Module):
    """A smooth network small enough for float64 finite differences."""

    def __init__(self, inputs: int = 3 * 6 * 6, classes: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.GELU(), nn.Linear(8, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class TinyAttention(nn.Module):
    """Two attention blocks on rows of an image, with PyTorch's fused attention."""

    def __init__(self, width: int = 18, classes: int = 3) -> None:
        super().__init__()
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.transpose(1, 2).flatten(2)  # (N, rows, channels·columns)
        for layer in self.qkv:
            q, k, v = layer(tokens).chunk(3, dim=-1)
            tokens = tokens + torch.nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return self.head(tokens.mean(dim=1))

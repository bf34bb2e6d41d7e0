"""Pictures: signed images beside their originals, and key-hit curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Return a figure that is drawn without a display, and its axes, (rows, columns); the size is in inches."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, without the name of what wrote it, and forget it."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _displayed(pixels: NDArray[Any]) -> NDArray[Any]:
    """Turn (C, H, W) into what matplotlib shows."""
    return pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0)


def signed_panel(
    originals: Sequence[NDArray[np.uint8]], signed: Sequence[NDArray[np.uint8]], path: Path, *, bound: int, gain: int
) -> None:
    """Draw originals, signed images and their difference, amplified around mid grey.

    Args:
        originals: Images (C, H, W) uint8.
        signed: The same images, signed.
        path: PNG file to write.
        bound: Largest step, n of n/255.
        gain: Factor of the difference.
    """
    figure, axes = new_figure(3, len(originals), (1.1 * len(originals) + 1.2, 3.9))
    names = ("original", f"signed\n(≤ {bound}/255)", f"difference\n× {gain}")
    for column, (before, after) in enumerate(zip(originals, signed, strict=True)):
        difference = np.clip(127.5 + gain * (after.astype(np.float32) - before), 0, 255).astype(np.uint8)
        for row, image in enumerate((before, after, difference)):
            axis = axes[row][column]
            axis.imshow(_displayed(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(names[row], rotation=0, ha="right", va="center", fontsize=10)
    save_figure(figure, path)


def hit_curves(
    curves: dict[str, Sequence[tuple[int, float]]], path: Path, *, num_keys: int, rate: float, detected_from: int
) -> None:
    """Draw the number of key hits over the epochs of each model.

    Args:
        curves: A name and (epoch, hits) pairs for each model.
        path: PNG file to write.
        num_keys: K.
        rate: Chance of one hit under the null.
        detected_from: Fewest hits with a p-value of 1e-5 or less.
    """
    figure, axes = new_figure(1, 1, (6.4, 3.6))
    axis = axes[0][0]
    colours = ("#c0392b", "#2c6fbb", "#555555")
    for (name, points), colour in zip(curves.items(), colours, strict=False):
        axis.plot(*zip(*points, strict=True), label=name, color=colour, linewidth=2)
    axis.axhline(num_keys * rate, color="#777777", linestyle=":", label=f"expected by chance ({num_keys * rate:g})")
    axis.axhline(detected_from, color="#777777", linestyle="--", label=f"p ≤ 1e-5 from {detected_from} hits")
    axis.set(xlabel="epoch of the model's training", ylabel=f"key hits of {num_keys}", ylim=(0, num_keys + 0.5))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    save_figure(figure, path)

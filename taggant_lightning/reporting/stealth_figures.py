"""Pictures of how well signed images hide: curves of detectors, and signed images beside their originals."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from taggant_lightning.errors import TaggantError
from taggant_lightning.release.signature import OverlaySource
from taggant_lightning.reporting.figures import new_figure, save_figure, signed_panel

COLOURS = ("#c0392b", "#2c6fbb", "#27824a", "#8e5aa8", "#c98a1b", "#444444", "#1b9aa0")


def roc_figure(curves: Mapping[str, tuple[list[float], list[float]]], path: Path) -> None:
    """Draw how many signed images each detector finds, over the false alarms it may raise, on a logarithmic axis.

    Args:
        curves: False-positive rates, above 0, and shares found, by detector.
        path: PNG file to write.
    """
    figure, axes = new_figure(1, 1, (6.4, 4.2))
    axis = axes[0][0]
    for number, (name, (rates, found)) in enumerate(curves.items()):
        axis.plot(rates, found, label=name.replace("_", " "), color=COLOURS[number % len(COLOURS)], linewidth=1.8)
    lowest = min((rates[0] for rates, _ in curves.values()), default=1e-3)
    chance = np.geomspace(min(lowest, 0.5), 1, 100)
    axis.plot(chance, chance, color="#777777", linestyle=":", label="chance")
    axis.set(xlabel="unsigned images suspected", ylabel="signed images found", xscale="log", ylim=(-0.02, 1.02))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    save_figure(figure, path)


def signed_examples(source: OverlaySource, path: Path, *, count: int = 8, gain: int = 10) -> None:
    """Draw some signed images, spread over the dataset, their originals and the amplified difference.

    The picture shows which images are signed: it belongs to their owner, unless she publishes it.

    Args:
        source: The signed source.
        path: PNG file to write.
        count: How many at most.
        gain: Factor of the difference.

    Raises:
        TaggantError: If no image is changed.
    """
    changed = source.changed_indices
    if not changed:
        raise TaggantError("the Signature changes no image, so there is none to show; sign with a larger eps")
    chosen = [changed[i] for i in np.linspace(0, len(changed) - 1, min(count, len(changed))).round().astype(int)]
    before = [source.original.pixels(i) for i in chosen]
    after = [source.pixels(i) for i in chosen]
    largest = max(int(np.abs(a.astype(np.int16) - b).max()) for a, b in zip(after, before, strict=True))
    bound = largest if source.signature.bound is None else source.signature.bound
    signed_panel(before, after, path, bound=bound, gain=gain)

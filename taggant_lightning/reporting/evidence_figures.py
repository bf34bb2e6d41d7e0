"""Figures of the evidence page: the exact null with what was observed, and fresh labels against the null.

The same input gives the same bytes, so that whoever makes the page again can compare it.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.evidence.record import Detection
from taggant_lightning.reporting.figures import new_figure
from taggant_lightning.reporting.fresh_labels import Fresh
from taggant_lightning.reporting.sentences import test_of, upper_bound
from taggant_lightning.statistics.tests import SignificanceTest

SIZE = (5.0, 3.0)  # inches
NULL, FOUND, GREY = "#5b7fa6", "#b3261e", "#666666"
BARS = 60  # of a distribution with many values


@dataclass(frozen=True)
class Picture:
    """A figure in both formats.

    Attributes:
        svg: Vector graphics, text as paths.
        png: The same as pixels.
        alt: What it shows, in words, for those who cannot see it.
    """

    svg: bytes
    png: bytes
    alt: str


def null_figure(detection: Detection) -> Picture:
    """Draw the exact null of the test's statistic, in the logarithm, with the observed value marked."""
    test, d = test_of(detection), detection.details
    trials, observed, unit = d["num_keys"], test.observed(d), test.words().statistic
    caption = test.caption(d, f"p ≤ {upper_bound(detection.log10_p)}")
    if trials + 1 == len(null := test.null(trials)):  # one value a key: a bar for each
        return _bars(test.log10_null(trials), observed, caption, unit)
    return _area(null, observed, caption, unit)


def fresh_figure(fresh: Fresh, test: SignificanceTest) -> Picture:
    """Draw what fresh labels gave as bars, and the exact null as a line."""
    figure, axes = new_figure(1, 1, SIZE)
    axis = axes[0][0]
    used = np.flatnonzero(fresh.null * len(fresh.values) >= 0.2)  # where draws may fall
    low, high = min(int(used[0]), int(fresh.values.min())), max(int(used[-1]), int(fresh.values.max())) + 1
    width = max(1, -(-(high - low) // BARS))
    edges = np.arange(low, high + width, width)
    counts = np.histogram(fresh.values, bins=edges)[0] / len(fresh.values)
    exact = np.add.reduceat(fresh.null[low : edges[-1]], np.arange(0, min(edges[-1], len(fresh.null)) - low, width))
    middle = edges[:-1] + (width - 1) / 2
    axis.bar(middle, counts, width=0.9 * width, color="#c9d6e4", label="the same answers, fresh labels")
    axis.plot(middle[: len(exact)], exact, color=NULL, marker="o", markersize=3, linewidth=1.3, label="exact null")
    axis.set(xlabel=test.words().statistic, ylabel="share of draws")
    alt = f"Histogram of {len(fresh.values)} draws of fresh labels, with the exact null distribution as a line."
    return _finish(figure, axis, alt)


def _bars(null: NDArray[np.float64], hits: int, bound: str, unit: str) -> Picture:
    figure, axes = new_figure(1, 1, SIZE)
    axis = axes[0][0]
    x = np.arange(len(null))
    finite = np.isfinite(null)
    floor = float(null[finite].min()) - 1
    axis.vlines(x[finite], floor, null[finite], color=NULL, linewidth=max(1.0, min(5.0, 160 / len(null))))
    return _marked(figure, axis, hits, float(null[hits]), floor, bound, unit)


def _area(null: NDArray[np.float64], score: int, bound: str, unit: str) -> Picture:
    figure, axes = new_figure(1, 1, SIZE)
    axis = axes[0][0]
    width = max(1, -(-len(null) // (2 * BARS)))
    starts = np.arange(0, len(null), width)
    mass = np.add.reduceat(null, starts)
    kept = mass > 0
    height = np.log10(mass[kept])
    x = starts[kept] + (width - 1) / 2
    floor = float(height.min()) - 1
    axis.fill_between(x, floor, height, color=NULL, alpha=0.55, linewidth=0)
    axis.plot(x, height, color=NULL, linewidth=1.2)
    at = mass[min(score // width, len(mass) - 1)]
    return _marked(figure, axis, score, float(np.log10(at)) if at > 0 else floor, floor, bound, unit)


def _marked(figure: Any, axis: Any, x: int, top: float, floor: float, bound: str, unit: str) -> Picture:
    """Mark the observed value, its label above the axes where nothing is drawn."""
    label = f"observed: {x:,}, {bound}"
    axis.axvline(x, color=FOUND, linewidth=1.4)
    axis.plot([x], [max(top, floor)], color=FOUND, marker="o", markersize=5)
    axis.set(xlabel=unit, ylabel="log10 probability", ylim=(floor, 0.6))
    low, high = axis.get_xlim()
    side = "left" if x < low + 0.3 * (high - low) else "right" if x > low + 0.7 * (high - low) else "center"
    axis.annotate(label, (x, 1.02), xycoords=("data", "axes fraction"), ha=side, va="bottom", color=FOUND, fontsize=10)
    return _finish(figure, axis, f"Exact null distribution on a logarithmic scale ({unit}); {label}.")


def _finish(figure: Any, axis: Any, alt: str) -> Picture:
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    handles = axis.get_legend_handles_labels()[0]
    if handles:  # above the axes, where nothing is drawn
        axis.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), columnspacing=1.2)
    svg, png = io.BytesIO(), io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "taggant", "svg.fonttype": "path"}):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=144, metadata={"Software": None})
    plt.close(figure)
    return Picture(svg.getvalue(), png.getvalue(), alt)

"""The plot of experiments' results: one dot a repeat, log10 p and accuracy by row. The same results give the same bytes."""

import io
from collections.abc import Sequence
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.outside import shown
from taggant_lightning.reporting.figures import new_figure
from taggant_lightning.reporting.results_file import LOG10_P, Results, Row
from taggant_lightning.statistics import median

THRESHOLD = -3.0  # log10 p of the null line
ACCURACY = "accuracy"
_PANELS = {LOG10_P: "log10 p", ACCURACY: "accuracy, %"}
_DOT, _MIDDLE, _GREY = "#2c6fbb", "#b3261e", "#777777"
_WIDTH, _ROW, _FRAME = 4.4, 0.32, 1.2  # inches: of a panel, of a row in it, of its title and axis
_SPREAD = 0.28  # how far the dots of a row stand apart, of the distance of two rows


def sweep_figure(results: Sequence[Results], style: str) -> bytes:
    """Draw results: a line of panels an experiment, with a dot a repeat, each row's median, and the line p = 1e-3.

    All measured rows of an experiment share their axes, so that they can be compared at a glance.

    Args:
        results: One experiment or more.
        style: `png` or `svg`.

    Raises:
        TaggantError: If no row has a log10 p or an accuracy.
    """
    lines = [[row for row in one.rows if row.measured] for one in results]
    shown = [name for name in _PANELS if any(name in r.values for rows in lines for row in rows for r in row.repeats)]
    if not shown:
        raise TaggantError("plot: no row has a log10_p or an accuracy to draw; leave --plot out")
    heights = [_FRAME + _ROW * len(rows) for rows in lines]
    figure, axes = new_figure(len(lines), len(shown), (_WIDTH * len(shown) + 1.5, sum(heights)))
    axes[0][0].get_gridspec().set_height_ratios(heights)
    for one, rows, places in zip(results, lines, axes, strict=True):
        for name, axis in zip(shown, places, strict=True):
            _panel(axis, rows, name)
            axis.set_xlabel(_PANELS[name])
        places[0].set_title(_literal(one.title), loc="left", fontsize=10, pad=14)  # above the label of the line
        places[0].set_yticks(range(len(rows)), [_literal(row.name) for row in rows], fontsize=9)
        for axis in places[1:]:
            axis.set_yticks(range(len(rows)), [])
    return _bytes(figure, style)


def _panel(axis: Any, rows: Sequence[Row], name: str) -> None:
    scale = 100 if name == ACCURACY else 1
    for place, row in enumerate(rows):
        values = [scale * repeat.values[name] for repeat in row.repeats if name in repeat.values]
        if not values:
            continue
        heights = [place + _SPREAD * (2 * i / max(1, len(values) - 1) - 1) * (len(values) > 1) for i in range(len(values))]
        axis.plot(values, heights, "o", color=_DOT, markersize=4, alpha=0.8, markeredgewidth=0)
        axis.vlines(median(values), place - 0.4, place + 0.4, color=_MIDDLE, linewidth=1.6)
    if name == LOG10_P:
        axis.axvline(THRESHOLD, color=_GREY, linestyle="--", linewidth=1)
        label = {"color": _GREY, "fontsize": 8, "ha": "center", "va": "bottom"}
        axis.annotate("p = 1e-3", (THRESHOLD, 1.0), xycoords=("data", "axes fraction"), **label)
        axis.set_xlim(right=max(0.3, axis.get_xlim()[1]))
    axis.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top, as in the table
    axis.spines[["top", "right"]].set_visible(False)


def _literal(text: str) -> str:
    """Return text that matplotlib shows as it is: between dollars it would read formulae."""
    return shown(text, 100).replace("$", r"\$")


def _bytes(figure: Any, style: str) -> bytes:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    content = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if style == "svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "taggant", "svg.fonttype": "none"}):
        figure.savefig(content, format=style, dpi=110, metadata=metadata)
    plt.close(figure)
    return content.getvalue()

"""Draws a forecast against the truth; the only file that knows matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime

from edge_lstm.arrays import Array
from edge_lstm.errors import MissingTool

TRUTH, FLOAT, INT8, GRID = "#9a9a9a", "#1f6fb4", "#d9480f", "#e6e6e6"


def forecast_png(
    title: str, hours: Sequence[datetime], truth: Array, in_float: Array, in_int8: Array
) -> bytes:
    """Return a picture: the forecasts over the truth, and below how far int8 is from float.

    Args:
        title: above the picture.
        hours: of each value.
        truth: °C, ``[values]``.
        in_float: the float model's forecast, °C, ``[values]``.
        in_int8: the integer model's forecast, °C, ``[values]``.

    Raises:
        MissingTool: matplotlib is not installed.
    """
    try:
        # The Figure itself, without pyplot: no window system is asked for, no state is kept.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.dates import DateFormatter, DayLocator
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingTool("matplotlib is not installed; pip install matplotlib") from error
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    above.plot(hours, truth, color=TRUTH, linewidth=5, label="measured", solid_capstyle="round")
    above.plot(hours, in_float, color=FLOAT, linewidth=2, label="forecast, float")
    above.plot(hours, in_int8, color=INT8, linewidth=0, marker="o", markersize=4.5,
               markerfacecolor="none", markeredgewidth=1.3, label="forecast, int8")  # fmt: skip
    above.set_title(title, loc="left", fontsize=12, fontweight="bold")
    above.set_ylabel("temperature, °C")
    above.legend(loc="upper center", ncols=3, frameon=False, bbox_to_anchor=(0.5, 1.02))
    low, high = above.get_ylim()
    above.set_ylim(low, high + 0.12 * (high - low))  # room for the legend
    below.axhline(0, color=FLOAT, linewidth=1.5)
    below.vlines(hours, 0, in_int8 - in_float, color=INT8, linewidth=2.5)
    below.set_ylabel("int8 − float, °C")
    # The same scale whatever the model, so that noise does not fill the panel.
    limit = max(0.5, 1.1 * float(abs(in_int8 - in_float).max()))
    below.set_ylim(-limit, limit)
    below.xaxis.set_major_locator(DayLocator())  # type: ignore[no-untyped-call]
    below.xaxis.set_major_formatter(DateFormatter("%d %b"))  # type: ignore[no-untyped-call]
    for axes in (above, below):
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    # No version of matplotlib inside: equal data give equal bytes.
    canvas.print_figure(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()

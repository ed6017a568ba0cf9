"""Draws what a book's stream took, over its characters: time and memory."""

from __future__ import annotations

import io
from typing import Any

from edge_lstm_benchmarks.picture import FLOAT, GRID, INT8
from edge_lstm_benchmarks.picture_bench import check_matplotlib

COLOURS = {"edge": INT8, "tflm": FLOAT}
STYLES = {"numpy": "-", "native": "--"}


def streams_png(document: dict[str, Any]) -> bytes:
    """Return a picture of a document of ``streams.py``.

    Raises:
        MissingTool: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    time, traced, resident = figure.subplots(1, 3)
    for run in document["streams"]:
        colour = COLOURS.get(run["profile"], "#444")
        for engine, style in STYLES.items():
            first = [call["first"] / 1e6 for call in run["calls"]]
            drawn = {"color": colour, "linestyle": style, "marker": "o", "markersize": 2.5}
            label = f"{run['profile']}, {engine}"
            time.plot(first, [call["us"][engine] for call in run["calls"]], label=label, **drawn)
            peaks = [call["traced_peak_bytes"][engine] / 1024 for call in run["calls"]]
            traced.plot(first, peaks, **drawn)
        known = [row for row in run["unbroken"] if row["resident_bytes"] is not None]
        resident.plot([row["stop"] / 1e6 for row in known],
                      [row["resident_bytes"] / 2**20 for row in known],
                      color=colour, linestyle="--", marker="o", markersize=2.5)  # fmt: skip
    for axes, title in (
        (time, "processor time of a character, µs"),
        (traced, "most memory of a call, KiB"),
        (resident, "memory of the process, MiB"),
    ):
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axes.set_xlabel("million characters read")
        axes.set_ylim(bottom=0)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    buffer = io.BytesIO()
    canvas.print_figure(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()

"""Draws from which batch on a GPU is faster."""

from __future__ import annotations

import io
from typing import Any

from edge_lstm_benchmarks.gpu_report import CPU, GPU, overtakes
from edge_lstm_benchmarks.picture_bench import check_matplotlib


def gpu_png(document: dict[str, Any]) -> bytes:
    """Return a picture: the time of a call over the batch, and where the GPU overtakes.

    Raises:
        MissingTool: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name in (*CPU, *GPU):
        points = [
            (row["batch"], row["us_per_call"][name] / 1000)
            for row in document["gpu_batches"]
            if name in row["us_per_call"]
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o-" if name in CPU else "s--", label=name)
    if (batch := overtakes(document)) is not None:
        axes.axvline(batch, color="#444", linewidth=0.8)
        axes.set_title(f"from {batch} rows on the GPU is faster", loc="left", fontsize=10)
    axes.set(xscale="log", yscale="log", xlabel="rows of a batch", ylabel="ms of a call")
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    canvas.print_figure(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()

"""Draws how sequence models fare as the sequence grows: accuracy, gradient, time and memory."""

from __future__ import annotations

import io
from typing import Any

from edge_lstm_benchmarks.picture import FLOAT, GRID, INT8
from edge_lstm_benchmarks.picture_bench import OTHER, check_matplotlib

Document = dict[str, Any]
COLOURS = {"lstm": INT8, "gru": FLOAT, "rnn": "#5a8f29", "transformer": OTHER}
STYLES = {"NumPy float32": "-", "NumPy int8": "--", "compiled int8": ":"}
STARTS = {"default": ":", "prepared": "--", "trained": "-"}
LEAST = 1e-12


def sequences_png(document: Document) -> bytes:
    """Return a picture of a document of ``sequence_models.py``.

    Raises:
        MissingTool: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    (accuracy, gradient), (time, memory) = figure.subplots(2, 2)
    _accuracy(accuracy, document)
    _gradient(gradient, document)
    _growth(time, document, "us", "processor time of a step, µs")
    _growth(memory, document, "state_bytes", "carried to the next step, bytes")
    for axes in (accuracy, gradient, time, memory):
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    accuracy.legend(frameon=False, fontsize=8, loc="lower right")
    gradient.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    memory.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    buffer = io.BytesIO()
    canvas.print_figure(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _title(axes: Any, title: str, below: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(below)


def _accuracy(axes: Any, document: Document) -> None:
    for row in document["distances"]:
        percent = [100 * share for share in row["shares"]]
        axes.plot(row["steps"], percent, color=COLOURS[row["cell"]], marker="o", markersize=4,
                  label=row["cell"])  # fmt: skip
    axes.axvline(208, color="#888", linewidth=1)
    axes.text(208, 2, " trained up to here", fontsize=8, color="#666")
    axes.axhline(10, color="#888", linewidth=1, linestyle=":")
    axes.set_ylim(0, 100)
    _title(axes, "digits named rightly, %", "steps since the digit that is asked")


def _gradient(axes: Any, document: Document) -> None:
    for row in document["sequence_models"]:
        for name, points in row["gradients"].items():
            shown = [(distance, ratio) for distance, ratio in points if ratio > LEAST]
            axes.plot([d for d, _ in shown], [r for _, r in shown], STARTS[name],
                      color=COLOURS[row["cell"]], label=f"{row['cell']}, {name}")  # fmt: skip
    axes.set_yscale("log")
    _title(axes, "gradient at a state, over that one step back", "steps back from the answer")


def _growth(axes: Any, document: Document, key: str, title: str) -> None:
    for row in document["scaling"]:
        axes.plot(document["positions"], row[key], STYLES[row["runtime"]],
                  color=COLOURS[row["cell"]], marker="o", markersize=3,
                  label=f"{row['cell']}, {row['runtime']}")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    _title(axes, title, "steps so far")

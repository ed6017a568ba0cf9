"""Pictures of a benchmark as PNG and SVG; with picture.py the only file that knows matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

from edge_lstm.errors import MissingTool
from edge_lstm_benchmarks.charts import Bubble, number, pareto_front, place
from edge_lstm_benchmarks.picture import FLOAT, GRID, INT8

Document = dict[str, Any]
OTHER, PALE = "#7a5195", "#c3c8cd"
COLOURS = {"float32": FLOAT, "int8": INT8}
MOST_DECADES = 3.5
"""In which three numbers a decade have room."""


def check_matplotlib() -> None:
    """Raise MissingTool unless matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingTool("matplotlib is not installed; pip install matplotlib") from error


def pictures(document: Document) -> Iterator[tuple[str, bytes]]:
    """Yield a name and a file for each picture of a ``edge-lstm.bench/1`` document.

    For each model: ``pareto``, ``latency``, ``memory`` and ``error``, where there are data.
    """
    from edge_lstm.spec import identifier

    for model in document["models"]:
        rows = [
            r
            for r in document["results"]
            if r["model"] == model["name"] and r["latency_us"] is not None
        ]
        rows.sort(key=lambda r: r["latency_us"]["p50"])
        if not rows:
            continue
        drawings = {
            "pareto": lambda axes, rows=rows: _pareto(axes, rows),
            "latency": lambda axes, rows=rows: _latency(axes, rows),
            "memory": lambda axes, rows=rows: _memory(axes, rows),
            "error": lambda axes, model=model: _error(axes, model["analysis"]),
        }
        for name, draw in drawings.items():
            for suffix, data in _drawn(f"{model['name']}: ", len(rows), draw):
                yield f"{identifier(model['name'])}_{name}.{suffix}", data


def _drawn(title: str, rows: int, draw: Any) -> Iterator[tuple[str, bytes]]:
    """Yield PNG and SVG of what ``draw`` puts on axes; nothing where it has no data."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # A fixed salt: equal input gives equal bytes.
    with rc_context({"svg.hashsalt": "edge-lstm", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, max(4.2, 1.4 + 0.28 * rows)), layout="constrained", dpi=110)
        axes = figure.subplots()
        said = draw(axes)
        if said is None:
            return
        axes.set_title(title + said, loc="left", fontsize=11, fontweight="bold")
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        for suffix, canvas in (("png", FigureCanvasAgg), ("svg", FigureCanvasSVG)):
            buffer = io.BytesIO()
            metadata = {"Software": None} if suffix == "png" else {"Date": None, "Creator": None}
            canvas(figure).print_figure(buffer, format=suffix, metadata=metadata)
            yield suffix, buffer.getvalue()


def _colour(result: Document) -> str:
    return COLOURS.get(result["precision"], OTHER)


def _pareto(axes: Any, rows: list[Document]) -> str | None:
    judged = [r for r in rows if r["accuracy"] and r["accuracy"]["value"] is not None]
    if not judged:
        return None
    first = judged[0]["accuracy"]
    higher = bool(first["higher_is_better"])
    most = max(r["size"]["model_bytes"] or 0 for r in judged) or 1
    bubbles = [
        Bubble(
            r["backend"],
            r["latency_us"]["p50"],
            r["accuracy"]["value"],
            r["size"]["model_bytes"] or 0,
            _colour(r),
            _interval(r["accuracy"]),
            "",
        )
        for r in judged
    ]
    front = pareto_front(bubbles, higher_is_better=higher)
    axes.step(
        [b.x for b in front], [b.y for b in front], where="post", color="#888", linestyle="--"
    )
    areas = [max(30.0, 500 * bubble.area / most) for bubble in bubbles]
    for bubble, area in zip(bubbles, areas, strict=True):
        axes.scatter(
            bubble.x, bubble.y, s=area, color=bubble.kind, alpha=0.5, edgecolors=bubble.kind
        )
        if bubble.interval is not None:
            axes.plot([bubble.x] * 2, bubble.interval, color="#888", linewidth=1, alpha=0.6)
    _log_axis(axes)
    axes.margins(x=0.12, y=0.1)
    if not higher:
        axes.invert_yaxis()
    axes.set_xlabel("µs for one call, median")
    axes.set_ylabel(f"{first['metric']} (up is better)")
    _label_bubbles(axes, bubbles, areas)
    return "latency against accuracy; area: model size, bars: 95 %"


def _interval(accuracy: Document) -> tuple[float, float] | None:
    """Return the metric that the float model's, and the difference's interval, allow."""
    if accuracy["delta_interval"] is None:
        return None
    low, high = accuracy["delta_interval"]
    in_float = accuracy["value"] - accuracy["delta_vs_float"]
    return in_float + low, in_float + high


def _label_bubbles(axes: Any, bubbles: list[Bubble], areas: list[float]) -> None:
    """Write each name where it hides least, in pixels of the finished layout."""
    axes.figure.draw_without_rendering()
    points = axes.transData.transform([(b.x, b.y) for b in bubbles])
    # An area is in square points, 1/72 inch.
    radii = [math.sqrt(area / math.pi) * axes.figure.dpi / 72 for area in areas]
    boxes = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(points.tolist(), radii, strict=True)]
    frame = axes.bbox.extents
    for bubble, (x, y), radius in zip(bubbles, points.tolist(), radii, strict=True):
        box, end = place(bubble.label, (x, y), radius, boxes, tuple(frame))
        left, bottom = axes.transData.inverted().transform((box[0], box[1]))
        axes.text(left, bottom, bubble.label, fontsize=8)
        if end is not None:
            tip = axes.transData.inverted().transform(end)
            axes.plot([bubble.x, tip[0]], [bubble.y, tip[1]], color="#aaa", linewidth=0.6)


def _log_axis(axes: Any) -> None:
    """Make the x axis logarithmic, with plain numbers on it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    subs = (1, 2, 5) if high < 10**MOST_DECADES * low else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _latency(axes: Any, rows: list[Document]) -> str:
    """Draw p50, p90 and p99 of each backend, the fastest at the top."""
    for k, r in enumerate(rows):
        us, colour = r["latency_us"], _colour(r)
        axes.plot([us["min"], us["p99"]], [k, k], color=colour, alpha=0.35, linewidth=2)
        axes.plot([us["p50"], us["p90"]], [k, k], color=colour, alpha=0.7, linewidth=6)
        axes.plot(us["p50"], k, marker="o", color=colour)
        noisy = (r["timing"] or {}).get("noise")
        axes.annotate(
            f"{number(us['p50'])}{'~' if noisy else ''}",
            (us["p99"], k),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(rows)), [r["backend"] for r in rows])
    axes.invert_yaxis()
    _log_axis(axes)
    axes.set_xlabel("µs for one call: least to p99 (thin), p50 (dot) to p90")
    return "latency"


def _memory(axes: Any, rows: list[Document]) -> str | None:
    known = [r for r in rows if None not in r["memory"].values()]
    if not known:
        return None
    base = [r["memory"]["base_rss_bytes"] / 1e6 for r in known]
    own = [r["memory"]["peak_rss_bytes"] / 1e6 - b for r, b in zip(known, base, strict=True)]
    names = [r["backend"] for r in known]
    axes.barh(names, base, color=PALE, label="Python and NumPy")
    axes.barh(names, own, left=base, color=INT8, label="engine and model")
    axes.invert_yaxis()
    axes.set_xlabel("MB resident after the first result, at most")
    axes.legend(frameon=False, fontsize=8)
    return "memory"


def _error(axes: Any, analysis: Document | None) -> str | None:
    curves = [s for s in (analysis or {}).get("signals", []) if s["error_over_time"]]
    if analysis is None or not curves:
        return None
    for signal in curves:
        over = [100 * error for error in signal["error_over_time"]]
        axes.plot(analysis["steps"], over, label=signal["name"], linewidth=1.6)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time step")
    axes.set_ylabel("error, % of the signal")
    axes.legend(frameon=False, fontsize=8, ncols=2)
    return f"integers (profile {analysis['profile']}) against float over time"

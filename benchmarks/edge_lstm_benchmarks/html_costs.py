"""Sections of the page about time, memory and size, and what they buy in accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from edge_lstm_benchmarks import charts
from edge_lstm_benchmarks.html_parts import (
    PERCENT,
    Document,
    count_text,
    kind_class,
    legend,
    table,
)


def pareto_section(ran: list[Document]) -> Iterator[str]:
    """Yield latency against the task metric, or against the agreement with float."""
    judged = [r for r in ran if r["accuracy"] and r["accuracy"]["value"] is not None]
    by_snr = not judged
    if by_snr:
        judged = [r for r in ran if (r["fidelity"] or {}).get("snr_db") is not None]
    if not judged:
        return
    first = judged[0]["accuracy"] or {}
    title = "signal to noise against float, dB" if by_snr else first["metric"]
    factor = 100.0 if first.get("metric") in PERCENT else 1.0
    higher = by_snr or bool(first.get("higher_is_better", True))
    bubbles = []
    for r in judged:
        value: float = (r["fidelity"] or {}).get("snr_db") or 0.0
        interval = None
        if not by_snr:
            accuracy = r["accuracy"]
            value, ends = factor * accuracy["value"], accuracy.get("delta_interval")
            if ends is not None:
                in_float = accuracy["value"] - accuracy["delta_vs_float"]
                interval = (factor * (in_float + ends[0]), factor * (in_float + ends[1]))
        p50, size = r["latency_us"]["p50"], r["size"]["model_bytes"] or 0
        about = f"{r['backend']}: {charts.number(p50)} µs, {value:.6g}, {size:,} bytes"
        bubbles.append(
            charts.Bubble(r["backend"], max(p50, 1e-3), value, size, kind_class(r), interval, about)
        )
    yield "<h3>Latency against accuracy</h3>"
    yield (
        "<p>Left is faster, up is better; a bubble's area is the size of the model's file. "
        f"{legend(ran)}. The dashed line joins what no other beats in both; the bars are the 95 % "
        "interval of the difference from float (paired bootstrap over sequences).</p>"
    )
    shown = "µs for one call, median"
    title += " (%)" if factor == 100.0 and not by_snr else ""
    yield f"<figure>{charts.pareto(bubbles, shown, title, higher_is_better=higher)}</figure>"


def latency_section(ran: list[Document]) -> Iterator[str]:
    rows = [
        charts.Distribution(
            r["backend"],
            kind_class(r),
            r["timing"]["edges_us"],
            r["timing"]["counts"],
            r["latency_us"]["p50"],
            r["latency_us"]["p99"],
        )
        for r in ran
        if r["timing"] and r["timing"]["counts"]
    ]
    if not rows:
        return
    yield "<h3>Latency of single calls</h3>"
    yield (
        "<p>Every timed call, in rounds that visit all backends in turns; the thick mark is the "
        "median, the thin one the 99th percentile.</p>"
    )
    yield f"<figure>{charts.distributions(rows, 'µs for one call')}</figure>"
    noisy = [f"{r['backend']}: {r['timing']['noise']}" for r in ran if r["timing"]["noise"]]
    if noisy:
        lines = "".join(f"<li>{escape(line)}</li>" for line in noisy)
        yield (
            f'<details><summary><span class="bad">~</span> {len(noisy)} of {len(ran)} backends were'
            " disturbed; measure again on a quieter machine before deciding by these</summary>"
            f"<ul>{lines}</ul></details>"
        )


def cost_sections(ran: list[Document]) -> Iterator[str]:
    """Yield memory, cold start and sizes as bars."""
    memory = []
    for r in ran:
        peak, base = r["memory"]["peak_rss_bytes"], r["memory"]["base_rss_bytes"]
        if peak is not None and base is not None:
            held = (
                (base / 1e6, "pale", "Python and NumPy"),
                ((peak - base) / 1e6, "full", "engine and model"),
            )
            shown = f"{peak / 1e6:.0f} (+{(peak - base) / 1e6:.1f})"
            memory.append(charts.Bar(r["backend"], held, shown))
    if memory:
        yield "<h3>Memory</h3>"
        yield (
            "<p>Largest resident size of a fresh process after its first result: Python and NumPy "
            "(pale), and what the engine and the model added.</p>"
        )
        yield f"<figure>{charts.bars(memory, 'MB')}</figure>"
    cold = []
    for r in ran:
        start = r["cold_start"]
        if start is not None:
            rest = start["total_ms"] - start["load_ms"] - start["first_ms"]
            parts = (
                (max(rest, 0.0), "pale", "starting Python and NumPy"),
                (start["load_ms"], "middle", "importing the engine and loading the model"),
                (start["first_ms"], "full", "first call"),
            )
            added = start["load_ms"] + start["first_ms"]
            shown = f"{start['total_ms']:.0f} (+{charts.number(added)})"
            cold.append(charts.Bar(r["backend"], parts, shown))
    if cold:
        yield "<h3>Cold start</h3>"
        yield (
            "<p>From the start of a process to its first result: Python and NumPy (pale), import "
            "and load, first call.</p>"
        )
        yield f"<figure>{charts.bars(cold, 'ms')}</figure>"
    rows = [
        [
            escape(r["backend"]),
            count_text(r["size"]["model_bytes"]),
            "-"
            if r["size"]["package_bytes"] is None
            else f"{r['size']['package_bytes'] / 1e6:.1f}",
            f'<td class="wrap soft">{escape(", ".join(r["size"]["packages"]))}</td>',
        ]
        for r in ran
    ]
    yield "<h3>Sizes</h3>"
    yield table(["backend", "model, bytes", "installed, MB", "packages"], rows, "prose")

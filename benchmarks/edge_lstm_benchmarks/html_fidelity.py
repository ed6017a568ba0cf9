"""Sections of the page about what integers change: inside the model, and byte by byte."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from edge_lstm_benchmarks import charts
from edge_lstm_benchmarks.html_parts import Document, table

ROLES = {
    "input_gate": "c1",
    "forget_gate": "c2",
    "cell_gate": "c3",
    "output_gate": "c4",
    "cell_state": "c5",
    "output": "c6",
    "update_gate": "c1",
    "reset_gate": "c2",
    "candidate_gate": "c3",
}
"""Signals of a recurrent layer, and their colours."""


def inside_sections(analysis: Document | None) -> Iterator[str]:
    """Yield each layer, gate and state against float, and the error over time."""
    if analysis is None or not analysis["signals"]:
        return
    yield "<h3>Inside the model</h3>"
    yield (
        f"<p>NumPy int8 under profile {escape(analysis['profile'])} against the float reference, "
        f"over {analysis['sequences']:,} sequences. Gates are compared after sigmoid or tanh.</p>"
    )
    yield table(
        ["signal", "kind", "SNR dB", "cosine", "saturated", "share"],
        [
            [
                escape(s["name"]),
                escape(s["kind"]),
                f"{s['snr_db']:.1f}",
                f"{s['cosine']:.6f}",
                f"{s['saturated']:,} of {s['values']:,}",
                f"{100 * s['saturated'] / s['values']:.3f} %",
            ]
            for s in analysis["signals"]
        ],
    )
    layers: dict[str, list[charts.Curve]] = {}
    for s in analysis["signals"]:
        layer, _, role = s["name"].rpartition(".")
        if role in ROLES and s["error_over_time"]:
            over = [100 * error for error in s["error_over_time"]]
            curve = charts.Curve(role.replace("_", " "), ROLES[role], analysis["steps"], over)
            layers.setdefault(layer, []).append(curve)
    if layers:
        yield "<h3>Error over time</h3>"
        yield (
            "<p>At each time step, the root mean square of integers minus float, in percent of the "
            "signal's own.</p>"
        )
    for layer, rows in layers.items():
        drawing = charts.curves(rows, f"time step, layer {layer}", "error, %")
        yield f"<figure>{drawing}</figure>"


def steps_sections(ran: list[Document]) -> Iterator[str]:
    """Yield how many outputs are how many integers away, from the profile and from float."""
    for field, title in (
        ("steps_from_profile", "Integers away from the profile's bytes"),
        ("steps_from_float", "Integers away from the float model, rounded to the output's scale"),
    ):
        found = {
            r["backend"]: r["fidelity"][field] for r in ran if (r["fidelity"] or {}).get(field)
        }
        if not found:
            continue
        names = sorted({name for steps in found.values() for name in steps}, key=_step_order)
        rows = []
        for backend, steps in found.items():
            total = sum(steps.values())
            cells = [_heat(steps.get(name, 0), total) for name in names]
            rows.append([escape(backend), *cells])
        yield f"<h3>{title}</h3>"
        yield table(["backend", *names], rows, "heat")


def _step_order(name: str) -> float:
    if name[0] in "<>":
        return -math.inf if name[0] == "<" else math.inf
    return int(name)


def _heat(count: int, total: int) -> str:
    share = 100 * count / total if total else 0.0
    ground = f"color-mix(in srgb, var(--float) {0.7 * share:.0f}%, transparent)"
    shown = "" if count == 0 else f"{share:.2f} %"
    return f'<td style="background:{ground}" title="{count:,} of {total:,}">{shown}</td>'


def matrix_section(pairs: Document | None) -> Iterator[str]:
    """Yield which backends give the same bytes."""
    if pairs is None:
        return
    rows = []
    for backend, counts in zip(pairs["backends"], pairs["differing_bytes"], strict=True):
        cells = []
        for count in counts:
            classes = "" if count is None else ("same" if count == 0 else "differs")
            shown = "" if count is None else f"{count:,}"
            cells.append(f'<td class="{classes}">{shown}</td>')
        rows.append([escape(backend), *cells])
    yield "<h3>Bytes that differ, backend by backend</h3>"
    yield "<p>Green: every output byte is the same. Empty: the types differ.</p>"
    numbers = [str(number) for number in range(1, len(rows) + 1)]
    rows = [[f"{n}&nbsp; {row[0]}", *row[1:]] for n, row in zip(numbers, rows, strict=True)]
    yield table(["backend", *numbers], rows, "heat")

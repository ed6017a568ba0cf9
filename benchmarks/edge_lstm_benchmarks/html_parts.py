"""Pieces of the page that its sections share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from edge_lstm_benchmarks import charts

Document = dict[str, Any]

PERCENT = ("accuracy", "f1", "mape")
"""Metrics that are shares."""


def is_wrong(result: Document) -> bool:
    """Return whether bytes are not those of the profile that they must be."""
    return bool((result["fidelity"] or {}).get("differing_bytes"))


def kind_class(result: Document) -> str:
    """Return the CSS class of a result's colour: by what it computes in, unless it is wrong."""
    if is_wrong(result):
        return charts.WRONG
    known = result["precision"] if result["precision"] in ("float32", "int8") else "other"
    return f"k-{known}"


def metric_text(accuracy: Document | None) -> tuple[str, str]:
    """Return the metric and its difference from float, as a reader wants them."""
    if accuracy is None or accuracy["value"] is None:
        return "-", "-"
    factor, unit = (100.0, " %") if accuracy["metric"] in PERCENT else (1.0, "")
    value = factor * accuracy["value"]
    decimals = 2
    if not unit and value:
        decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    shown, delta = f"{value:.{decimals}f}{unit}", accuracy["delta_vs_float"]
    if delta is None:
        return shown, "-"
    said, interval = f"{factor * delta:+.{decimals}f}", accuracy.get("delta_interval")
    if interval is not None:
        low, high = (f"{factor * end:+.{decimals}f}" for end in interval)
        said += f" [{low}, {high}]"
    return shown, said


def table(header: Sequence[str], rows: Iterable[Sequence[str]], classes: str = "") -> str:
    """Return a table; cells are HTML already, those that bring their own ``<td`` as they are."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{classes}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def count_text(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def legend(ran: list[Document]) -> str:
    """Return what the colours of the results mean."""
    kinds: dict[str, dict[str, None]] = {}
    for r in ran:
        what = "not the bytes of its profile" if is_wrong(r) else r["precision"]
        kinds.setdefault(kind_class(r), {})[what] = None
    return ", ".join(
        f'<span class="dot {kind}"></span>{escape(" or ".join(whats))}'
        for kind, whats in kinds.items()
    )

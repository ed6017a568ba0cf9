"""A report as CSV: a line for each result, figures without units or separators."""

from __future__ import annotations

import csv
import io
from typing import Any

COLUMNS: dict[str, tuple[str, ...]] = {
    **{
        name: (name,)
        for name in ("model", "backend", "profile", "precision", "version", "ran_on", "scenario")
    },
    "steps_per_call": ("steps_per_call",),
    **{f"{name}_us": ("latency_us", name) for name in ("min", "p50", "p90", "p99")},
    "calls": ("latency_us", "n"),
    "rounds": ("timing", "rounds"),
    "noise": ("timing", "noise"),
    "steps_per_s": ("steps_per_s",),
    "real_time": ("real_time",),
    "counted_unit": ("counted", "unit"),
    "counted_per_step": ("counted", "per_step"),
    "flash_bytes": ("counted", "flash_bytes"),
    "ram_bytes": ("counted", "ram_bytes"),
    "sequences": ("sequences",),
    "cold_start_ms": ("cold_start", "total_ms"),
    "load_ms": ("cold_start", "load_ms"),
    "first_call_ms": ("cold_start", "first_ms"),
    "peak_rss_bytes": ("memory", "peak_rss_bytes"),
    "base_rss_bytes": ("memory", "base_rss_bytes"),
    "model_bytes": ("size", "model_bytes"),
    "package_bytes": ("size", "package_bytes"),
    "metric": ("accuracy", "metric"),
    "value": ("accuracy", "value"),
    "delta_vs_float": ("accuracy", "delta_vs_float"),
    "delta_low": ("accuracy", "delta_interval", "0"),
    "delta_high": ("accuracy", "delta_interval", "1"),
    **{name: ("fidelity", name) for name in ("snr_db", "cosine", "labels_same", "differing_bytes")},
    "output_bytes": ("output_bytes",),
    "output_checksum": ("output_checksum",),
    "warning": ("warning",),
    "skipped_reason": ("skipped_reason",),
}
"""A column's name, and where its value stands in a result of the JSON document."""


def csv_text(document: dict[str, Any]) -> str:
    """Return the results of a ``edge-lstm.bench/1`` document; nothing stands for null."""
    inputs = {model["name"]: model["input_checksum"] for model in document["models"]}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "input_checksum"])
    writer.writerows(
        [*(_value(result, path) for path in COLUMNS.values()), inputs[result["model"]]]
        for result in document["results"]
    )
    return text.getvalue()


def _value(result: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = result
    for name in path:
        if value is None:
            return None
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value

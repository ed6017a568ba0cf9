"""What ``gpu.py`` measured, as Markdown."""

from __future__ import annotations

import math
from typing import Any

from edge_lstm_benchmarks.markdown import table

TIME_STEPS = 100
CPU = ("c-host:edge", "onnxruntime", "torch")
GPU = ("onnxruntime:cuda", "torch-cuda", "torch-cuda-compiled")


def overtakes(document: dict[str, Any]) -> int | None:
    """Return the least batch from which on the best GPU row beats the best CPU row."""
    found = None
    for row in reversed(document["gpu_batches"]):
        if _best(row, GPU) >= _best(row, CPU):
            break
        found = row["batch"]
    return found


def _best(row: dict[str, Any], names: tuple[str, ...]) -> float:
    return min((row["us_per_call"].get(name, math.inf) for name in names), default=math.inf)


def render(kept: list[dict[str, Any]]) -> str:
    """Return the page's section for all machines with a GPU."""
    parts = ["## From which batch on a GPU is faster\n\nMade by `make gpu`; times on the wall.\n"]
    for document in kept:
        measured = document["gpu_batches"]
        names = [n for n in (*CPU, *GPU) if any(n in row["us_per_call"] for row in measured)]
        rows = [
            [str(row["batch"]), *(_cell(row["us_per_call"].get(name)) for name in names)]
            for row in measured
        ]
        batch = overtakes(document)
        said = "the CPU is faster throughout" if batch is None else f"from {batch} rows on the GPU"
        parts.append(
            f"\n### {document['host']['cpu']}, {document['shape']}, {TIME_STEPS} steps: {said}\n\n"
            f"{table(['rows, µs a call', *names], rows)}"
        )
    return "".join(parts)


def _cell(us: float | None) -> str:
    return "-" if us is None else f"{us:,.0f}"

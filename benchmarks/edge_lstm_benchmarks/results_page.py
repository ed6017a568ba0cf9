"""``benchmarks/RESULTS.md``: a section for each suite, made from what is kept in ``results/``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_lstm.files import write_atomically
from edge_lstm_benchmarks import (
    accuracy_report,
    firmware_report,
    gpu_report,
    runtimes_report,
    sequence_models_report,
    streams_report,
)

ROOT = Path(__file__).resolve().parents[1]

Document = dict[str, Any]

TITLE = """\
# Results

Each section is made by the command that it names, from the figures that it keeps in `results/`.
"""

# In the page's order: a key that only the suite's documents have, and what renders all of them.
SECTIONS: tuple[tuple[str, Callable[[list[Document]], str]], ...] = (
    ("runs", runtimes_report.render),
    ("gpu_batches", gpu_report.render),
    ("costs", firmware_report.render),
    ("accuracy", accuracy_report.render),
    ("sequence_models", sequence_models_report.render),
    ("streams", streams_report.render),
)


def write_page(folder: Path = ROOT) -> None:
    """Write ``RESULTS.md`` anew; a suite of which nothing is kept has no section."""
    write_atomically(folder / "RESULTS.md", page(folder).encode())


def page(folder: Path = ROOT) -> str:
    """Return the page for what is kept in a folder."""
    kept = [
        json.loads(path.read_text(encoding="utf8"))
        for path in sorted((folder / "results").glob("*.json"))
    ]
    parts = [TITLE]
    for key, render in SECTIONS:
        if documents := [document for document in kept if key in document]:
            parts.append(render(documents))
    return "\n".join(parts)

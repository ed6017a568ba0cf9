"""``benchmarks/RESULTS.md``, made from what is kept in ``benchmarks/results``."""

from __future__ import annotations

import json
from pathlib import Path

from edge_lstm.files import write_atomically
from edge_lstm_benchmarks import firmware_report, runtimes_report

ROOT = Path(__file__).resolve().parents[1]


def write_page(folder: Path = ROOT) -> None:
    """Write ``RESULTS.md`` anew from the files in ``results/``."""
    kept = [
        json.loads(path.read_text(encoding="utf8"))
        for path in sorted((folder / "results").glob("*.json"))
    ]
    # A machine's latencies have runs; there is one file of firmware, the same on every machine.
    page = runtimes_report.render([document for document in kept if "runs" in document])
    for document in kept:
        if "costs" in document:
            page += "\n" + firmware_report.render(document)
    write_atomically(folder / "RESULTS.md", page.encode())

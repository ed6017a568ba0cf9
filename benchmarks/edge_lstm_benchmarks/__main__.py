"""Measures every sample model on every backend present: ``make bench``."""

from __future__ import annotations

import sys

from edge_lstm_benchmarks.harness import run_bench
from edge_lstm_benchmarks.results import UNITS, sample_model

SCENARIOS = ("stream", "sequence", "batch:32")


def main() -> int:
    """Print the reports; return 1 if any byte is not that of its profile."""
    failed = False
    for name in UNITS:
        model, samples = sample_model(name)
        for scenario in SCENARIOS:
            report = run_bench([model], samples, None, scenario)
            print(report.text(), flush=True)
            print()
            failed = failed or bool(report.mismatches())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

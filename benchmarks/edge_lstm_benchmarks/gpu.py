"""From which batch on a GPU is faster than the CPU of an edge device: ``make gpu``.

The models are those of ``runtimes``; whole sequences go in, the rows of a batch together, and the
time is that on the wall, copies to the GPU and back included. Without a GPU nothing is kept, and
each row says why it did not run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

from edge_lstm.files import write_atomically
from edge_lstm_benchmarks.gpu_report import CPU, GPU, TIME_STEPS
from edge_lstm_benchmarks.machine import describe_host
from edge_lstm_benchmarks.picture_gpu import gpu_png
from edge_lstm_benchmarks.results_page import ROOT, write_page
from edge_lstm_benchmarks.runtimes import (
    Contestant,
    Mode,
    Options,
    Peer,
    machine_name,
    measure_mode,
)

SHAPE = "40x128"
BATCHES = tuple(2**k for k in range(11))
OPTIONS = Options(rounds=11, least_rounds=5, cap_s=20.0)
NO_GPU = 4


def run(batches: tuple[int, ...], options: Options) -> dict[str, Any]:
    """Return the microseconds of a call, for every batch and runtime."""
    contestants = [Contestant(name, options, Peer(name)) for name in (*CPU, *GPU)]
    rows = []
    try:
        for batch in batches:
            mode = Mode(batch, TIME_STEPS, calls=1)
            found = measure_mode(contestants, SHAPE, mode, options)["peers"]
            steps = batch * TIME_STEPS
            us = {
                name: row["wall_us_per_step"] * steps
                for name, row in found.items()
                if "wall_us_per_step" in row
            }
            skipped = {name: row["skipped"] for name, row in found.items() if "skipped" in row}
            rows.append({"batch": batch, "us_per_call": us, "skipped": skipped})
            print(f"batch {batch}: " + ", ".join(f"{n} {v:.4g} us" for n, v in us.items()))
    finally:
        for one in contestants:
            one.close()
    day = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return {"date": day, "host": describe_host(), "shape": SHAPE, "gpu_batches": rows}


def main(arguments: list[str] | None = None) -> int:
    """Measure, keep, draw; return 4 where there is no GPU to measure."""
    parser = argparse.ArgumentParser(prog="python -m edge_lstm_benchmarks.gpu")
    parser.add_argument("--folder", type=Path, default=ROOT, help="of results/ and RESULTS.md")
    given = parser.parse_args(arguments)
    reasons = {name: Contestant(name, OPTIONS, Peer(name)).absent for name in GPU}
    if all(reasons.values()):
        for name, reason in reasons.items():
            print(f"{name}: {reason}", file=sys.stderr)
        return NO_GPU
    document = run(BATCHES, OPTIONS)
    stem = given.folder / "results" / f"gpu-{machine_name()}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(stem.with_suffix(".json"), f"{json.dumps(document, indent=1)}\n".encode())
    write_atomically(stem.with_suffix(".png"), gpu_png(document))
    write_page(given.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

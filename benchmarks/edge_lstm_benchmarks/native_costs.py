"""What native code costs beside its steps: its start without NumPy, and threads that share a CPU.

Both are times on the wall, and good on a quiet machine only.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.program import Program
from edge_lstm_converters.write_native import write_native

STARTS = 21
ROUNDS = 9
SLICE_S = 0.1
FIRST_STEP = """
import sys
sys.path.insert(0, {folder!r})
import {name} as native
native.Model().step(bytes(native.INPUT_SIZE))
"""


def native_costs(shape: str, program: Program) -> dict[str, Any]:
    """Return milliseconds from a process's start to its first step, and sequences a second.

    Args:
        shape: for the record.
        program: of int8 inputs, that runs step by step.
    """
    with tempfile.TemporaryDirectory() as draft:
        folder = write_native(program, Path(draft))
        code = FIRST_STEP.format(folder=str(folder), name=program.name)
        first, alone = [], []
        for _ in range(STARTS):
            first.append(_process_ms(code))
            alone.append(_process_ms("pass"))
    counts = sorted({1, len(os.sched_getaffinity(0)) if sys.platform == "linux" else 2})
    speeds: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(ROUNDS):
        for count in counts:
            speeds[count].append(_sequences_per_s(program, count))
    return {
        "shape": shape,
        "first_step_ms": statistics.median(first),
        "python_alone_ms": statistics.median(alone),
        "sequences_per_s": {str(n): statistics.median(found) for n, found in speeds.items()},
    }


def _process_ms(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
    return 1000 * (time.perf_counter() - start)


def _sequences_per_s(program: Program, threads: int) -> float:
    """Return how many sequences of 100 steps some threads run, each with a session of its own."""
    tensor = program.input_tensor
    x = np.zeros((1, 100, tensor.signal.size), tensor.dtype)
    sessions = [program.compile() for _ in range(threads)]
    done = [0] * threads
    stop = time.perf_counter() + SLICE_S

    def work(number: int) -> None:
        while time.perf_counter() < stop:
            sessions[number].run(x)
            done[number] += 1

    start = time.perf_counter()
    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) / (time.perf_counter() - start)

"""Backends that misbehave on purpose; tests/test_benchmarks.py puts them into BACKENDS.

They run on a clock of their own, so that nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.program_file import program_bytes, program_from_bytes
from edge_lstm.records import Counted
from edge_lstm.runtime import Session as Runtime
from edge_lstm_benchmarks import worker

STEP_NS = {"slow": 3_000_000}
FAST_STEP_NS = 20_000
_now_ns = 0


class Planted:
    """The NumPy runtime under profile tflm, with the fault that the name says."""

    precision: Precision = "int8"
    profile: str | None = "tflm"
    fixed_shape = False
    rows_at_once = 1

    def __init__(self, name: str) -> None:
        self.name = name
        if name == "counts":
            self.most_sequences = 5

    def available(self) -> str | None:
        return "planted is not installed; pip install planted" if self.name == "missing" else None

    def python(self) -> str:
        return "/nowhere/python" if self.name == "no-python" else sys.executable

    def version(self) -> str:
        if self.name != "right":
            return "1.0"
        cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ""
        return f"{os.environ['OPENBLAS_NUM_THREADS']} thread on CPU {cpus}"

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        if self.name == "unbuildable":
            raise ValueError("first line\nsecond line")
        assert model.program is not None
        return program_bytes(model.program)

    def load(self, data: bytes, shape: CallShape) -> Session:
        worker.clock = worker.processor_clock = lambda: _now_ns
        if self.name == "five-rows" and shape.batch_size != 5:
            raise ValueError(f"{shape.batch_size} rows; want 5")
        if self.name == "one-process":
            import fcntl

            # Until the process ends, as a device is taken.
            self._held = Path(__file__).open()  # noqa: SIM115
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if self.name == "chatty":
            os.write(1, b"INFO: engine " + b"\0" * 100)
        kind = Counter if self.name == "counts" else Fault
        return kind(self.name, program_from_bytes(data).session(shape.batch_size))


class Fault:
    """A session with the fault that the name says."""

    def __init__(self, name: str, session: Runtime) -> None:
        self._name, self._session, self._calls = name, session, 0

    def reset(self) -> None:
        if self._name != "remembers":
            self._session.reset()

    def step(self, x: Array) -> Array:
        return self._spoil(self._session.step(x))

    def run(self, x: Array) -> Array:
        return self._spoil(self._session.run(x))

    def _spoil(self, y: Array) -> Array:
        global _now_ns
        _now_ns += STEP_NS.get(self._name, FAST_STEP_NS)
        self._calls += 1
        if self._name == "cold" and self._calls == 1:
            _now_ns += 10 * FAST_STEP_NS
        if self._name == "raises":
            raise RuntimeError("kernel failed\nat node 3")
        if self._name == "segfaults":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._name == "exits":
            print("the engine gave up", file=sys.stderr, flush=True)
            os._exit(7)
        if self._name == "hangs":
            time.sleep(1000)
        if self._name == "fails-late" and self._calls > 80:
            raise RuntimeError("ran out of calls")
        if self._name == "wrong":
            y = y.copy()
            y[..., 0] ^= np.int8(64)
        return y


class Counter(Fault):
    """Right, and without a clock: 1,000 instructions for every step of every row."""

    def outputs(self, x: Array) -> Array:
        size, parts = self._session.batch_size, []
        for first in range(0, len(x), size):
            self.reset()
            parts.append(self.run(x[first : first + size]))
        return np.concatenate(parts)

    def counted(self) -> Counted:
        return Counted("emulated", "instructions", 1000.0, 2048, 512)

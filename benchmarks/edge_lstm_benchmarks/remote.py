"""The near side of a worker: starts it, asks it, and says in one line how it failed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import edge_lstm
import edge_lstm_benchmarks
from edge_lstm.arrays import Array
from edge_lstm.backend import Backend, BenchModel, CallShape
from edge_lstm.errors import EdgeLstmError
from edge_lstm_benchmarks import BACKENDS
from edge_lstm_benchmarks.worker import read_message, write_message

# Makes our two packages importable in any Python, without the other packages that are
# installed beside them: tflite-runtime must not meet our NumPy.
BOOT = """
import importlib.util, json, sys
sys.path = [p for p in sys.path if p]
packages, name, target, cpu = json.loads(sys.argv[1])
for package, folder in packages.items():
    spec = importlib.util.spec_from_file_location(
        package, folder + "/__init__.py", submodule_search_locations=[folder])
    sys.modules[package] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[package])
from edge_lstm_benchmarks.worker import main
main(name, target, cpu)
"""

# One thread, for every library that would start more.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}


class WorkerFailed(EdgeLstmError):
    """A backend could not do what it was asked; the message is the reason."""


class Worker:
    """A backend's process.

    Args:
        name: the backend's row in BACKENDS.
        backend: the same, on this side.
        cpu: the CPU to run on, or None for any.
        limit_s: seconds that one answer may take before the process is ended.
        target: where the backend's class is, if not where BACKENDS says.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        cpu: int | None,
        limit_s: float,
        target: str | None = None,
    ) -> None:
        self._limit_s = limit_s
        self._late = False
        self._failure: str | None = None
        folders = {
            package.__name__: str(Path(str(package.__file__)).parent)
            for package in (edge_lstm, edge_lstm_benchmarks)
        }
        boot = json.dumps([folders, name, target or BACKENDS[name], cpu])
        environment = {**os.environ, **ONE_THREAD}
        environment.pop("PYTHONPATH", None)
        if backend.python() == sys.executable:
            environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            self._process = subprocess.Popen(
                [backend.python(), "-c", BOOT, boot],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
            )
        except OSError as error:
            self._errors.close()
            raise WorkerFailed(f"{backend.python()} does not start: {error}") from error

    def ask(
        self, do: str, arrays: dict[str, Array] | None = None, **fields: Any
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Send a request and return the answer.

        Raises:
            WorkerFailed: the backend refused, crashed, or did not answer in time.
        """
        if self._failure is not None:
            raise WorkerFailed(self._failure)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(self._limit_s, self._end_late)
        timer.start()
        try:
            write_message(self._process.stdin, {"do": do, **fields}, arrays)
            answer, outputs = read_message(self._process.stdout)
        except (EOFError, OSError) as error:
            self._failure = self._why_it_ended()
            raise WorkerFailed(self._failure) from error
        finally:
            timer.cancel()
        if "error" in answer:
            raise WorkerFailed(str(answer["error"]))
        return answer, outputs

    def release(self) -> None:
        """Let the process end; ``close`` waits for that, and may be called for many after this."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdout is not None
        self.release()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _end_late(self) -> None:
        self._late = True
        self._process.kill()

    def _why_it_ended(self) -> str:
        code = self._process.wait()
        if self._late:
            return f"hung: no answer in {self._limit_s:g} s; its process was ended"
        how = f"exit status {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-code).name
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"crashed: its process ended with {how}" + (f" ({lines[-1]})" if lines else "")


class WorkerSession:
    """A Session that runs in a worker; for tests, since each call crosses a pipe."""

    def __init__(self, worker: Worker, session: str) -> None:
        self._worker, self._session = worker, session

    def reset(self) -> None:
        """Set the state to its first value."""
        self._worker.ask("reset", session=self._session)

    def step(self, x: Array) -> Array:
        """Run one step."""
        return self._worker.ask("step", {"x": x}, session=self._session)[1]["y"]

    def run(self, x: Array) -> Array:
        """Run a sequence."""
        return self._worker.ask("run", {"x": x}, session=self._session)[1]["y"]


def load_session(
    worker: Worker, backend: Backend, model: BenchModel, shape: CallShape, session: str
) -> tuple[WorkerSession, str, int]:
    """Build the model here, load it there; return the session, engine version and file bytes."""
    data = backend.build(model, shape)
    loaded = load_bytes(worker, data, shape, session)
    return WorkerSession(worker, session), loaded.version, len(data)


class Loaded(NamedTuple):
    """What a worker says of a session that it loaded."""

    version: str
    counts: bool
    """Whether it has no clock, and counts."""
    ran_on: str | None = None
    """Which parts of an engine ran what, where it can tell."""
    warning: str | None = None


def load_bytes(worker: Worker, data: bytes, shape: CallShape, session: str) -> Loaded:
    """Load what was built."""
    answer, _ = worker.ask(
        "load", {"data": np.frombuffer(data, np.uint8)}, session=session, shape=_as_list(shape)
    )
    return Loaded(
        str(answer["version"]), bool(answer["counts"]), answer["ran_on"], answer["warning"]
    )


def cold_start(
    worker: Worker, data: bytes, shape: CallShape, stepwise: bool, x: Array
) -> tuple[dict[str, Any], Array]:
    """Load what was built into a process that has done nothing else; return costs and output."""
    arrays = {"data": np.frombuffer(data, np.uint8), "x": x}
    answer, outputs = worker.ask("cold_start", arrays, shape=_as_list(shape), stepwise=stepwise)
    return answer, outputs["y"]


def _as_list(shape: CallShape) -> list[int | bool]:
    return [shape.batch_size, shape.time_steps, shape.returns_sequence]

"""One backend in a process of its own: it answers requests on stdin, and times itself.

A message is a length (8 bytes, little endian), a JSON object, and the ``.npy`` bytes of each
array that the object names, each after its own length. No pickle: neither side can make the other
run anything.
"""

from __future__ import annotations

import gc
import io
import json
import os
import struct
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.backend import Backend, CallShape, CountingSession, Session
from edge_lstm.errors import EdgeLstmError
from edge_lstm_benchmarks import open_backend
from edge_lstm_benchmarks.footprint import imported_packages, installed_size, peak_memory_bytes

_LENGTH = struct.Struct("<Q")

clock: Callable[[], int] = time.perf_counter_ns
processor_clock: Callable[[], int] = time.process_time_ns
"""Nanoseconds, of the wall and of this process; a test replaces them."""


def write_message(
    stream: IO[bytes], fields: Mapping[str, Any], arrays: Mapping[str, Array] | None = None
) -> None:
    """Write one message."""
    arrays = arrays or {}
    text = json.dumps({**fields, "arrays": list(arrays)}).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    for value in arrays.values():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(value), allow_pickle=False)
        stream.write(_LENGTH.pack(buffer.tell()))
        stream.write(buffer.getbuffer())
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return one message's object and arrays.

    Raises:
        EOFError: the other side has gone.
    """
    fields: dict[str, Any] = json.loads(_read_block(stream))
    arrays = {
        name: np.lib.format.read_array(io.BytesIO(_read_block(stream)), allow_pickle=False)
        for name in fields.pop("arrays")
    }
    return fields, arrays


def _read_block(stream: IO[bytes]) -> bytes:
    (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))
    return _read_exactly(stream, length)


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError(f"{len(data)} of {count} bytes, then the end")
    return data


class Server:
    """Holds the sessions that were asked for, by name."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._base_bytes, self._base_imports = peak_memory_bytes(), imported_packages()
        self._sessions: dict[str, tuple[Session, CallShape]] = {}
        self._timed: tuple[Session, list[list[Array]], bool] | None = None
        self._next_row = 0
        self._calls: tuple[Session, list[Array], bool] | None = None

    def answer(
        self, fields: dict[str, Any], arrays: dict[str, Array]
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Carry out one request."""
        request: Callable[..., tuple[dict[str, Any], dict[str, Array]]]
        request = getattr(self, f"do_{fields.pop('do')}")
        return request(**fields, **arrays)

    def do_load(
        self, session: str, shape: list[Any], data: Array
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Make a session from a model's bytes."""
        call = CallShape(int(shape[0]), int(shape[1]), bool(shape[2]))
        self._sessions[session] = self._backend.load(data.tobytes(), call), call
        runner = self._sessions[session][0]
        return {
            "version": self._backend.version(),
            "counts": isinstance(runner, CountingSession),
            "ran_on": getattr(runner, "ran_on", None),
            "warning": getattr(runner, "warning", None),
        }, {}

    def do_counted(self, session: str) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what a step costs, where the session has no clock."""
        runner = self._sessions[session][0]
        assert isinstance(runner, CountingSession)
        return asdict(runner.counted()), {}

    def do_cold_start(
        self, shape: list[Any], stepwise: bool, data: Array, x: Array
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Load a model and make its first call, ``x``; return what both took.

        In a process that has done nothing else, loading imports the engine.
        """
        call = CallShape(int(shape[0]), int(shape[1]), bool(shape[2]))
        now = clock
        start = now()
        session = self._backend.load(data.tobytes(), call)
        loaded = now()
        y = session.step(x) if stepwise else session.run(x)
        first = now()
        peak = peak_memory_bytes()
        # NumPy was there before the engine; whatever runs needs it.
        imports = imported_packages() - self._base_imports | {"numpy"}
        installed = installed_size(imports)
        return {
            "load_ns": loaded - start,
            "first_ns": first - loaded,
            "base_bytes": self._base_bytes,
            "peak_bytes": peak,
            "package_bytes": None if installed is None else installed[0],
            "packages": [] if installed is None else list(installed[1]),
        }, {"y": np.array(y)}

    def do_reset(self, session: str) -> tuple[dict[str, Any], dict[str, Array]]:
        """Set a session to its first state."""
        self._sessions[session][0].reset()
        return {}, {}

    def do_step(self, session: str, x: Array) -> tuple[dict[str, Any], dict[str, Array]]:
        """Run one step."""
        return {}, {"y": self._sessions[session][0].step(x)}

    def do_run(self, session: str, x: Array) -> tuple[dict[str, Any], dict[str, Array]]:
        """Run a sequence."""
        return {}, {"y": self._sessions[session][0].run(x)}

    def do_outputs(
        self, session: str, stepwise: bool, x: Array
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return the outputs of all rows, each from the first state."""
        runner, shape = self._sessions[session]
        if isinstance(runner, CountingSession):
            return {}, {"y": runner.outputs(x)}
        batch = shape.batch_size
        # The last batch is filled up with its last row.
        rows = np.minimum(np.arange(-(-len(x) // batch) * batch), len(x) - 1)
        outputs = []
        for first in range(0, len(rows), batch):
            part = np.ascontiguousarray(x[rows[first : first + batch]])
            runner.reset()
            if not stepwise:
                outputs.append(runner.run(part))
            elif shape.returns_sequence:
                steps = [np.array(runner.step(part[:, t])) for t in range(x.shape[1])]
                outputs.append(np.stack(steps, axis=1))
            else:
                for t in range(x.shape[1]):
                    y = runner.step(part[:, t])
                outputs.append(np.array(y))
        return {}, {"y": np.concatenate(outputs)[: len(x)]}

    def do_prepare_timing(
        self, session: str, stepwise: bool, x: Array
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Keep what the timed calls are fed: ``x`` [rows, time, ...] in batches of the session."""
        runner, shape = self._sessions[session]
        rows = []
        for first in range(0, len(x), shape.batch_size):
            part = np.ascontiguousarray(x[first : first + shape.batch_size])
            if stepwise:
                rows.append([np.ascontiguousarray(part[:, t]) for t in range(x.shape[1])])
            else:
                rows.append([part])
        self._timed = runner, rows, stepwise
        return {}, {}

    def do_time(self, warm_ns: int, slice_ns: int) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return the nanoseconds of each call during ``slice_ns``, after a warm-up.

        Inside the timer: the call of ``step`` or ``run``, with an array in and an array out.
        Outside: resetting the state at the start of a row. With them come the time on the wall
        and the processor time of the whole slice: less of that means that others had the CPU.
        """
        assert self._timed is not None
        self._spend(warm_ns)
        start, processor_start = clock(), processor_clock()
        times = self._spend(slice_ns)
        wall, processor = clock() - start, processor_clock() - processor_start
        return {"wall_ns": wall, "processor_ns": processor}, {"ns": np.array(times, np.int64)}

    def do_prepare_calls(
        self, session: str, stepwise: bool, x: Array
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Keep the inputs of the timed calls, ``x`` [calls, ...]; return their outputs."""
        runner, _ = self._sessions[session]
        self._calls = runner, [np.ascontiguousarray(part) for part in x], stepwise
        runner.reset()
        outputs = []
        for part in self._calls[1]:
            if not stepwise:
                runner.reset()
            outputs.append(np.array(runner.step(part) if stepwise else runner.run(part)))
        return {}, {"y": np.stack(outputs)}

    def do_time_calls(self, warm_ns: int, slice_ns: int) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return how many calls took how many nanoseconds, after a warm-up.

        Once by the clock on the wall, once as the processor time of this process, which does
        not count when others had the CPU. The clocks are read around some calls, not each, so
        that they weigh nothing. Inside: the loop, the calls, and for whole sequences setting the
        state to its first value.
        """
        self._spend_calls(warm_ns)
        wall, cpu, calls = self._spend_calls(slice_ns)
        return {"wall_ns": wall, "cpu_ns": cpu, "calls": calls}, {}

    def _spend_calls(self, budget_ns: int) -> tuple[int, int, int]:
        assert self._calls is not None
        session, inputs, stepwise = self._calls
        call, reset = session.step if stepwise else session.run, session.reset
        wall = cpu = calls = 0
        while wall < budget_ns:
            block = inputs[:16] if stepwise else inputs[:1]
            inputs = inputs[len(block) :] + block
            cpu_start, start = processor_clock(), clock()
            for x in block:
                if not stepwise:
                    reset()
                call(x)
            wall += clock() - start
            cpu += processor_clock() - cpu_start
            calls += len(block)
        return wall, cpu, calls

    def _spend(self, budget_ns: int) -> list[int]:
        """Call until the budget is spent, at least once; return each call's nanoseconds."""
        assert self._timed is not None
        session, rows, stepwise = self._timed
        call = session.step if stepwise else session.run
        times: list[int] = []
        end = clock() + budget_ns
        now = clock
        while True:
            session.reset()
            for x in rows[self._next_row]:
                start = now()
                call(x)
                stop = now()
                times.append(stop - start)
                if stop >= end:
                    return times
            self._next_row = (self._next_row + 1) % len(rows)


def serve(backend: Backend, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the other side closes; a failure is an answer too."""
    server = Server(backend)
    while True:
        try:
            fields, arrays = read_message(requests)
        except EOFError:
            return
        try:
            result, outputs = server.answer(fields, arrays)
        except Exception as error:
            result, outputs = {"error": one_line(error)}, {}
        write_message(answers, result, outputs)


def one_line(error: BaseException) -> str:
    """Return an exception as one line."""
    text = " ".join(str(error).split())
    if isinstance(error, EdgeLstmError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def main(name: str, target: str, cpu: int | None) -> None:
    """Serve backend ``name`` on stdin and stdout, on one CPU where the system lets us choose."""
    # Engines print; what they print must not get between the messages.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})
    serve(open_backend(name, target), sys.stdin.buffer, answers)
    gc.collect()  # sessions remove the folders that they made
    os._exit(0)  # some engines take seconds to leave

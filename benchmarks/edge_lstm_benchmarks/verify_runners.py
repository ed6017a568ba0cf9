"""Who runs a model in ``verify``: the NumPy runtime or compiled C under a profile, an interpreter.

Outputs are ``{sequence: [outputs, size]}``: an output for every step where the model gives
sequences, else one for every call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.backend import BenchModel, CallShape
from edge_lstm.errors import EdgeLstmError, UnsupportedModel, UsageError
from edge_lstm.program import Program, Tensor
from edge_lstm.runtime import Session
from edge_lstm_benchmarks import BACKENDS, open_backend
from edge_lstm_benchmarks.backends.c_host import CHost
from edge_lstm_benchmarks.remote import Worker
from edge_lstm_benchmarks.verify_inputs import Batch, Form

Outputs = dict[int, Array]

COMPILED = "c"
OURS = ("numpy-int8", "c-host", "emulated")
"""Families of BACKENDS that run our own arithmetic; two of them have runners of their own here."""
READS_TFLITE = ("litert", "litert-ref", "tflm", "tflite-runtime")
"""Backends whose engine takes the bytes of a ``.tflite`` file."""
ANSWER_LIMIT_S = 120.0
KEY = "verify"
ROWS_TOGETHER = 256
# A call of one row and one step hands its array on as it is, in the file's own memory order.
AS_IT_IS = [1, 1, True]
AXES = {
    "sequence": ("batch", "time", "features"),
    "vector": ("batch", "features"),
    "tokens": ("batch", "time"),
}


class Runner(Protocol):
    """Runs programs."""

    @property
    def name(self) -> str:
        """Who it is."""

    @property
    def profile(self) -> str | None:
        """Whose bytes it must give, or None."""

    def outputs(self, program: Program, form: Form, batches: Iterable[Batch]) -> Outputs:
        """Return the outputs of every sequence, each batch from reset state."""


class Contender(Runner, Protocol):
    """A runner with a row in the report."""

    @property
    def kind(self) -> str:
        """What it is: numpy, c or interpreter."""

    @property
    def reason(self) -> str | None:
        """Why it cannot run here, or None."""

    @property
    def version(self) -> str | None:
        """Of an engine that is not ours, once it has run."""


def interpreter_names(wanted: list[str] | None) -> list[str]:
    """Return the rows of BACKENDS that run int8 models in an engine of their own, and ``c``.

    Raises:
        UsageError: a name is none of them.
    """
    engines = [name for name in BACKENDS if name.partition(":")[0] not in OURS]
    known = [name for name in engines if _takes_integers(name)] + [COMPILED]
    if wanted is None or "all" in wanted:
        return known
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"--against {name or repr(name)}: unknown; give some of {', '.join(known)}"
            )
    return [name for name in known if name in wanted]


def _takes_integers(name: str) -> bool:
    backend = open_backend(name)
    return backend.precision == "int8" and not hasattr(backend, "estimates")


class NumpyRunner:
    """The NumPy runtime in this process, under one profile."""

    kind = "numpy"
    version: str | None = None
    reason: str | None = None

    def __init__(self, profile: str) -> None:
        self.name, self.profile = f"{self.kind} {profile}", profile

    def session(self, program: Program, batch_size: int, time_steps: int) -> Session:
        """Return what runs ``program``, which is of this runner's profile."""
        del time_steps
        return program.session(batch_size)

    def outputs(self, program: Program, form: Form, batches: Iterable[Batch]) -> Outputs:
        vector = program.input_tensor.signal.kind == "vector"
        by_step = vector or (form.time_steps == 1 and program.streams)
        # A quirk of some TFLite-only variants counts over the rows of a batch.
        alone = by_step or any(getattr(op, "variants", ()) for op in program.ops)
        groups = _same_length(batches, 1 if alone else ROWS_TOGETHER)
        gives_sequence = program.output_tensor.signal.kind == "sequence"
        own = program.with_profile(self.profile)
        session: Session | None = None
        found: Outputs = {}
        for batch in map(_join, groups):
            if session is None or len(batch.x) != session.batch_size:
                session = self.session(own, len(batch.x), form.time_steps)
            session.reset()
            calls = []
            for first in range(0, batch.x.shape[1], form.time_steps):
                if by_step:
                    calls.append(np.array(session.step(batch.x[:, first])))
                else:
                    calls.append(session.run(batch.x[:, first : first + form.time_steps]))
            joined = not by_step and gives_sequence
            y = np.concatenate(calls, axis=1) if joined else np.stack(calls, axis=1)
            found.update(zip(batch.rows, y, strict=False))
        return found


class CompiledRunner(NumpyRunner):
    """Generated C, compiled for this machine and run in this process."""

    kind = COMPILED

    def __init__(self, profile: str) -> None:
        super().__init__(profile)
        self.reason = CHost(f"c-host:{profile}").available()

    def session(self, program: Program, batch_size: int, time_steps: int) -> Session:
        """Return what runs ``program``, which is of this runner's profile."""
        if self.reason is not None:
            raise UnsupportedModel(self.reason)
        return program.compile(batch_size, max_steps=time_steps)


def _same_length(batches: Iterable[Batch], count: int) -> Iterator[list[Batch]]:
    """Yield up to ``count`` batches of the same shape together."""
    waiting: list[Batch] = []
    for batch in batches:
        if waiting and (len(waiting) == count or waiting[0].x.shape != batch.x.shape):
            yield waiting
            waiting = []
        waiting.append(batch)
    if waiting:
        yield waiting


def _join(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    rows = [row for batch in batches for row in batch.rows]
    # Copies that fill a batch up stay out.
    x = np.concatenate([batch.x[: len(batch.rows)] for batch in batches])
    return Batch(tuple(rows), x)


class Interpreter:
    """A backend in a process of its own.

    Args:
        name: its row in BACKENDS.
    """

    kind = "interpreter"

    def __init__(self, name: str) -> None:
        self.name = name
        self.backend = open_backend(name)
        self.reason = self.backend.available()
        self.profile = self.backend.profile
        self.version: str | None = None
        self._worker: Worker | None = None

    def outputs(self, program: Program, form: Form, batches: Iterable[Batch]) -> Outputs:
        """Run the form's own file where there is one and the engine reads it, else a new one."""
        if self.reason is not None:
            raise UnsupportedModel(self.reason)
        try:
            if self._worker is None:
                self._worker = Worker(self.name, self.backend, None, ANSWER_LIMIT_S)
            if self.name in READS_TFLITE:
                return self._file_outputs(program, form, batches)
            return self._canonical_outputs(program, form, batches)
        except EdgeLstmError:
            # After a crash a new process may do better on another model.
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _build(self, program: Program, form: Form) -> bytes:
        gives_sequence = program.output_tensor.signal.kind == "sequence"
        shape = CallShape(form.batch_size, form.time_steps, gives_sequence)
        return self.backend.build(BenchModel(program.name, None, program), shape)

    def _load(self, data: bytes, shape: list[object]) -> Worker:
        assert self._worker is not None
        given = {"data": np.frombuffer(data, np.uint8)}
        answer, _ = self._worker.ask("load", given, session=KEY, shape=shape)
        self.version = str(answer["version"])
        return self._worker

    def _file_outputs(self, program: Program, form: Form, batches: Iterable[Batch]) -> Outputs:
        """Feed a ``.tflite`` in its own memory order, whatever that is."""
        source, result = program.input_tensor, program.output_tensor
        orders = [AXES[tensor.signal.kind] for tensor in (source, result)]
        data = form.data
        if data is None:
            data = self._build(program, form)
        else:
            own = (program.source["input_axes"], program.source["output_axes"])
            orders = [tuple(text.split(", ")) for text in own]
        dtype = np.dtype(source.dtype) if form.data is None else _input_dtype(form.data, source)
        worker = self._load(data, list(AS_IT_IS))
        found: Outputs = {}
        for group in _same_length(batches, ROWS_TOGETHER):
            fed = [_to_file(b.x.astype(dtype), form, source, orders[0]) for b in group]
            _, answer = worker.ask("outputs", {"x": np.stack(fed)}, session=KEY, stepwise=False)
            for batch, given in zip(group, answer["y"], strict=True):
                y = _from_file(given, form, result, orders[1])
                found.update(zip(batch.rows, y, strict=False))
        return found

    def _canonical_outputs(self, program: Program, form: Form, batches: Iterable[Batch]) -> Outputs:
        """Feed an engine that takes Programs."""
        kind = program.output_tensor.signal.kind
        shape: list[object] = [form.batch_size, form.time_steps, kind == "sequence"]
        worker = self._load(self._build(program, form), shape)
        found: Outputs = {}
        for batch in batches:
            worker.ask("reset", session=KEY)
            calls = []
            for first in range(0, batch.x.shape[1], form.time_steps):
                part = batch.x[:, first : first + form.time_steps]
                calls.append(worker.ask("run", {"x": part}, session=KEY)[1]["y"])
            y = np.concatenate(calls, axis=1) if kind == "sequence" else np.stack(calls, axis=1)
            found.update(zip(batch.rows, y, strict=False))
        return found


def _input_dtype(data: bytes, source: Tensor) -> np.dtype[np.generic]:
    """Return the type of the file's input; a Program has token ids as int32 always."""
    if source.signal.kind != "tokens":
        return np.dtype(source.dtype)
    from edge_lstm_converters.tflite_schema import parse

    model = parse(data, "model")
    return np.dtype(model.tensors[model.inputs[0]].dtype)


def _to_file(x: Array, form: Form, source: Tensor, order: tuple[str, ...]) -> Array:
    """Return ``[calls, values]`` of ``x`` [batch, steps, ...], in the file's memory order."""
    axes = AXES[source.signal.kind]
    calls = []
    for first in range(0, x.shape[1], form.time_steps):
        part = x[:, first : first + form.time_steps]
        if source.signal.kind == "vector":
            part = part[:, 0]
        calls.append(part.transpose([axes.index(axis) for axis in order]).reshape(-1))
    return np.stack(calls)


def _from_file(y: Array, form: Form, result: Tensor, order: tuple[str, ...]) -> Array:
    """Return ``[batch, outputs, size]`` of ``y`` [calls, values] in the file's memory order."""
    axes = AXES[result.signal.kind]
    sizes = {
        "batch": form.batch_size,
        "time": form.time_steps,
        "features": result.signal.size,
    }
    moved = [1 + order.index(axis) for axis in axes]
    parts = y.reshape(len(y), *(sizes[axis] for axis in order)).transpose([0, *moved])
    # [calls, batch, (time,) size]
    joined = np.moveaxis(parts, 0, 1)
    return joined.reshape(form.batch_size, -1, result.signal.size)


def differing(left: Outputs, right: Outputs) -> tuple[int, int]:
    """Return how many bytes differ, and of how many."""
    bad = total = 0
    for row, a in left.items():
        b = right[row]
        size = max(a.nbytes, b.nbytes)
        total += size
        if a.shape != b.shape or a.dtype != b.dtype:
            bad += size
        else:
            first, second = (np.ascontiguousarray(v).view(np.uint8) for v in (a, b))
            bad += int(np.count_nonzero(first != second))
    return bad, total


def checksum(outputs: Iterable[Outputs]) -> str:
    """Return the first 16 hex digits of the SHA-256 of all values."""
    digest = hashlib.sha256()
    for found in outputs:
        for row in sorted(found):
            digest.update(np.ascontiguousarray(found[row]).tobytes())
    return digest.hexdigest()[:16]

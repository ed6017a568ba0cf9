"""NativeSession: a Program compiled for the machine at hand, under the contract of Session.

The library is plain C without Python; its door is ctypes, or the extension module ``el_call``
where that could be built. The bytes are those of the NumPy runtime.
"""

from __future__ import annotations

import ctypes
import json
import weakref
from collections.abc import Callable, Mapping
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import I64, Array
from edge_lstm.cells import DequantizeOp, QuantizeOp
from edge_lstm.errors import UnreadableModel, UsageError
from edge_lstm.program import Program
from edge_lstm.runtime import Session

FORMAT = "edge-lstm.native/1"
STEPPER = "el_call"
"""Name of the extension module, which a native package has for one version of Python."""
RELEASE_BYTES = 1 << 17
"""Weights from which on a step lets other threads run: it takes more than a microsecond."""


class NativeLibrary:
    """A shared library of ours.

    Args:
        path: of the library.

    Raises:
        UnreadableModel: the file is not a library of ours, or not for this machine.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            library = ctypes.CDLL(str(Path(path).resolve()))
            library.el_describe.restype = ctypes.c_char_p
            self.about: dict[str, Any] = json.loads(library.el_describe())
        except (OSError, AttributeError, ValueError) as error:
            raise UnreadableModel(
                f"{path}: is no library of edge-lstm for this machine; compile the model again"
            ) from error
        if self.about.get("format") != FORMAT:
            raise UnreadableModel(
                f"{path}: has the format {self.about.get('format')!r}; want {FORMAT}; compile the"
                " model again"
            )
        pointer, number = ctypes.c_void_p, ctypes.c_int32
        library.el_new.restype, library.el_new.argtypes = pointer, [number, number]
        library.el_delete.restype, library.el_delete.argtypes = None, [pointer]
        library.el_reset.restype, library.el_reset.argtypes = None, [pointer]
        library.el_run.argtypes = [pointer, pointer, number, pointer]
        library.el_step.argtypes = [pointer, pointer, pointer]
        library.el_memory.restype, library.el_memory.argtypes = pointer, [pointer, number]
        self.path, self.calls = path, library


class NativeSession(Session):
    """Runs a compiled Program; the state moves with each call.

    Args:
        program: what the library was made of.
        library: see ``NativeLibrary``.
        batch_size: rows, each with a state of its own.
        level: kernels to use at most: 0 portable, 1 AVX2 or NEON, 2 AVX-512 or SVE; None:
            the best.
        stepper: the type ``Stepper`` of the module ``el_call``, or None.

    Raises:
        UsageError: the library is another program's.
    """

    def __init__(
        self,
        program: Program,
        library: NativeLibrary,
        batch_size: int = 1,
        level: int | None = None,
        stepper: Any = None,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size {batch_size}: must be at least 1")
        if library.about["fingerprint"] != program.fingerprint():
            raise UsageError(
                f"{library.path}: was made of another program than {program.name!r}; compile it"
                " again"
            )
        self.program, self.batch_size, self._library = program, batch_size, library
        self._calls = library.calls
        self._session = self._new(batch_size, level)
        weakref.finalize(self, self._calls.el_delete, self._session)
        self._level = level
        self._chunk_steps = 1 << 62
        self._enters = next((op for op in program.ops[:1] if isinstance(op, QuantizeOp)), None)
        if program.input_tensor.dtype != "float32":
            self._enters = None
        last = program.ops[-1] if program.ops else None
        self._leaves = last if isinstance(last, DequantizeOp) else None
        self._inner = program.tensors[
            program.output if self._leaves is None else self._leaves.inputs[0]
        ]
        if self._steps_by_buffer():
            # In the instance; whoever holds the step holds the session by it.
            made = self._ctypes_step() if stepper is None else self._make_stepper(stepper)
            self.__dict__["step"] = made
            if program.input_tensor.signal.kind == "sequence":
                self.__dict__["run"] = self._short_run()

    def _new(self, streams: int, level: int | None) -> int:
        session = self._calls.el_new(streams, -1 if level is None else level)
        if not session:
            raise MemoryError(f"{streams} streams of {self.program.name!r}")
        return int(session)

    def _steps_by_buffer(self) -> bool:
        """Whether a step may take any buffer of the right shape without a look at its values."""
        program = self.program
        tokens = program.input_tensor.signal.kind == "tokens"
        return program.streams and not tokens and self._enters is None and self._leaves is None

    def _make_stepper(self, stepper: Any) -> Any:
        program = self.program
        shape = (self.batch_size, self._inner.signal.size)
        dtype = np.dtype(self._inner.dtype)
        return stepper(
            ctypes.cast(self._calls.el_step, ctypes.c_void_p).value,
            self._session,
            self.batch_size,
            program.input_tensor.signal.size,
            np.dtype(program.input_tensor.dtype).char,
            _Empty(shape, dtype),
            self._checked_step,
            program.weight_bytes() > RELEASE_BYTES,
        )

    def _ctypes_step(self) -> Callable[[Array], Array]:
        """Return the step through ctypes, without a look at what is seen to be right."""
        tensor, call, session = self.program.input_tensor, self._calls.el_step, self._session
        shape, dtype = (self.batch_size, tensor.signal.size), np.dtype(tensor.dtype)
        y = np.empty((self.batch_size, self._inner.signal.size), self._inner.dtype)
        handle, where, checked = ctypes.c_void_p(session), _address(y), self._checked_step

        def step(x: Array) -> Array:
            if type(x) is not np.ndarray or x.shape != shape or x.dtype != dtype:
                return checked(x)
            if call(handle, x.tobytes(), where):
                raise MemoryError("one step")
            return y.copy()

        return step

    def _short_run(self) -> Callable[..., Array]:
        """Return ``run`` without a look at what is seen to be right: a sequence may take 10 us."""
        tensor, call, handle = self.program.input_tensor, self._calls.el_run, self._session
        rows, size, dtype = self.batch_size, tensor.signal.size, np.dtype(tensor.dtype)
        last, made = self._inner.signal.size, np.dtype(self._inner.dtype)
        every_step, checked = self._inner.signal.kind == "sequence", super().run

        def run(x: Array, lengths: Array | None = None) -> Array:
            if lengths is not None or type(x) is not np.ndarray or x.dtype != dtype or x.ndim != 3:
                return checked(x, lengths)
            given, steps, features = x.shape
            fits = given == rows and features == size and steps > 0 and x.flags.c_contiguous
            if not fits:
                return checked(x)
            y = np.empty((rows, steps, last) if every_step else (rows, last), made)
            source, target = x.__array_interface__["data"][0], y.__array_interface__["data"][0]
            if call(handle, source, steps, target):
                raise MemoryError(f"{steps} steps")
            return y

        return run

    def reset(self) -> None:
        """Set every state to its first value."""
        self._calls.el_reset(self._session)

    @property
    def state(self) -> dict[str, Array]:
        """What is carried between steps, by name; a copy that can be saved and set again."""
        return {name: view.copy() for name, view in self._states().items()}

    @state.setter
    def state(self, state: Mapping[str, Array]) -> None:
        targets = self._states()
        self._check_state(targets, state)
        for name, target in targets.items():
            target[...] = state[name]

    def _states(self) -> dict[str, Array]:
        """Return views of the states, ``[batch, size]``."""
        views: dict[str, Array] = {}
        for number, layer in enumerate(self._library.about["layers"]):
            units, hidden = int(layer["units"]), int(layer["hidden"])
            rows = self._memory(number, 3 * units)
            cell = rows[:, : 2 * units].view(np.int16)
            views[f"{layer['op']}.hidden"] = rows[:, 2 * units : 2 * units + hidden].view(np.int8)
            views[f"{layer['op']}.cell"] = cell[:, :hidden]
        rest = int(self._calls.el_memory_bytes())
        if not views or rest > 1:
            views["native.memory"] = self._memory(-1, rest)
        return views

    def _memory(self, layer: int, row_bytes: int) -> Array:
        address = self._calls.el_memory(self._session, layer)
        memory = (ctypes.c_uint8 * (self.batch_size * row_bytes)).from_address(address)
        return np.frombuffer(memoryview(memory), np.uint8).reshape(self.batch_size, row_bytes)

    def _forward(self, x: Array, lengths: I64 | None) -> Array:
        if self._enters is not None:
            x = self._enters.prepare(self.program, self.batch_size).run([x], None)
        y = self._integers(np.ascontiguousarray(x), lengths)
        if self._leaves is not None:
            y = self._leaves.prepare(self.program, self.batch_size).run([y], None)
        return y

    def _integers(self, x: Array, lengths: I64 | None) -> Array:
        if lengths is None or (self.program.streams and self._inner.signal.kind == "sequence"):
            return self._call(self._session, x)
        if not self.program.streams:
            return self._row_by_row(x, lengths)
        # Every row is read where it ends.
        y = np.empty((self.batch_size, self._inner.signal.size), self._inner.dtype)
        start = 0
        for stop in sorted({*lengths.tolist(), x.shape[1]}):
            out = self._call(self._session, np.ascontiguousarray(x[:, start:stop]))
            ends = lengths == stop
            y[ends] = out[ends]
            start = stop
        return y

    def _row_by_row(self, x: Array, lengths: I64) -> Array:
        """Run each row by itself from its first state, as long as it is."""
        shape: tuple[int, ...] = (self._inner.signal.size,)
        if self._inner.signal.kind == "sequence":
            shape = (x.shape[1], *shape)
        y = np.zeros((self.batch_size, *shape), self._inner.dtype)
        one = self._new(1, self._level)
        try:
            for row, length in enumerate(lengths.tolist()):
                self._calls.el_reset(one)
                out = self._call(one, np.ascontiguousarray(x[row : row + 1, :length]))[0]
                if self._inner.signal.kind == "sequence":
                    y[row, :length] = out
                else:
                    y[row] = out
        finally:
            self._calls.el_delete(one)
        return y

    def _call(self, session: int, x: Array) -> Array:
        """Run integers ``[rows, time, ...]`` through a session of as many streams."""
        vector = self.program.input_tensor.signal.kind == "vector"
        steps = 1 if vector else x.shape[1]
        shape: tuple[int, ...] = (len(x), self._inner.signal.size)
        if self._inner.signal.kind == "sequence":
            shape = (len(x), steps, self._inner.signal.size)
        y = np.empty(shape, self._inner.dtype)
        failed = self._calls.el_run(session, x.ctypes.data, steps, y.ctypes.data)
        if failed == 1:
            raise MemoryError(f"{steps} steps of {self.program.name!r}")
        if failed:
            raise UsageError(
                f"input: {steps} steps; the library was compiled for fewer; compile it with"
                f" max_steps={steps}"
            )
        return y


def _address(array: Array) -> ctypes.c_void_p:
    """Return where an array begins; it must outlive the answer."""
    return ctypes.c_void_p(array.ctypes.data)


class _Empty:
    """Makes new arrays; a bound method would hold its session."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype

    def __call__(self) -> Array:
        return np.empty(self.shape, self.dtype)


def load_stepper(path: Path | str) -> Any:
    """Return the type ``Stepper`` of the extension module at ``path``, or None if it fails."""
    try:
        loader = ExtensionFileLoader(STEPPER, str(path))
        spec = spec_from_loader(STEPPER, loader)
        assert spec is not None
        module = module_from_spec(spec)
        loader.exec_module(module)
    except (ImportError, OSError):
        return None
    return module.Stepper


def compiled(
    program: Program,
    batch_size: int,
    max_steps: int | None,
    library: Path | str | None,
    level: int | None,
) -> NativeSession:
    """Return a session of a library that is there, or is built now; see ``Program.compile``."""
    if library is not None:
        beside = Path(library).with_name(STEPPER + EXTENSION_SUFFIXES[0])
        stepper = load_stepper(beside) if beside.exists() else None
        return NativeSession(program, NativeLibrary(library), batch_size, level, stepper)
    # Upward, inside a function: a device that has its library needs no converters.
    from edge_lstm_converters import native_build

    built = NativeLibrary(native_build.build_library(program, max_steps))
    module = native_build.build_call_module()
    stepper = None if module is None else load_stepper(module)
    return NativeSession(program, built, batch_size, level, stepper)

"""TensorFlow Lite Micro's reference kernels, from the tflite-micro wheel."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.errors import UnsupportedModel
from edge_lstm_benchmarks.backends.litert import int8_file
from edge_lstm_benchmarks.backends.tflite_session import run_in_calls, shape_of_file

FIRST_DOUBLE_SCALE_WHEEL = 20261013214400  # earlier wheels multiply scales in float32
ARENA_LIMIT_BYTES = 256 << 20


class Tflm:
    """``tflm``; the wheel's date decides which profile it must equal."""

    precision: Precision = "int8"
    fixed_shape = True
    rows_at_once = 1

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def profile(self) -> str | None:
        if self.available() is not None:
            return "tflm"
        date = re.search(r"dev(\d{14})", self.version())
        # A version without a date is newer than every one that has it.
        new = date is None or int(date[1]) >= FIRST_DOUBLE_SCALE_WHEEL
        return "tflm" if new else "tflm-2026-08"

    def available(self) -> str | None:
        if importlib.util.find_spec("tflite_micro") is None:
            return "tflite-micro is not installed; pip install --pre tflite-micro"
        return None

    def python(self) -> str:
        return sys.executable

    def version(self) -> str:
        return importlib.metadata.version("tflite-micro")

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        return int8_file(model, shape)

    def load(self, data: bytes, shape: CallShape) -> Session:
        return TflmSession(data, shape)


class TflmSession:
    """Runs ``set_input``, ``invoke``, ``get_output``; the state is inside the interpreter."""

    def __init__(self, data: bytes, shape: CallShape) -> None:
        self._interpreter = _allocate(data)
        source = self._interpreter.get_input_details(0)
        self._input_shape, self._dtype = tuple(source["shape"]), source["dtype"]
        self._shape = shape_of_file(shape, self._input_shape, self._dtype)

    def reset(self) -> None:
        """Set all variable tensors to their first values."""
        self._interpreter.reset()

    def step(self, x: Array) -> Array:
        """Run one step of a file with ``time_steps=1``."""
        return self._call(x).reshape(self._shape.batch_size, -1)

    def run(self, x: Array) -> Array:
        """Run as many calls as ``x`` has times the file's steps."""
        return run_in_calls(self._call, x, self._shape)

    def _call(self, x: Array) -> Array:
        if x.dtype != self._dtype and np.dtype(self._dtype) == np.int32:
            x = x.astype(np.int32)
        self._interpreter.set_input(x.reshape(self._input_shape), 0)
        self._interpreter.invoke()
        y: Array = self._interpreter.get_output(0)
        return y


def _allocate(data: bytes) -> Any:
    """Return an interpreter with the least arena, of sizes that grow fourfold, that holds it."""
    from tflite_micro import runtime  # type: ignore[import-untyped,unused-ignore]

    arena = max(len(data) * 10, 1 << 16)
    while True:
        try:
            return runtime.Interpreter.from_bytes(data, arena_size=arena)
        except RuntimeError as error:
            arena *= 4
            if arena > ARENA_LIMIT_BYTES:
                raise UnsupportedModel(
                    f"TFLM refuses the model, or needs more than {ARENA_LIMIT_BYTES:,} bytes"
                    f" of arena: {error}"
                ) from error

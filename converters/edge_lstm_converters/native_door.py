"""What a native package's Python module is made of: the text from ``begin`` on, after its figures.

The figures here are those of no model; they let this file be checked like any other.
"""

from __future__ import annotations

import ctypes
import math
import os
import struct

TYPE_CHECKING = False  # importing typing would take as long as everything else here
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

LIBRARY = "libmodel.so"
INPUT_SIZE, INPUT_TYPE, INPUT_SCALE, INPUT_ZERO_POINT = 1, "b", 1.0, 0
OUTPUT_SIZE, OUTPUT_TYPE, OUTPUT_SCALE, OUTPUT_ZERO_POINT = 1, "b", 1.0, 0
GIVES_SEQUENCE = True
TOKENS = 0
ROUNDING = "float"

# begin
LOW, HIGH = {"b": (-128, 127), "h": (-32768, 32767), "i": (0, TOKENS - 1)}[INPUT_TYPE]
_TYPES = {"b": ctypes.c_int8, "h": ctypes.c_int16, "i": ctypes.c_int32}


class Model:
    """Streams of the model, each with a state of its own that moves with each call.

    Integers go in and come out; ``quantize`` and ``dequantize`` are the way from and to reals.

    Args:
        streams: rows that run together.
        library: path of the shared library; None: the one beside this file.
    """

    def __init__(self, streams: int = 1, library: str | None = None) -> None:
        # pathlib would take longer to import than everything else here.
        path = os.path.join(os.path.dirname(__file__), LIBRARY)  # noqa: PTH118, PTH120
        calls = ctypes.CDLL(library or path)
        pointer, number = ctypes.c_void_p, ctypes.c_int32
        calls.el_new.restype, calls.el_new.argtypes = pointer, [number, number]
        calls.el_delete.restype, calls.el_delete.argtypes = None, [pointer]
        calls.el_reset.restype, calls.el_reset.argtypes = None, [pointer]
        calls.el_run.argtypes = [pointer, pointer, number, pointer]
        calls.el_step.argtypes = [pointer, pointer, pointer]
        session = calls.el_new(streams, -1)
        if not session:
            raise MemoryError(f"{streams} streams")
        self.streams = streams
        self._calls, self._step = calls, calls.el_step
        self._session = ctypes.c_void_p(session)
        self._in = streams * INPUT_SIZE * struct.calcsize(INPUT_TYPE)
        self.output = (_TYPES[OUTPUT_TYPE] * (streams * OUTPUT_SIZE))()
        self._output = ctypes.c_void_p(ctypes.addressof(self.output))

    def __del__(self) -> None:
        """Give the memory back."""
        if hasattr(self, "_session"):
            self._calls.el_delete(self._session)

    def reset(self) -> None:
        """Set every state to its first value."""
        self._calls.el_reset(self._session)

    def step(self, x: bytes | ctypes.Array[Any]) -> ctypes.Array[Any]:
        """Run one step of every stream.

        Args:
            x: integers ``[streams, INPUT_SIZE]`` as bytes, see ``pack``.

        Returns:
            ``output``, ``[streams, OUTPUT_SIZE]``: the same array in every call.
        """
        if len(x) != self._in:
            raise ValueError(f"input: {len(x)} bytes; want {self._in}")
        if self._step(self._session, x, self._output):
            raise ValueError("the model does not run step by step")
        return self.output

    def run(self, x: bytes, steps: int) -> ctypes.Array[Any]:
        """Run some steps of every stream.

        Args:
            x: integers ``[streams, steps, INPUT_SIZE]`` as bytes, see ``pack``.
            steps: how many.

        Returns:
            A new array: ``[streams, steps, OUTPUT_SIZE]``, or without steps where the model
            gives one output for a sequence.
        """
        if steps < 1 or len(x) != steps * self._in:
            raise ValueError(f"input: {len(x)} bytes of {steps} steps; want {self._in} a step")
        times = steps if GIVES_SEQUENCE else 1
        y = (_TYPES[OUTPUT_TYPE] * (self.streams * times * OUTPUT_SIZE))()
        failed = self._calls.el_run(self._session, x, steps, y)
        if failed == 1:
            raise MemoryError(f"{steps} steps")
        if failed:
            raise ValueError(f"{steps} steps: the library was compiled for fewer")
        return y


def pack(values: Sequence[int]) -> bytes:
    """Return integers as the bytes that ``step`` and ``run`` take."""
    if values and (min(values) < LOW or max(values) > HIGH):
        raise ValueError(f"input: want integers {LOW}..{HIGH}")
    return struct.pack(f"{len(values)}{INPUT_TYPE}", *values)


def quantize(reals: Sequence[float]) -> bytes:
    """Return real inputs as the bytes that ``step`` and ``run`` take, saturated."""
    if INPUT_TYPE == "i":
        raise ValueError("the model takes tokens: use pack")
    return pack([min(max(_whole(_float(v)) + INPUT_ZERO_POINT, LOW), HIGH) for v in reals])


def _whole(real: float) -> int:
    if math.isnan(real):
        raise ValueError("input: a value is NaN")
    if ROUNDING == "even":  # as XNNPACK: by the inverse, ties to even
        return round(_held(_float(real * _float(1 / _float(INPUT_SCALE)))))
    scaled = real / _float(INPUT_SCALE)
    scaled = _held(scaled if ROUNDING == "double" else _float(scaled))
    return int(scaled + math.copysign(0.5, scaled))


def _held(scaled: float) -> float:
    return min(max(scaled, -1e6), 1e6)


def _float(value: float) -> float:
    return ctypes.c_float(value).value


def dequantize(values: Sequence[int]) -> list[float]:
    """Return outputs as reals."""
    scale = _float(OUTPUT_SCALE)
    return [_float((value - OUTPUT_ZERO_POINT) * scale) for value in values]

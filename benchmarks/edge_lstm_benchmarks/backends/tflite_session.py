"""Session of an interpreter with TFLite's Python API, for a file of one shape.

Uses NumPy only: tflite-runtime loads this file in a Python of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.backend import CallShape, check_multiple


class TfliteSession:
    """Runs ``set_tensor``, ``invoke``, ``get_tensor``; the state is inside the interpreter."""

    def __init__(self, interpreter: Any, shape: CallShape) -> None:
        interpreter.allocate_tensors()
        (source,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
        self._dtype, self._input_shape = source["dtype"], tuple(source["shape"])
        self._shape = shape_of_file(shape, self._input_shape, self._dtype)
        self._source, self._output = source["index"], output["index"]
        self._set, self._invoke = interpreter.set_tensor, interpreter.invoke
        self._get, self._reset = interpreter.get_tensor, interpreter.reset_all_variables

    def reset(self) -> None:
        """Set all variable tensors to their first values."""
        self._reset()

    def step(self, x: Array) -> Array:
        """Run one step of a file with ``time_steps=1``."""
        return self._call(x).reshape(self._shape.batch_size, -1)

    def run(self, x: Array) -> Array:
        """Run as many calls as ``x`` has times the file's steps."""
        return run_in_calls(self._call, x, self._shape)

    def _call(self, x: Array) -> Array:
        # A token id or an int8 is never converted by accident: the file's type must be x's,
        # except that ids may come as any integer.
        if x.dtype != self._dtype and self._dtype == np.int32:
            x = x.astype(np.int32)
        self._set(self._source, x.reshape(self._input_shape))
        self._invoke()
        y: Array = self._get(self._output)
        return y


def shape_of_file(shape: CallShape, file_shape: tuple[int, ...], dtype: Any) -> CallShape:
    """Return the shape of one call of a file: one step where it takes one whatever was asked."""
    has_steps = len(file_shape) == 3 or np.dtype(dtype) == np.int32
    return replace(shape, time_steps=1) if has_steps and file_shape[1] == 1 else shape


def run_in_calls(call: Callable[[Array], Array], x: Array, shape: CallShape) -> Array:
    """Run ``x`` [batch, time, ...] in calls of ``shape``; the callee carries the state."""
    steps = shape.time_steps
    outputs = [call(x[:, k * steps : (k + 1) * steps]) for k in range(check_multiple(x, shape))]
    if not shape.returns_sequence:
        return outputs[-1].reshape(shape.batch_size, -1)
    return np.concatenate([y.reshape(shape.batch_size, steps, -1) for y in outputs], axis=1)

"""ONNX Runtime on the CPU, float: whole sequences, or step by step with the state fed back."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session, check_multiple
from edge_lstm.errors import UnsupportedModel, UsageError

_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


class OnnxRuntime:
    """``onnxruntime``: one thread; step by step through IO binding, its fastest way from Python."""

    precision: Precision = "float32"
    profile: str | None = None
    fixed_shape = True
    rows_at_once = 1

    def __init__(self, name: str) -> None:
        self.name = name

    def available(self) -> str | None:
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed; pip install onnxruntime"
        return None

    def python(self) -> str:
        return sys.executable

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        """Return the ``.onnx`` for whole sequences, or for ``time_steps=1`` with state inputs."""
        from edge_lstm_converters.write_onnx import onnx_bytes

        if model.spec is None:
            raise UnsupportedModel(f"{model.name}: has no floats; give the float model")
        return onnx_bytes(model.spec, stateful=shape.time_steps == 1)

    def load(self, data: bytes, shape: CallShape) -> Session:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        if shape.time_steps == 1:
            return self.step_session(session, shape)
        return SequenceSession(session, shape)

    def step_session(self, session: Any, shape: CallShape) -> Session:
        """Return what runs step by step."""
        return StepSession(session, shape)


class OnnxRuntimeRun(OnnxRuntime):
    """The same, step by step through ``session.run``, the way that most programs call it."""

    def step_session(self, session: Any, shape: CallShape) -> Session:
        return RunSession(session, shape)


class SequenceSession:
    """Whole sequences; the graph starts from its first state at every call."""

    def __init__(self, session: Any, shape: CallShape) -> None:
        self._shape = shape
        self._run = session.run
        (source,) = session.get_inputs()
        self._source, self._dtype = source.name, _TYPES[source.type]
        self._outputs = [session.get_outputs()[0].name]
        self._is_fresh = True

    def reset(self) -> None:
        """Allow the next sequence."""
        self._is_fresh = True

    def step(self, x: Array) -> Array:
        """Refuse: this graph holds no state between calls."""
        raise UsageError("this .onnx keeps no state; build it with time_steps=1 to step")

    def run(self, x: Array) -> Array:
        """Run whole sequences from the first state."""
        if not self._is_fresh:
            raise UsageError("this .onnx keeps no state; reset, or build it with time_steps=1")
        self._is_fresh = False
        y: Array = self._run(self._outputs, {self._source: x.astype(self._dtype, copy=False)})[0]
        return y


class StepSession:
    """Step by step: inputs are x and states, outputs are y and the same states, in that order.

    Two bindings read and write the state buffers in turn, so that no state is copied.
    """

    def __init__(self, session: Any, shape: CallShape) -> None:
        self._shape = shape
        self._session = session
        source, *state_inputs = session.get_inputs()
        output, *state_outputs = session.get_outputs()
        first = session.get_modelmeta().custom_metadata_map.get("initial_state", "{}")
        firsts: dict[str, list[float]] = json.loads(first)
        features = [axis for axis in source.shape[2:] if isinstance(axis, int)]
        self._x = np.zeros((shape.batch_size, 1, *features), _TYPES[source.type])
        self._first: list[Array] = []
        self._states: tuple[list[Array], list[Array]] = ([], [])
        for state in state_inputs:
            size = state.shape[-1]
            start = np.zeros((1, shape.batch_size, size), np.float32)
            start[...] = firsts.get(state.name, 0.0)
            self._first.append(start)
            for side in self._states:
                side.append(np.zeros_like(start))
        feeds = {source.name: self._x}
        feeds.update({s.name: v for s, v in zip(state_inputs, self._first, strict=True)})
        self._y = np.zeros_like(session.run([output.name], feeds)[0])
        self._bindings = []
        for reads, writes in (self._states, self._states[::-1]):
            binding = session.io_binding()
            binding.bind_cpu_input(source.name, self._x)
            _bind_output(binding, output.name, self._y)
            for named, into, values, results in zip(
                state_inputs, state_outputs, reads, writes, strict=True
            ):
                binding.bind_cpu_input(named.name, values)
                _bind_output(binding, into.name, results)
            self._bindings.append(binding)
        self.reset()

    def reset(self) -> None:
        """Set the state to its first value."""
        self._turn = 0
        for state, first in zip(self._states[0], self._first, strict=True):
            state[...] = first

    def step(self, x: Array) -> Array:
        """Run one step."""
        self._x[:, 0] = x
        self._session.run_with_iobinding(self._bindings[self._turn])
        self._turn = 1 - self._turn
        y: Array = self._y.reshape(self._shape.batch_size, -1).copy()
        return y

    def run(self, x: Array) -> Array:
        """Run a sequence step by step."""
        outputs = [self.step(x[:, t]) for t in range(check_multiple(x, self._shape))]
        return np.stack(outputs, axis=1) if self._shape.returns_sequence else outputs[-1]


class RunSession:
    """Step by step through ``session.run``: its state outputs are the next call's inputs."""

    def __init__(self, session: Any, shape: CallShape) -> None:
        self._shape = shape
        self._run = session.run
        source, *states = session.get_inputs()
        first = session.get_modelmeta().custom_metadata_map.get("initial_state", "{}")
        firsts: dict[str, list[float]] = json.loads(first)
        self._source = source.name
        self._first: dict[str, Array] = {}
        for state in states:
            start = np.zeros((1, shape.batch_size, state.shape[-1]), np.float32)
            start[...] = firsts.get(state.name, 0.0)
            self._first[state.name] = start
        self.reset()

    def reset(self) -> None:
        """Set the state to its first value."""
        self._feeds: dict[str, Array] = dict(self._first)

    def step(self, x: Array) -> Array:
        """Run one step."""
        y: Array
        y, *states = self._run(None, {self._source: x[:, None], **self._feeds})
        self._feeds = dict(zip(self._first, states, strict=True))
        return y.reshape(self._shape.batch_size, -1)

    def run(self, x: Array) -> Array:
        """Run a sequence step by step."""
        outputs = [self.step(x[:, t]) for t in range(check_multiple(x, self._shape))]
        return np.stack(outputs, axis=1) if self._shape.returns_sequence else outputs[-1]


def _bind_output(binding: Any, name: str, values: Array) -> None:
    binding.bind_output(name, "cpu", 0, values.dtype, values.shape, values.ctypes.data)

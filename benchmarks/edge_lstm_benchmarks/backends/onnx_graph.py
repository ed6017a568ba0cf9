"""What engines that load ``.onnx`` share: the file with its states, and sessions that feed them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.backend import BenchModel, CallShape, check_multiple
from edge_lstm.errors import UnsupportedModel, UsageError

Call = Callable[[list[Array]], list[Array]]
"""Inputs, x and then the states, to outputs, y and then the new states."""


class OnnxGraph(NamedTuple):
    """A graph, and the first values of the states that it is fed."""

    data: bytes
    first: dict[str, F32]
    """By the name of the input, in the order of the inputs and of the outputs: [1, 1, hidden]."""


def graph_bytes(model: BenchModel, shape: CallShape) -> bytes:
    """Return the ``.onnx`` for whole sequences, or for ``time_steps=1`` with state inputs.

    The states go beside it, as ``join`` puts them: engines differ in what they tell of a file.
    """
    from edge_lstm_converters.write_onnx import onnx_bytes, onnx_states

    if model.spec is None:
        raise UnsupportedModel(f"{model.name}: has no floats; give the float model")
    stateful = shape.time_steps == 1
    states = onnx_states(model.spec) if stateful else {}
    first = {name: v.reshape(1, 1, -1) for name, v in states.items()}
    return join(OnnxGraph(onnx_bytes(model.spec, stateful=stateful), first))


def join(graph: OnnxGraph) -> bytes:
    """Return a graph as bytes, the states in a line of JSON before it."""
    first = {name: v.ravel().tolist() if v.any() else v.size for name, v in graph.first.items()}
    return json.dumps(first).encode() + b"\n" + graph.data


def parse_graph(data: bytes) -> OnnxGraph:
    """Return what ``join`` made."""
    line, _, graph = data.partition(b"\n")
    held: dict[str, int | list[float]] = json.loads(line)
    first = {
        name: np.zeros(v, np.float32) if isinstance(v, int) else np.array(v, np.float32)
        for name, v in held.items()
    }
    return OnnxGraph(graph, {name: v.reshape(1, 1, -1) for name, v in first.items()})


def session_of(graph: OnnxGraph, call: Call, shape: CallShape) -> WholeSession | CarriedSession:
    """Return the session of a graph that ``graph_bytes`` made for a shape."""
    if shape.time_steps != 1:
        return WholeSession(call, shape)
    return CarriedSession(call, list(graph.first.values()), shape)


def as_fed(x: Array) -> Array:
    """Return inputs as the graph takes them: floats as they are, tokens as int64."""
    return np.ascontiguousarray(x, np.float32 if x.dtype == np.float32 else np.int64)


class WholeSession:
    """Whole sequences; the graph starts from its first state at every call."""

    ran_on: str | None = None
    warning: str | None = None

    def __init__(self, call: Call, shape: CallShape) -> None:
        self._call, self._shape = call, shape
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
        if len(x) != self._shape.batch_size:
            raise UsageError(f"input: {len(x)} rows; want {self._shape.batch_size}, as built")
        self._is_fresh = False
        return self._call([as_fed(x)])[0]


class CarriedSession:
    """Step by step; what a call gives as states is what the next one is fed."""

    ran_on: str | None = None
    warning: str | None = None

    def __init__(self, call: Call, first: list[F32], shape: CallShape) -> None:
        self._call, self._shape = call, shape
        self._first: list[Array] = [np.repeat(v, shape.batch_size, axis=1) for v in first]
        self.reset()

    def reset(self) -> None:
        """Set the state to its first value."""
        self._states = self._first

    def step(self, x: Array) -> Array:
        """Run one step."""
        y, *self._states = self._call([as_fed(x[:, None]), *self._states])
        return y.reshape(self._shape.batch_size, -1)

    def run(self, x: Array) -> Array:
        """Run a sequence step by step."""
        outputs = [self.step(x[:, t]) for t in range(check_multiple(x, self._shape))]
        return np.stack(outputs, axis=1) if self._shape.returns_sequence else outputs[-1]

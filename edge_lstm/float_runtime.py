"""FloatSession: a ModelSpec in float32 with few NumPy calls for a step.

A NumPy call costs about 0.25 us whatever it computes, so a step of an LSTM is nine calls on
buffers made once, written out as straight-line code:

    set        x into [x, 1, hidden]
    dot        all gates at once, the bias a column of the weights
    tanh       of all gates: sigmoid(z) is (tanh(z / 2) + 1) / 2, and the half is in the weights
    multiply   the sigmoids by 1/2
    add        1/2
    multiply   [i, f] * [g, c]: rows lie as i, f, o, g | c
    add        i * g + f * c
    tanh
    multiply   by o, into [x, 1, hidden]

In a whole sequence the input half of all gates is one product, and each step leaves its hidden
state where the next one reads it. More rows than one lie side by side, [features, rows], so that
the gates' rows stay contiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.cells.activation import Activation
from edge_lstm.cells.dense import Dense
from edge_lstm.cells.embedding import Embedding
from edge_lstm.cells.lstm import Lstm
from edge_lstm.cells.shape import Dropout, Flatten, LastStep
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.spec import ModelSpec
from edge_lstm.tape import SET, Call, Guard, Parameter, Tape, clip, compile_tape

HOIST_VALUES = 2048
"""From this many input weights on, one product for many steps is worth an addition a step."""
CHUNK_VALUES = 1 << 16
"""Gate values of a sequence that are prepared at once: bounds the working memory."""
CHUNK_STEPS = 128
"""Steps that are prepared at once, at most: the views of their rows are made only once."""

# 0-d arrays: a Python float as operand costs NumPy another 0.1 us.
_HALF, _ONE, _ZERO, _SIX, _INFINITY = (
    np.array(v, np.float32) for v in (0.5, 1.0, 0.0, 6.0, np.inf)
)
_GATE_ORDER = (0, 1, 3, 2)  # i, f, o, g: i and f face g and c in one product


class FloatSession:
    """Runs a ModelSpec in float32; the contract of ``Session``.

    Args:
        spec: LSTM, Dense, Activation, Embedding, LastStep, Flatten and Dropout layers.
        batch_size: rows, each with a state of its own.

    Raises:
        UnsupportedModel: another layer.
    """

    def __init__(self, spec: ModelSpec, batch_size: int = 1) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size {batch_size}: must be at least 1")
        self.spec, self.batch_size = spec, batch_size
        self._layers: list[_Layer] = []
        # The layer that makes a vector of a sequence, and how many layers come before it.
        self._joint: str | None = None
        self._joint_at = 0
        for layer in spec.layers:
            if isinstance(layer, LastStep | Flatten):
                if self._joint is None:
                    self._joint, self._joint_at = layer.type_name, len(self._layers)
            elif not isinstance(layer, Dropout):
                self._layers.append(_prepare(layer, batch_size))
        if self._joint is None:
            self._joint_at = len(self._layers)
        self._is_tokens = spec.input.kind == "tokens"
        self._join_steps()
        self.reset()

    def _join_steps(self) -> None:
        """Make ``step`` one straight line of calls."""
        starts = bool(self._layers) and isinstance(self._layers[0], _LstmLayer)
        if self._joint == "flatten" or not starts:
            return
        tape: Tape = []
        # The one row is broadcast; more become columns.
        source: object = Parameter("x" if self.batch_size == 1 else "x.T")
        for layer in self._layers:
            if layer.tape is None:
                return
            tape += [
                (function, tuple(source if isinstance(a, Parameter) else a for a in arguments))
                for function, arguments in layer.tape
            ]
            source = layer.result
        guard = Guard(
            "x",
            (self.batch_size, self.spec.input.size),
            np.dtype(np.float32),
            self._checked_step,
        )
        self.__dict__["step"] = compile_tape(tape, ["x"], result=self._layers[-1].last, guard=guard)

    def reset(self) -> None:
        """Set every state to its first value."""
        for layer in self._layers:
            layer.reset()

    @property
    def state(self) -> dict[str, F32]:
        """What is carried between steps, by name; a copy that can be saved and set again."""
        return {
            f"{layer.name}.{name}": np.array(value.T.reshape(self.batch_size, -1))
            for layer in self._layers
            for name, value in layer.state.items()
        }

    @state.setter
    def state(self, state: Mapping[str, Array]) -> None:
        targets = self.state
        if set(targets) != set(state):
            raise UsageError(f"state: has {sorted(state)}; want {sorted(targets)}")
        for name, target in targets.items():
            if np.shape(state[name]) != target.shape:
                found = list(np.shape(state[name]))
                raise UsageError(f"state {name!r}: shape {found}; want {list(target.shape)}")
        for layer in self._layers:
            for name, value in layer.state.items():
                value[...] = np.asarray(state[f"{layer.name}.{name}"]).T.reshape(value.shape)

    def step(self, x: Array) -> Array:
        """Run one step, ``[batch, ...]`` to float32 ``[batch, size]``."""
        return self._checked_step(x)

    def _checked_step(self, x: Array) -> Array:
        if self._joint == "flatten":
            raise UsageError("Flatten needs the whole sequence; use run(), not step()")
        value = self._enter(np.asarray(x)[:, None] if np.ndim(x) else np.asarray(x))[:, 0]
        columns: Array = value[0] if self.batch_size == 1 else value.T
        for layer in self._layers:
            columns = layer.step(columns)
        return self._rows(columns)

    def run(self, x: Array) -> Array:
        """Run steps of a sequence, continuing from the present state.

        Args:
            x: ``[batch, time, ...]``.

        Returns:
            float32 ``[batch, time, size]``, or ``[batch, size]`` where the model gives a vector.
        """
        x = self._enter(np.asarray(x))
        steps = x.shape[1]
        widest = max(s.size for s in self.spec.signals() if s.kind != "tokens")
        chunk = max(1, CHUNK_VALUES // (widest * self.batch_size))
        before, after = self._layers[: self._joint_at], self._layers[self._joint_at :]
        size = self.spec.output.size
        outputs = np.empty((self.batch_size, steps if self._joint is None else 0, size), np.float32)
        pieces: list[Array] = []
        for first in range(0, steps, chunk):
            # [time, features], or [time, features, rows]
            part = x[:, first : first + chunk]
            value: Array = part[0] if self.batch_size == 1 else np.moveaxis(part, 0, -1)
            for layer in before:
                value = layer.run(value)
            if self._joint is None:
                rows = value[None] if self.batch_size == 1 else np.moveaxis(value, -1, 0)
                outputs[:, first : first + chunk] = rows
            elif self._joint == "laststep":
                pieces = [value[-1]]
            else:
                pieces.append(value)
        if self._joint is None:
            return outputs
        columns = pieces[0]
        if self._joint == "flatten":
            every = np.concatenate(pieces)
            columns = every.reshape(-1, *every.shape[2:])
        for layer in after:
            columns = layer.step(columns)
        return self._rows(columns)

    def _enter(self, x: Array) -> Array:
        """Return ``x`` [batch, time, ...] as float32 or tokens, checked."""
        signal = self.spec.input
        want = [self.batch_size, "time", *([] if self._is_tokens else [signal.size])]
        shape = [x.shape[0], "time", *x.shape[2:]] if x.ndim >= 2 else list(x.shape)
        if shape != want or 0 in x.shape:
            wanted = ", ".join(map(str, want))
            raise UsageError(f"input: shape {list(x.shape)}; want [{wanted}]")
        if not self._is_tokens:
            if not np.issubdtype(x.dtype, np.number) or np.iscomplexobj(x):
                raise UsageError(f"input: {x.dtype}; want float32")
            return x.astype(np.float32, copy=False)
        if not np.issubdtype(x.dtype, np.integer):
            raise UsageError(f"input tokens: {x.dtype}; want int32")
        if x.min() < 0 or x.max() >= signal.size:
            raise UsageError(f"input tokens: {x.min()} to {x.max()}; want 0 to {signal.size - 1}")
        return x

    def _rows(self, value: Array) -> Array:
        """Return the caller's own [batch, size]."""
        return value.T.reshape(self.batch_size, -1).copy()


class _Layer(Protocol):
    """One layer; one row is [features], more are [features, rows]; time comes before both."""

    name: str
    tape: Tape | None
    """One step from the parameter x, or None."""
    result: Any
    last: Call
    """What copies ``result`` to [rows, features] for the caller."""

    @property
    def state(self) -> dict[str, Array]:
        """Views of the buffers that are carried, by name."""

    def reset(self) -> None:
        """Set the state to its first value."""

    def step(self, x: Array) -> Array:
        """Return one step's output; it may be a buffer that the next call overwrites."""

    def run(self, x: Array) -> Array:
        """Return many steps' output; it may be a buffer that the next call overwrites."""


class _LstmLayer:
    def __init__(self, layer: Lstm, batch_size: int) -> None:
        self.name = layer.name
        size, features = layer.hidden_size, layer.input_size
        self._tail = () if batch_size == 1 else (batch_size,)
        self._weights = _packed(layer)
        self._from_input = self._weights[:, : features + 1]
        self._recurrent = self._weights[:, features + 1 :]
        self._first = layer.initial_hidden, layer.initial_cell
        self._features, self._size = features, size
        self._fed = np.ones((features + 1 + size, *self._tail), np.float32)
        self._hidden = self._fed[features + 1 :]
        self._values = np.zeros((5 * size, *self._tail), np.float32)
        self._cell = self._values[4 * size :]
        self.result = self._hidden
        by_rows = self._hidden.T.reshape(batch_size, size)
        self.last: Call = (by_rows.copy, ())
        self._advance = self._advance_tape()
        self.tape: Tape | None = [
            (SET, (self._fed[:features], Parameter("x"))),
            (np.dot if self._tail else self._weights.dot, self._product(self._weights, self._fed)),
            *self._advance,
            (np.multiply, (*self._pair, self._hidden)),
        ]
        self._step = compile_tape(self.tape, ["x"])
        self._sequence: tuple[Array, Array, list[list[Array]], Callable[..., None]] | None = None

    def _product(self, weights: F32, fed: object) -> tuple[object, ...]:
        gates = self._values[: 4 * self._size]
        return (weights, fed, gates) if self._tail else (fed, gates)

    def _advance_tape(self) -> Tape:
        """Return the calls from the gates' sums to the cell state and its tanh."""
        size, values = self._size, self._values
        sigmoids = values[: 3 * size]
        products = np.empty((2 * size, *self._tail), np.float32)
        squashed = np.empty_like(self._cell)
        gates = values[: 4 * size]
        self._pair = values[2 * size : 3 * size], squashed
        return [
            (np.tanh, (gates, gates)),
            (np.multiply, (sigmoids, _HALF, sigmoids)),
            (np.add, (sigmoids, _HALF, sigmoids)),
            (np.multiply, (values[: 2 * size], values[3 * size :], products)),
            (np.add, (products[:size], products[size:], self._cell)),
            (np.tanh, (self._cell, squashed)),
        ]

    @property
    def state(self) -> dict[str, Array]:
        return {"hidden": self._hidden, "cell": self._cell}

    def reset(self) -> None:
        for target, first in zip((self._hidden, self._cell), self._first, strict=True):
            target[...] = 0 if first is None else first.reshape(-1, *[1] * len(self._tail))

    def step(self, x: Array) -> Array:
        self._step(x)
        return self._hidden

    def run(self, x: Array) -> Array:
        steps, size = len(x), self._size
        rows_at_once = CHUNK_VALUES // (4 * size * int(np.prod(self._tail, dtype=int)))
        most = min(max(1, min(CHUNK_STEPS, rows_at_once)), steps)
        if self._sequence is None or len(self._sequence[0]) < most:
            hoist = 4 * size * self._features >= HOIST_VALUES
            self._sequence = self._make_hoisted(most) if hoist else self._make_fed(most)
        prepared, rows, lists, loop = self._sequence
        outputs = np.empty((steps, size, *self._tail), np.float32)
        chunk = len(prepared)
        for first in range(0, steps, chunk):
            part = x[first : first + chunk]
            count = len(part)
            self._prepare(part, prepared[:count])
            rows[0] = self._hidden
            loop(*(lists if count == len(lists[0]) else [each[:count] for each in lists]))
            self._hidden[...] = rows[count]
            outputs[first : first + count] = rows[1 : count + 1]
        return outputs

    def _prepare(self, x: Array, prepared: Array) -> None:
        """Put what the steps take from the input into ``prepared``."""
        if prepared.shape[1] == self._features:
            prepared[...] = x
        elif not self._tail:
            np.dot(x, self._from_input[:, :-1].T, out=prepared)
            np.add(prepared, self._from_input[:, -1], out=prepared)
        else:
            # [time, features, rows]: one product for each step writes [4 * size, rows].
            np.matmul(self._from_input[:, :-1], x, out=prepared)
            np.add(prepared, self._from_input[:, -1][:, None], out=prepared)

    def _make_fed(self, steps: int) -> tuple[Array, Array, list[list[Array]], Callable[..., None]]:
        """Return buffers and code whose steps read [x, 1, hidden] as one."""
        features = self._features
        fed = np.ones((steps + 1, *self._fed.shape), np.float32)
        rows = fed[:, features + 1 :]
        tape: Tape = [
            (
                np.dot if self._tail else self._weights.dot,
                self._product(self._weights, Parameter("fed")),
            ),
            *self._advance,
            (np.multiply, (*self._pair, Parameter("out"))),
        ]
        lists = [list(fed[:-1]), list(rows[1:])]
        return fed[:-1, :features], rows, lists, compile_tape(tape, ["fed", "out"], loop=True)

    def _make_hoisted(
        self, steps: int
    ) -> tuple[Array, Array, list[list[Array]], Callable[..., None]]:
        """Return buffers and code whose steps find the input half of all gates prepared."""
        size = self._size
        prepared = np.empty((steps, 4 * size, *self._tail), np.float32)
        rows = np.empty((steps + 1, size, *self._tail), np.float32)
        gates = self._values[: 4 * size]
        tape: Tape = [
            (
                np.dot if self._tail else self._recurrent.dot,
                self._product(self._recurrent, Parameter("hidden")),
            ),
            (np.add, (gates, Parameter("prepared"), gates)),
            *self._advance,
            (np.multiply, (*self._pair, Parameter("out"))),
        ]
        lists = [list(prepared), list(rows[:-1]), list(rows[1:])]
        loop = compile_tape(tape, ["prepared", "hidden", "out"], loop=True)
        return prepared, rows, lists, loop


_PACKED: WeakKeyDictionary[Lstm, F32] = WeakKeyDictionary()


def _packed(layer: Lstm) -> F32:
    """Return [input | bias | recurrent] weights of all gates, made once for all sessions."""
    if layer not in _PACKED:
        gates = [layer.gates[k] for k in _GATE_ORDER]
        rows = [np.column_stack([g.input_weights, g.bias, g.recurrent_weights]) for g in gates]
        weights = np.concatenate(rows).astype(np.float32)
        weights[: 3 * layer.hidden_size] *= np.float32(0.5)
        # A product of a column-ordered matrix and a vector is the faster one.
        _PACKED[layer] = np.asfortranarray(weights)
    return _PACKED[layer]


class _Stateless:
    """A layer that treats every step alike."""

    tape: Tape | None = None
    result: Any = None
    last: Call = (None, ())

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def state(self) -> dict[str, Array]:
        return {}

    def reset(self) -> None:
        pass

    def run(self, x: Array) -> Array:
        return np.stack([self.step(row) for row in x])

    def step(self, x: Array) -> Array:
        raise NotImplementedError


class _DenseLayer(_Stateless):
    def __init__(self, layer: Dense, batch_size: int) -> None:
        super().__init__(layer.name)
        tail = () if batch_size == 1 else (batch_size,)
        weights = np.asfortranarray(layer.weights.astype(np.float32))
        bias = layer.bias.astype(np.float32)
        self._weights, self._bias = weights, bias.reshape(-1, *[1] * len(tail))
        self._activation = layer.activation
        self.result = np.empty((len(bias), *tail), np.float32)
        self.last = (self.result.T.reshape(batch_size, len(bias)).copy, ())
        y = self.result
        x = Parameter("x")
        self.tape = [(np.dot, (weights, x, y)) if tail else (weights.dot, (x, y))]
        self.tape.append((np.add, (y, self._bias, y)))
        if self._activation != "none":
            most = _SIX if self._activation == "relu6" else _INFINITY
            self.tape.append((clip, (y, _ZERO, most, y)))

    def step(self, x: Array) -> Array:
        y: F32 = self._weights.dot(x)
        np.add(y, self._bias, y)
        return _activated(self._activation, y)

    def run(self, x: Array) -> Array:
        y = x @ self._weights.T if x.ndim == 2 else np.matmul(self._weights, x)
        np.add(y, self._bias if x.ndim == 3 else self._bias.reshape(-1), y)
        return _activated(self._activation, y)


class _ActivationLayer(_Stateless):
    def __init__(self, layer: Activation) -> None:
        super().__init__(layer.name)
        self._kind = layer.kind

    def step(self, x: Array) -> Array:
        return _activated(self._kind, x)

    def run(self, x: Array) -> Array:
        return _activated(self._kind, x, axis=1)


class _EmbeddingLayer(_Stateless):
    def __init__(self, layer: Embedding) -> None:
        super().__init__(layer.name)
        self._table = layer.table.astype(np.float32)

    def step(self, x: Array) -> Array:
        return self._table[x].T


def _activated(kind: str, x: Array, axis: int = 0) -> Array:
    """Return an activation; softmax over ``axis``, that of the features."""
    if kind == "none":
        return x
    if kind == "sigmoid":
        y: F32 = np.tanh(x * _HALF)
        return (y + _ONE) * _HALF
    if kind == "tanh":
        return np.tanh(x)
    if kind == "softmax":
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        quotient: F32 = e / e.sum(axis=axis, keepdims=True)
        return quotient
    y = np.maximum(x, _ZERO)
    return np.minimum(y, _SIX) if kind == "relu6" else y


def _prepare(layer: object, batch_size: int) -> _Layer:
    if isinstance(layer, Lstm):
        if layer.variants:
            raise UnsupportedModel(
                f"layer {layer.name!r}: an LSTM with {' and '.join(layer.variants)} is not in the"
                " float runtime; use edge_lstm.float_reference"
            )
        return _LstmLayer(layer, batch_size)
    if isinstance(layer, Dense):
        return _DenseLayer(layer, batch_size)
    if isinstance(layer, Activation):
        return _ActivationLayer(layer)
    if isinstance(layer, Embedding):
        return _EmbeddingLayer(layer)
    name, kind = getattr(layer, "name", "?"), type(layer).__name__
    raise UnsupportedModel(
        f"layer {name!r}: {kind} is not in the float runtime; use edge_lstm.float_reference"
    )

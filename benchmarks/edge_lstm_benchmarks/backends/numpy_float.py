"""The float model in NumPy, float32, with few NumPy calls for a step.

A NumPy call costs 0.25 us whatever it computes, so a step of an LSTM is one product and eight
calls on buffers made once: sigmoid is tanh with halved weights, the bias is a column of the
weights, and ``[i f o g | c]`` lie so that one multiplication makes i*g and f*c.
"""

from __future__ import annotations

import io
import json
import sys
from typing import Any, Protocol

import numpy as np

import edge_lstm
from edge_lstm.arrays import F32, Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session
from edge_lstm.cells import Activation, Dense, Dropout, Embedding, Flatten, LastStep, Lstm
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.spec import Layer, ModelSpec

# 0-d arrays: a Python float as operand costs NumPy another 0.1 us.
_HALF, _ONE, _ZERO, _SIX = (np.array(v, np.float32) for v in (0.5, 1.0, 0.0, 6.0))


class NumpyFloat:
    """``numpy-float``: one thread when NumPy's BLAS is told so."""

    precision: Precision = "float32"
    profile: str | None = None
    fixed_shape = False
    rows_at_once = 1

    def __init__(self, name: str) -> None:
        self.name = name

    def available(self) -> str | None:
        return None

    def python(self) -> str:
        return sys.executable

    def version(self) -> str:
        return f"{edge_lstm.__version__} (NumPy {np.__version__})"

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        del shape
        if model.spec is None:
            raise UnsupportedModel(f"{model.name}: has no floats; give the float model")
        return packed_bytes(model.spec)

    def load(self, data: bytes, shape: CallShape) -> Session:
        return NumpyFloatSession(data, shape.batch_size)


def packed_bytes(spec: ModelSpec) -> bytes:
    """Return the layers' float32 arrays, as the runner wants them, as the bytes of an npz."""
    layers: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for layer in spec.layers:
        if isinstance(layer, Dropout):
            continue
        kind, held, options = _pack(layer)
        arrays.update({f"{len(layers)}.{name}": value for name, value in held.items()})
        layers.append({"kind": kind, **options})
    text = json.dumps({"tokens": spec.input.kind == "tokens", "layers": layers}).encode()
    buffer = io.BytesIO()
    np.savez(buffer, model=np.frombuffer(text, np.uint8), **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _pack(layer: Layer) -> tuple[str, dict[str, Array], dict[str, Any]]:
    """Return a layer's kind, its arrays and its options."""
    if isinstance(layer, Lstm):
        i, f, g, o = layer.gates
        rows = [
            np.hstack([gate.input_weights, gate.recurrent_weights, gate.bias[:, None]])
            for gate in (i, f, o, g)
        ]
        weights = np.concatenate(rows).astype(np.float32)
        # sigmoid(z) = (1 + tanh(z / 2)) / 2
        weights[: 3 * layer.hidden_size] *= 0.5
        zeros = np.zeros(layer.hidden_size, np.float32)
        hidden = zeros if layer.initial_hidden is None else layer.initial_hidden
        cell = zeros if layer.initial_cell is None else layer.initial_cell
        return "lstm", {"weights": weights, "hidden": hidden, "cell": cell}, {}
    if isinstance(layer, Dense):
        held = {"weights": layer.weights.astype(np.float32), "bias": layer.bias}
        return "dense", held, {"activation": layer.activation}
    if isinstance(layer, Activation):
        return "activation", {}, {"activation": layer.kind}
    if isinstance(layer, Embedding):
        return "embedding", {"table": layer.table.astype(np.float32)}, {}
    if isinstance(layer, LastStep | Flatten):
        return layer.type_name, {}, {}
    raise UnsupportedModel(
        f"layer {layer.name!r}: {layer.type_name} is not in numpy-float; use the float reference"
    )


class _Step(Protocol):
    """One layer on one step: [features] for one row, [features, batch] for more."""

    def reset(self) -> None:
        """Set the state to its first value."""

    def __call__(self, x: Array) -> F32:
        """Return the layer's output; it may be a buffer that the next call overwrites."""


class NumpyFloatSession:
    """Runs packed layers; columns are rows of the batch, so that a slice of gates is contiguous."""

    def __init__(self, data: bytes, batch_size: int) -> None:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        model = json.loads(arrays.pop("model").tobytes())
        self._tokens = bool(model["tokens"])
        self._batch_size = batch_size
        self._joined: str | None = None  # the layer that turns a sequence into a vector
        self._each_step: list[_Step] = []
        self._at_the_end: list[_Step] = []
        for number, layer in enumerate(model["layers"]):
            if layer["kind"] in ("laststep", "flatten"):
                self._joined = self._joined or layer["kind"]
                continue
            held = {
                name.partition(".")[2]: value
                for name, value in arrays.items()
                if name.partition(".")[0] == str(number)
            }
            made = _make(layer["kind"], held, layer.get("activation", "none"), batch_size)
            (self._each_step if self._joined is None else self._at_the_end).append(made)
        self.reset()

    def reset(self) -> None:
        """Set every state to its first value."""
        for layer in self._each_step:
            layer.reset()

    def step(self, x: Array) -> Array:
        """Run one step, [batch, ...] to [batch, size]."""
        if self._joined == "flatten":
            raise UsageError("Flatten needs the whole sequence; use run(), not step()")
        value = x[0] if self._batch_size == 1 else x.T
        for layer in self._each_step:
            value = layer(value)
        for layer in self._at_the_end:
            value = layer(value)
        return self._rows(value)

    def run(self, x: Array) -> Array:
        """Run [batch, time, ...] to [batch, time, size] or [batch, size]."""
        outputs = []
        keep_all = self._joined != "laststep"
        for t in range(x.shape[1]):
            value = x[0, t] if self._batch_size == 1 else x[:, t].T
            for layer in self._each_step:
                value = layer(value)
            if keep_all:
                outputs.append(value.copy())
        if self._joined is None:
            return np.stack([self._rows(y) for y in outputs], axis=1)
        if self._joined == "flatten":
            value = np.concatenate(outputs)  # [time * features] or [time * features, batch]
        for layer in self._at_the_end:
            value = layer(value)
        return self._rows(value)

    def _rows(self, value: Array) -> Array:
        """Return the caller's own [batch, size]."""
        return value.T.reshape(self._batch_size, -1).copy()


class _Stateless:
    def reset(self) -> None:
        """Nothing to reset."""


class _LstmStep:
    def __init__(self, held: dict[str, Array], batch_size: int) -> None:
        tail = () if batch_size == 1 else (batch_size,)
        h = len(held["hidden"])
        features = held["weights"].shape[1] - h - 1
        # A product of a Fortran-ordered matrix and a vector is the faster one.
        self._dot = np.asfortranarray(held["weights"]).dot
        self._first = held["hidden"], held["cell"]
        self._fed = np.ones((features + h + 1, *tail), np.float32)  # x, h and 1 for the bias
        self._x, self._h = self._fed[:features], self._fed[features:-1]
        values = np.zeros((5 * h, *tail), np.float32)
        self._gates, self._sigmoids = values[: 4 * h], values[: 3 * h]
        self._i_f, self._o, self._g_c = values[: 2 * h], values[2 * h : 3 * h], values[3 * h :]
        self._c = values[4 * h :]
        self._products = np.empty((2 * h, *tail), np.float32)
        self._i_g, self._f_c = self._products[:h], self._products[h:]
        self._squashed = np.empty((h, *tail), np.float32)

    def reset(self) -> None:
        hidden, cell = (v if self._h.ndim == 1 else v[:, None] for v in self._first)
        self._h[...], self._c[...] = hidden, cell

    def __call__(self, x: Array) -> F32:
        self._x[...] = x
        self._dot(self._fed, self._gates)
        np.tanh(self._gates, self._gates)
        np.multiply(self._sigmoids, _HALF, self._sigmoids)
        np.add(self._sigmoids, _HALF, self._sigmoids)
        np.multiply(self._i_f, self._g_c, self._products)
        np.add(self._i_g, self._f_c, self._c)
        np.tanh(self._c, self._squashed)
        np.multiply(self._o, self._squashed, self._h)
        return self._h


class _DenseStep(_Stateless):
    def __init__(self, held: dict[str, Array], activation: str, batch_size: int) -> None:
        self._dot = np.asfortranarray(held["weights"]).dot
        self._bias = held["bias"] if batch_size == 1 else held["bias"][:, None]
        self._activation = activation

    def __call__(self, x: Array) -> F32:
        y: F32 = self._dot(x)
        np.add(y, self._bias, y)
        return y if self._activation == "none" else _activated(self._activation, y)


class _ActivationStep(_Stateless):
    def __init__(self, activation: str) -> None:
        self._activation = activation

    def __call__(self, x: Array) -> F32:
        return _activated(self._activation, x)


class _EmbeddingStep(_Stateless):
    def __init__(self, held: dict[str, Array]) -> None:
        self._table = held["table"]

    def __call__(self, x: Array) -> F32:
        return self._table[x].T


def _activated(kind: str, x: Array) -> F32:
    """Return an activation; features are the first axis."""
    if kind == "sigmoid":
        y: F32 = np.tanh(x * _HALF)
        return (y + _ONE) * _HALF
    if kind == "tanh":
        return np.tanh(x)
    if kind == "softmax":
        e = np.exp(x - x.max(axis=0))
        quotient: F32 = e / e.sum(axis=0)
        return quotient
    y = np.maximum(x, _ZERO)
    return np.minimum(y, _SIX) if kind == "relu6" else y


def _make(kind: str, held: dict[str, Array], activation: str, batch_size: int) -> _Step:
    if kind == "lstm":
        return _LstmStep(held, batch_size)
    if kind == "dense":
        return _DenseStep(held, activation, batch_size)
    return _EmbeddingStep(held) if kind == "embedding" else _ActivationStep(activation)

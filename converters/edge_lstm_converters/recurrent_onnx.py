"""LSTM, GRU and RNN of ONNX: their attributes and inputs, and the layer of each direction."""

from __future__ import annotations

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.cells import Backward, Bidirectional, Gru, LastStep, Lstm, PickStep, Recurrent, Rnn
from edge_lstm.cells.functions import Function
from edge_lstm.cells.lstm import Gate
from edge_lstm_converters.axes_onnx import (
    DIRECTION,
    FEATURES,
    PART,
    Axes,
    Axis,
    RefusedError,
    SizeLearned,
    State,
    Value,
    Values,
    View,
)
from edge_lstm_converters.layers_onnx import TO_EMBEDDING, with_size
from edge_lstm_converters.layouts import (
    GRU_ONNX_ORDER,
    gru_gates,
    lstm_gates_from_onnx,
    peepholes_from_onnx,
)
from edge_lstm_converters.load_onnx import Node
from edge_lstm_converters.rules import first_broken
from edge_lstm_converters.rules_onnx import (
    GATE_COUNTS,
    RECURRENT_RULES,
    OnnxRecurrent,
    our_function,
    takes,
)

RECURRENT_OPS = tuple(GATE_COUNTS)


def recurrent(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """LSTM, GRU and RNN: give Y, Y_h and Y_c."""
    x, *rest = [*inputs, *[None] * 8][:8]
    if not isinstance(x, View) or len(x.axes) != 3:
        raise RefusedError("is not fed a computed sequence", "its X must have 3 axes")
    in_batches = bool(node.get("layout", 0))
    time, batch = (1, 0) if in_batches else (0, 1)
    w, r, b, p = (v if isinstance(v, np.ndarray) else None for v in (*rest[:3], rest[6]))
    seen = OnnxRecurrent(node, w, r, b, rest[3], p, axes.shape(x)[time])
    broken = first_broken(RECURRENT_RULES, seen)
    if broken is not None:
        raise RefusedError(*broken)
    assert seen.weights is not None
    assert seen.recurrent is not None
    axes.use_lengths(isinstance(rest[3], State))
    x = with_size(axes, axes.as_sequence(x, time, batch, 2), 2, seen.weights.shape[2])
    if x.integers:
        raise RefusedError("is fed token ids", TO_EMBEDDING)
    hidden, count = seen.recurrent.shape[2], seen.directions
    first = [
        _first_states(axes, word, value, x, batch, count, hidden)
        for word, value in zip(("initial_h", "initial_c"), rest[4:6], strict=True)
    ]
    layers = [
        _layer(seen, k, first[0][k], first[1][k] if node.op == "LSTM" else None)
        for k in range(count)
    ]
    t, n = x.axes[time], x.axes[batch]
    d: Axis = (DIRECTION,) if count == 2 else ()
    f: Axis = (PART,) if count == 2 else (FEATURES,)
    if count == 2:
        every = x.step.then(Bidirectional("", layers[0], layers[1]), 2 * hidden)
        last = x.step.then(
            Bidirectional("", layers[0], layers[1], final=True), 2 * hidden, vector=True
        )
    elif seen.direction == "reverse":
        every = x.step.then(Backward("", layers[0]), hidden)
        last = every.then(PickStep("", 0), hidden, vector=True)
    else:
        every = x.step.then(layers[0], hidden)
        last = every.then(LastStep(""), hidden, vector=True)
    y = View(every, (n, t, d, f) if in_batches else (t, d, n, f))
    y_h = View(last, (n, d, f) if in_batches else (d, n, f), final_state=True)
    zeros = np.broadcast_to(np.float32(0), axes.shape_of(y_h))
    return [y, y_h, State(zeros, f"the final cell state of {node}")]


def _layer(seen: OnnxRecurrent, direction: int, hidden: F32 | None, cell: F32 | None) -> Recurrent:
    """Return the layer of one direction."""
    assert seen.weights is not None
    assert seen.recurrent is not None
    node, k = seen.node, direction
    w, r = seen.weights[k], seen.recurrent[k]
    b = np.zeros(2 * len(r), np.float32) if seen.bias is None else seen.bias[k]
    clip = node.get("clip")
    clip = None if clip is None else float(clip)
    functions = _functions(seen)
    each = len(functions) // seen.directions
    functions = functions[k * each : (k + 1) * each]
    if node.op == "LSTM":
        return Lstm(
            name="",
            gates=lstm_gates_from_onnx(w, r, b),
            initial_hidden=hidden,
            initial_cell=cell,
            peepholes=None if seen.peepholes is None else peepholes_from_onnx(seen.peepholes[k]),
            functions=(functions[0], functions[1], functions[2]),
            coupled=bool(node.get("input_forget", 0)),
            clip=clip,
        )
    halves = (b[: len(b) // 2], b[len(b) // 2 :])
    if node.op == "GRU":
        after = bool(node.get("linear_before_reset", 0))
        gates, extra = gru_gates(w, r, halves, GRU_ONNX_ORDER, reset_after=after)
        pair = (functions[0], functions[1])
        return Gru("", gates, extra, after, hidden, pair, clip)
    gate = Gate(*(np.ascontiguousarray(v, np.float32) for v in (w, r, halves[0] + halves[1])))
    return Rnn("", gate, hidden, functions[0], clip)


def _functions(seen: OnnxRecurrent) -> list[Function]:
    """Return the activations; alphas and betas go, in order, to those that take one."""
    alphas = iter(seen.node.get("activation_alpha") or [])
    betas = iter(seen.node.get("activation_beta") or [])
    return [
        our_function(
            name,
            next(alphas, None) if takes(name, "alpha") else None,
            next(betas, None) if takes(name, "beta") else None,
        )
        for name in seen.activations
    ]


def _first_states(
    axes: Axes, word: str, value: Value | None, x: View, batch: int, directions: int, hidden: int
) -> list[F32 | None]:
    """Return an initial state of each direction, None for zeros and for one that is fed.

    Args:
        axes: what is known of the axes.
        word: initial_h or initial_c.
        value: what the node is given.
        x: the sequence.
        batch: the axis of the batch in ``x``, and so in ``value``.
        directions: how many there are.
        hidden: the hidden size.
    """
    if value is None:
        return [None] * directions
    if not isinstance(value, np.ndarray) and not (isinstance(value, State) and value.fed):
        origin = value.origin if isinstance(value, State) else "computed"
        raise RefusedError(f"{word} is {origin}", "want constants or an input of the graph")
    shape = axes.shape_of(value)
    rows = shape[batch] if len(shape) == 3 else 0
    if rows == 0 or shape != (
        (rows, directions, hidden) if batch == 0 else (directions, rows, hidden)
    ):
        found = f"{word} has shape {axes.shown(shape)}"
        raise RefusedError(found, f"want [{directions}, batch, {hidden}]")
    batch_size = axes.shape(x)[batch]
    if rows != batch_size and rows not in axes.guesses:
        for atom in x.axes[batch]:
            if atom in axes.open_atoms:
                raise SizeLearned(atom, rows)
    values = value.values if isinstance(value, State) else value
    states = np.moveaxis(values, batch, 1)
    if rows not in (1, batch_size) and not isinstance(value, State):
        raise RefusedError(f"{word} has {rows} rows", f"want {batch_size}, the batch of X")
    if not (states == states[:, :1]).all():
        raise RefusedError(f"{word} differs from row to row", "want the same for all of the batch")
    return [_f32(s[0]) if s[0].any() else None for s in states]


def _f32(values: Array) -> F32:
    return np.ascontiguousarray(values, np.float32)

"""ONNX operators that become layers: LSTM, Gather, Gemm, MatMul, Conv, constants, activations.

Each function gets what is known of the axes, a node and its inputs, and returns its outputs.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.cells import Activation, Dense, Embedding, Flatten, LastStep, Lstm
from edge_lstm.cells.activation import Kind
from edge_lstm_converters.axes_onnx import (
    FEATURES,
    Axes,
    RefusedError,
    SizeLearned,
    State,
    Value,
    Values,
    View,
)
from edge_lstm_converters.layouts import lstm_gates_from_onnx
from edge_lstm_converters.load_onnx import Node
from edge_lstm_converters.rules import first_broken
from edge_lstm_converters.rules_onnx import LSTM_RULES, OnnxLstm, is_float

ONE_CHAIN = "layers must form one chain"
TO_EMBEDDING = "token ids must go to an embedding (Gather)"
KINDS: dict[str, Kind] = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu"}


def lstm(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """LSTM: gives Y, Y_h and Y_c."""
    x, *rest = [*inputs, *[None] * 8][:8]
    if not isinstance(x, View) or len(x.axes) != 3:
        raise RefusedError("is not fed a computed sequence", "its X must have 3 axes")
    in_batches = bool(node.get("layout", 0))
    time, batch = (1, 0) if in_batches else (0, 1)
    w, r, b = (v if isinstance(v, np.ndarray) else None for v in rest[:3])
    broken = first_broken(
        LSTM_RULES, OnnxLstm(node, w, r, b, rest[3], rest[6] is not None, axes.shape(x)[time])
    )
    if broken is not None:
        raise RefusedError(*broken)
    assert w is not None
    assert r is not None
    x = with_size(axes, axes.as_sequence(x, time, batch, 2), 2, w.shape[2])
    if x.integers:
        raise RefusedError("is fed token ids", TO_EMBEDDING)
    hidden = r.shape[2]
    layer = Lstm(
        name="",
        gates=lstm_gates_from_onnx(w[0], r[0], None if b is None else b[0]),
        initial_hidden=_first_state(axes, "initial_h", rest[4], x, batch, hidden),
        initial_cell=_first_state(axes, "initial_c", rest[5], x, batch, hidden),
    )
    step = x.step.then(layer, hidden)
    t, n, f = x.axes[time], x.axes[batch], (FEATURES,)
    y = View(step, (n, t, (), f) if in_batches else (t, (), n, f))
    y_h = View(
        step.then(LastStep(""), hidden, vector=True),
        (n, (), f) if in_batches else ((), n, f),
        final_state=True,
    )
    zeros = np.broadcast_to(np.float32(0), axes.shape_of(y_h))
    return [y, y_h, State(zeros, f"the final cell state of {node}")]


def _first_state(
    axes: Axes, word: str, value: Value | None, x: View, batch: int, hidden: int
) -> F32 | None:
    """Return an initial state, [hidden], or None for zeros and for one that the runtime feeds.

    Args:
        axes: what is known of the axes.
        word: initial_h or initial_c.
        value: what the node is given.
        x: the sequence.
        batch: the axis of the batch in ``x``, and so in ``value``.
        hidden: the hidden size.
    """
    if value is None:
        return None
    if not isinstance(value, np.ndarray) and not (isinstance(value, State) and value.fed):
        origin = value.origin if isinstance(value, State) else "computed"
        raise RefusedError(f"{word} is {origin}", "want constants or an input of the graph")
    shape = axes.shape_of(value)
    rows = shape[batch] if len(shape) == 3 else 0
    if rows == 0 or shape != ((rows, 1, hidden) if batch == 0 else (1, rows, hidden)):
        raise RefusedError(f"{word} has shape {axes.shown(shape)}", f"want [1, batch, {hidden}]")
    found = axes.shape(x)[batch]
    if rows != found and rows not in axes.guesses:
        for atom in x.axes[batch]:
            if atom in axes.open_atoms:
                raise SizeLearned(atom, rows)
    if isinstance(value, State):
        return None
    states = value.reshape(rows, hidden)
    if rows not in (1, found):
        raise RefusedError(f"{word} has {rows} rows", f"want {found}, the batch of X")
    if not (states == states[:1]).all():
        raise RefusedError(f"{word} differs from row to row", "want the same for all of the batch")
    return _f32(states[0]) if states[0].any() else None


def with_size(axes: Axes, view: View, axis: int, size: int) -> View:
    """Return ``view`` if it has ``size`` features on ``axis``; learn an open size from that."""
    found = axes.shape(view)[axis]
    if found == size:
        return view
    if view.step.layer is None and axes.features in axes.open_atoms:
        assert axes.features is not None
        raise SizeLearned(axes.features, size)
    if isinstance(view.step.layer, Flatten) and view.step.parent is not None:
        steps, rest = divmod(size, view.step.parent.size)
        for atom, role in axes.roles.items():
            if role == "time" and atom in axes.open_atoms and steps and not rest:
                raise SizeLearned(atom, steps)
    raise RefusedError(f"is fed {found} features", f"its weights want {size}")


def _dense(axes: Axes, view: View, axis: int, weights: Array, bias: Array | None) -> list[Value]:
    """Return ``view`` after a Dense layer along ``axis``; weights [output, input]."""
    view = with_size(axes, axes.as_features(view, axis), axis, weights.shape[1])
    if view.integers:
        raise RefusedError("is fed token ids", TO_EMBEDDING)
    outputs = len(weights)
    bias = np.zeros(outputs) if bias is None else np.broadcast_to(bias, (outputs,))
    step = view.step.then(Dense("", _f32(weights), _f32(bias)), outputs)
    moved = tuple((FEATURES,) if i == axis else a for i, a in enumerate(view.axes))
    return [View(step, moved)]


def gemm(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Gemm: a Dense with its bias."""
    view, weights, bias = [*inputs, None][:3]
    if (
        not isinstance(view, View)
        or not isinstance(weights, np.ndarray)
        or isinstance(bias, View | State)
    ):
        raise RefusedError("joins computed values", "want constant B and C")
    if weights.ndim != 2 or len(view.axes) != 2:
        raise RefusedError(f"multiplies {len(view.axes)} axes by {weights.ndim}", "want 2 by 2")
    if node.get("transA", 0):
        view = axes.transpose(view, None)
    weights = weights if node.get("transB", 0) else weights.T
    if isinstance(bias, np.ndarray):
        bias = _f32(bias)
        if bias.size not in (1, len(weights)) or bias.shape[:-1] not in ((), (1,)):
            raise RefusedError(f"C has shape {list(bias.shape)}", f"want [{len(weights)}]")
        bias = bias.reshape(-1).astype(np.float64) * node.get("beta", 1.0)
    else:
        bias = None
    return _dense(axes, view, 1, _f32(weights).astype(np.float64) * node.get("alpha", 1.0), bias)


def matmul(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """MatMul: a Dense without bias, its weights on either side."""
    del node
    a, b = inputs
    if isinstance(a, View) and isinstance(b, np.ndarray):
        view, matrix, axis = a, _matrix(b).T, len(a.axes) - 1
    elif isinstance(b, View) and isinstance(a, np.ndarray):
        view, matrix, axis = b, _matrix(a), len(b.axes) - 2
    else:
        raise RefusedError("multiplies computed values", "one must be constant weights")
    if matrix.ndim != 2 or len(view.axes) < 2:
        found = f"multiplies {len(view.axes)} axes by {matrix.ndim}"
        raise RefusedError(found, "want 2 or more by 2")
    return _dense(axes, view, axis, matrix, None)


def conv(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Conv of kernel 1: a Dense on each step."""
    view, weights, bias = [*inputs, None][:3]
    if (
        not isinstance(view, View)
        or not isinstance(weights, np.ndarray)
        or isinstance(bias, View | State)
    ):
        raise RefusedError("joins computed values", "want constant W and B")
    strides, pads = list(node.get("strides") or [1]), list(node.get("pads") or [0])
    group = node.get("group", 1)
    one = weights.ndim == len(view.axes) >= 3 and math.prod(weights.shape[2:]) == 1
    if not one or group != 1 or any(pads) or set(strides) != {1}:
        raise RefusedError(
            f"weights {list(weights.shape)}, strides {strides}, pads {pads}, group {group}",
            "Conv must have kernel 1, stride 1, no padding and one group",
        )
    if isinstance(bias, np.ndarray) and bias.shape != weights.shape[:1]:
        raise RefusedError(f"B has shape {list(bias.shape)}", f"want [{len(weights)}]")
    bias = bias if isinstance(bias, np.ndarray) else None
    return _dense(axes, view, 1, weights.reshape(weights.shape[:2]), bias)


def constant(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Add, Sub, Mul or Div of a constant, folded into the Dense in front; the usual bias."""
    a, b = inputs
    view, other = (a, b) if isinstance(a, View) else (b, a)
    if not isinstance(view, View) or not isinstance(other, np.ndarray):
        raise RefusedError("joins two computed values", ONE_CHAIN)
    dense = view.step.layer
    if not isinstance(dense, Dense) or view.step.parent is None:
        before = "the input" if dense is None else dense.type_name
        raise RefusedError(
            f"has a constant after {before}", "a constant may follow MatMul, Gemm and Conv only"
        )
    c = _along_features(axes, view, _f32(other))
    weights, bias = dense.weights.astype(np.float64), dense.bias.astype(np.float64)
    with np.errstate(all="ignore"):
        if node.op == "Add":
            bias = bias + c
        elif node.op == "Mul":
            weights, bias = weights * c[:, None], bias * c
        elif node.op == "Sub" and view is a:
            bias = bias - c
        elif node.op == "Sub":
            weights, bias = -weights, c - bias
        elif view is a:
            weights, bias = weights / c[:, None], bias / c
        else:
            raise RefusedError("divides by a computed value", "want a constant")
    layer = replace(dense, weights=_f32(weights), bias=_f32(bias))
    return [replace(view, step=view.step.parent.then(layer, view.step.size))]


def _along_features(axes: Axes, view: View, values: Array) -> Array:
    """Return a constant beside a view as float64, one value a feature."""
    per_feature = values.ndim <= len(view.axes) and all(
        size == 1 or (axes.real(view, axis) == (FEATURES,) and size == view.step.size)
        for axis, size in zip(reversed(view.axes), reversed(values.shape), strict=False)
    )
    if not per_feature:
        found = f"the constant has shape {list(values.shape)} beside {axes.describe(view)}"
        raise RefusedError(found, "want a value a feature")
    return np.broadcast_to(values.reshape(-1).astype(np.float64), (view.step.size,))


def embedding(table: Array, node: Node, index: View) -> list[Value]:
    """Gather of computed rows of a constant table."""
    if table.ndim != 2 or node.get("axis", 0) != 0:
        found = f"looks up along axis {node.get('axis', 0)} of {list(table.shape)}"
        raise RefusedError(found, "want axis 0 of a table [tokens, features]")
    if not index.integers or index.step.layer is not None:
        raise RefusedError("looks computed values up", "an embedding must be the first layer")
    step = index.step.then(Embedding("", _f32(table)), int(table.shape[1]))
    return [View(step, (*index.axes, (FEATURES,)))]


def activation(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Sigmoid, Tanh, Relu, Softmax, and Clip from 0 to 6 or without end."""
    view = inputs[0]
    if not isinstance(view, View):
        raise RefusedError("is bounded by a computed value", "want constants")
    if view.integers:
        raise RefusedError("is fed token ids", TO_EMBEDDING)
    if node.op == "Softmax":
        view, kind = _softmax_view(axes, node, view), "softmax"
    else:
        kind = _clip_kind(node, inputs) if node.op == "Clip" else KINDS[node.op]
    if view.step.layer is None:
        view = axes.as_features(view, len(view.axes) - 1)
    step = view.step.then(Activation("", kind), view.step.size)  # type: ignore[arg-type]
    return [replace(view, step=step, final_state=False)]


def _softmax_view(axes: Axes, node: Node, view: View) -> View:
    axis = axes.position(view, node.get("axis", -1 if node.opset >= 13 else 1))
    if node.opset < 13:  # over this axis and all after it, together
        rest = [i for i in range(axis, len(view.axes)) if axes.real(view, view.axes[i])]
        if len(rest) > 1:
            found = f"works along the last {len(view.axes) - axis} axes of {axes.describe(view)}"
            raise RefusedError(found, "want the features alone")
        axis = rest[0] if rest else axis
    return axes.as_features(view, axis)


def _clip_kind(node: Node, inputs: Values) -> Kind:
    low, high = float(node.get("min", -math.inf)), float(node.get("max", math.inf))
    given = [*inputs, None, None][1:3]
    if any(v is not None and not (isinstance(v, np.ndarray) and v.size == 1) for v in given):
        raise RefusedError("its bounds are computed", "want constants")
    low, high = (
        float(v.reshape(-1)[0]) if isinstance(v, np.ndarray) else bound
        for v, bound in zip(given, (low, high), strict=True)
    )
    high = math.inf if high >= np.finfo(np.float32).max else high
    if low != 0.0 or high not in (6.0, math.inf):
        raise RefusedError(f"clips to {low:g} … {high:g}", "want 0 … 6 or 0 …")
    return "relu6" if high == 6.0 else "relu"


def _f32(values: Array) -> F32:
    if not is_float(values):
        raise RefusedError(f"has a constant of {values.dtype}", "want float32")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, np.float32)


def _matrix(weights: Array) -> Array:
    """Return weights without leading axes of one element."""
    while weights.ndim > 2 and len(weights) == 1:
        weights = weights[0]
    return weights

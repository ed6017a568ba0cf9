"""ONNX operators on each step alone: Gather, Gemm, MatMul, Conv of 1, constants, activations.

Each function gets what is known of the axes, a node and its inputs, and returns its outputs.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.cells import Activation, Dense, Elementwise, Embedding, Flatten, Scale
from edge_lstm.cells.activation import Kind
from edge_lstm.cells.functions import Function
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
from edge_lstm_converters.joins_onnx import ONE_CHAIN, joined
from edge_lstm_converters.load_onnx import Node
from edge_lstm_converters.rules_onnx import FUNCTIONS, is_float

TO_EMBEDDING = "token ids must go to an embedding (Gather)"
ELEMENTWISE: dict[str, dict[str, float]] = {
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "LeakyRelu": {"alpha": 0.01},
    "Softplus": {},
    "Softsign": {},
    "ThresholdedRelu": {"alpha": 1.0},
}
"""ONNX operators of one number, and their attributes."""
KINDS: dict[str, Kind] = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu"}


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
    step = view.step.then(Dense("", f32(weights), f32(bias)), outputs)
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
        bias = f32(bias)
        if bias.size not in (1, len(weights)) or bias.shape[:-1] not in ((), (1,)):
            raise RefusedError(f"C has shape {list(bias.shape)}", f"want [{len(weights)}]")
        bias = bias.reshape(-1).astype(np.float64) * node.get("beta", 1.0)
    else:
        bias = None
    return _dense(axes, view, 1, f32(weights).astype(np.float64) * node.get("alpha", 1.0), bias)


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


def dense_conv(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Conv of kernel 1: a Dense on each step."""
    view, weights, bias = [*inputs, None][:3]
    if (
        not isinstance(view, View)
        or not isinstance(weights, np.ndarray)
        or isinstance(bias, View | State)
    ):
        raise RefusedError("joins computed values", "want constant W and B")
    group = node.get("group", 1)
    if weights.ndim != len(view.axes) or group != 1:
        raise RefusedError(
            f"weights {list(weights.shape)}, group {group}",
            "Conv of kernel 1 must have one group",
        )
    if isinstance(bias, np.ndarray) and bias.shape != weights.shape[:1]:
        raise RefusedError(f"B has shape {list(bias.shape)}", f"want [{len(weights)}]")
    bias = bias if isinstance(bias, np.ndarray) else None
    return _dense(axes, view, 1, weights.reshape(weights.shape[:2]), bias)


def conv_of_one(weights: Array) -> bool:
    """Whether a Conv has a kernel of one element, so that it is a Dense on each step."""
    return weights.ndim >= 3 and math.prod(weights.shape[2:]) == 1


def arithmetic(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Add, Sub, Mul or Div of a constant; Add and Mul of branches of one input."""
    a, b = inputs
    if isinstance(a, View) and isinstance(b, View) and node.op in ("Add", "Mul"):
        return [joined(axes, _broadcast(axes, a, b), "sum" if node.op == "Add" else "mul")]
    view, other = (a, b) if isinstance(a, View) else (b, a)
    if not isinstance(view, View) or not isinstance(other, np.ndarray):
        raise RefusedError("joins two computed values", ONE_CHAIN)
    if view.integers:
        raise RefusedError("is fed token ids", TO_EMBEDDING)
    if view.step.layer is None:
        view = axes.as_features(view, len(view.axes) - 1)
    c = _along_features(axes, view, f32(other))
    size = view.step.size
    factor, offset = _affine(node.op, c, size, constant_first=isinstance(a, np.ndarray))
    dense = view.step.layer
    if isinstance(dense, Dense) and dense.activation == "none" and view.step.parent is not None:
        with np.errstate(all="ignore"):
            weights = dense.weights.astype(np.float64) * factor[:, None]
            bias = dense.bias.astype(np.float64) * factor + offset
        layer = replace(dense, weights=f32(weights), bias=f32(bias))
        return [replace(view, step=view.step.parent.then(layer, size), final_state=False)]
    if isinstance(dense, Scale) and view.step.parent is not None:
        with np.errstate(all="ignore"):
            offset = dense.offset.astype(np.float64) * factor + offset
            factor = dense.factor.astype(np.float64) * factor
        merged = Scale("", f32(factor), f32(offset))
        return [replace(view, step=view.step.parent.then(merged, size), final_state=False)]
    scale = Scale("", f32(factor), f32(offset))
    return [replace(view, step=view.step.then(scale, size), final_state=False)]


def _affine(op: str, c: Array, size: int, *, constant_first: bool) -> tuple[Array, Array]:
    """Return factor and offset, [size] each, of an operator with the constant ``c``."""
    one, zero = np.ones(size), np.zeros(size)
    with np.errstate(all="ignore"):
        if op == "Add":
            return one, c
        if op == "Mul":
            return c, zero
        if op == "Sub":
            return (-one, c) if constant_first else (one, -c)
        if constant_first:
            raise RefusedError("divides by a computed value", "want a constant")
        return 1.0 / c, zero


def _broadcast(axes: Axes, a: View, b: View) -> list[View]:
    """Return two views with the same number of axes, as ONNX lines them up from the last."""
    longer = max(len(a.axes), len(b.axes))
    return [axes.unsqueeze(v, list(range(longer - len(v.axes)))) for v in (a, b)]


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
    step = index.step.then(Embedding("", f32(table)), int(table.shape[1]))
    return [View(step, (*index.axes, (FEATURES,)))]


def activation(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Sigmoid, Tanh, Relu, Softmax, Clip from 0 to 6 or without end, and functions of a value."""
    view = inputs[0]
    if not isinstance(view, View):
        raise RefusedError("is bounded by a computed value", "want constants")
    if view.integers:
        raise RefusedError("is fed token ids", TO_EMBEDDING)
    if node.op == "Softmax":
        view = _softmax_view(axes, node, view)
    kind = _kind(node, inputs)
    if view.step.layer is None:
        view = axes.as_features(view, len(view.axes) - 1)
    if isinstance(kind, Function):
        layer: Activation | Elementwise = Elementwise("", kind)
    else:
        layer = Activation("", kind)
    step = view.step.then(layer, view.step.size)
    return [replace(view, step=step, final_state=False)]


def _kind(node: Node, inputs: Values) -> Kind | Function:
    """Return what a node computes."""
    if node.op == "Softmax":
        return "softmax"
    if node.op == "Clip":
        return _clip_kind(node, inputs)
    if node.op in KINDS:
        return KINDS[node.op]
    defaults = ELEMENTWISE[node.op]
    return Function(FUNCTIONS[node.op], *(node.get(n, d) for n, d in defaults.items()))


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


def f32(values: Array) -> F32:
    """Return a constant as float32."""
    if not is_float(values):
        raise RefusedError(f"has a constant of {values.dtype}", "want float32")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, np.float32)


def _matrix(weights: Array) -> Array:
    """Return weights without leading axes of one element."""
    while weights.ndim > 2 and len(weights) == 1:
        weights = weights[0]
    return weights

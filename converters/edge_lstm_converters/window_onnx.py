"""ONNX operators that look at several steps: Conv, pooling, means over time, normalization.

Each function gets what is known of the axes, a node and its inputs, and returns its outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, Literal

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.cells import Conv1d, GlobalPool, LayerNorm, Pool1d, Scale
from edge_lstm.cells.window import Padding
from edge_lstm.spec import Layer
from edge_lstm_converters.axes_onnx import FEATURES, Axes, RefusedError, State, Value, Values, View
from edge_lstm_converters.layers_onnx import TO_EMBEDDING, conv_of_one, dense_conv, f32, with_size
from edge_lstm_converters.layouts import ungrouped
from edge_lstm_converters.load_onnx import Node
from edge_lstm_converters.simplify_onnx import axes_of, ints

POOLS: dict[str, Literal["max", "average"]] = {"MaxPool": "max", "AveragePool": "average"}
GLOBAL_POOLS: dict[str, Literal["max", "average", "sum"]] = {
    "GlobalAveragePool": "average",
    "GlobalMaxPool": "max",
    "ReduceMax": "max",
    "ReduceMean": "average",
    "ReduceSum": "sum",
}


def _along_time(axes: Axes, value: Value | None) -> View:
    """Return a value laid out [batch, features, time]."""
    if not isinstance(value, View):
        raise RefusedError("is not fed a computed sequence", "want [batch, features, time]")
    if len(value.axes) != 3:
        found = f"is fed {len(value.axes)} axes"
        raise RefusedError(found, "want 3: [batch, features, time]")
    view = axes.as_sequence(value, time=2, batch=0, features=1)
    if view.integers:
        raise RefusedError("is fed token ids", TO_EMBEDDING)
    return view


def _padding(node: Node) -> Padding:
    auto = node.get("auto_pad", "NOTSET")
    if auto == "SAME_UPPER":
        return "same"
    if auto not in ("NOTSET", "VALID"):
        raise RefusedError(f"auto_pad is {auto}", "want NOTSET, VALID or SAME_UPPER")
    pads = [0, 0] if auto == "VALID" else list(node.get("pads") or [0, 0])
    if len(pads) != 2:
        raise RefusedError(f"pads are {pads}", "want one before and one after")
    return int(pads[0]), int(pads[1])


def _one(node: Node, attribute: str) -> int:
    values = list(node.get(attribute) or [1])
    if len(values) != 1:
        raise RefusedError(f"{attribute} are {values}", "want one, along time")
    return int(values[0])


def _windowed(
    axes: Axes, view: View, layer: Layer, size: int, reach: int, stride: int, padding: Padding
) -> list[Value]:
    """Return the view behind a layer that changes the number of steps."""
    steps = axes.shape(view)[2]
    if padding == "same":
        count = -(-steps // stride)
    else:
        count = (steps + sum(padding) - reach) // stride + 1
    if count < 1:
        raise RefusedError(f"has a window of {reach} on {steps} steps", "want more steps")
    time = view.axes[2]
    if count != steps or not time:
        time = (axes.new_time(count),)
    step = view.step.then(layer, size)
    return [View(step, (view.axes[0], (FEATURES,), time))]


Run = Callable[[Axes, Node, Values], list[Value]]


def _or_flat(run: Run) -> Run:
    """Return a function that takes operators of two axes too, where time is one of one row."""

    @wraps(run)
    def runs(axes: Axes, node: Node, inputs: Values) -> list[Value]:
        view, *others = inputs
        if not isinstance(view, View) or len(view.axes) != 4:
            return run(axes, node, inputs)
        weights = others[0] if others and isinstance(others[0], np.ndarray) else None
        kernel = node.get("kernel_shape") or ([0, 0] if weights is None else weights.shape[2:])
        pads = list(node.get("pads") or [0] * 4)
        for row in (0, 1):
            fits = len(kernel) == 2 and kernel[row] == 1 and pads[row::2] == [0, 0]
            if not fits or axes.real(view, view.axes[2 + row]):
                continue
            kept: dict[str, Any] = {
                word: [node.attributes[word][1 - row]]
                for word in ("kernel_shape", "strides", "dilations")
                if word in node.attributes
            }
            kept["pads"] = pads[1 - row :: 2]
            if weights is not None:
                others[0] = weights.squeeze(2 + row)
            flat = replace(node, attributes={**node.attributes, **kept})
            (result,) = run(axes, flat, [axes.squeeze(view, [2 + row]), *others])
            assert isinstance(result, View)
            return [axes.unsqueeze(result, [2 + row])]
        return run(axes, node, inputs)

    return runs


@_or_flat
def conv(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Conv along time; of kernel 1: a Dense on each step."""
    x, weights, bias = [*inputs, None][:3]
    if not isinstance(weights, np.ndarray) or isinstance(bias, View | State):
        raise RefusedError("joins computed values", "want constant W and B")
    stride, padding = list(node.get("strides") or [1]), _padding(node)
    if conv_of_one(weights) and padding in ((0, 0), "same") and set(stride) == {1}:
        return dense_conv(axes, node, inputs)
    group = int(node.get("group", 1))
    if weights.ndim != 3 or group < 1 or len(weights) % group:
        raise RefusedError(
            f"weights {list(weights.shape)}, group {group}",
            "Conv must be along time alone: weights [output, input, kernel]",
        )
    weights = ungrouped(weights, group)
    view = with_size(axes, _along_time(axes, x), 1, weights.shape[1])
    if isinstance(bias, np.ndarray) and bias.shape != weights.shape[:1]:
        raise RefusedError(f"B has shape {list(bias.shape)}", f"want [{len(weights)}]")
    values = f32(bias) if isinstance(bias, np.ndarray) else np.zeros(len(weights), np.float32)
    layer = Conv1d(
        "", f32(weights), values, _one(node, "strides"), _one(node, "dilations"), padding
    )
    return _windowed(axes, view, layer, len(weights), layer.reach, layer.stride, padding)


@_or_flat
def pool(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """MaxPool and AveragePool along time."""
    if len([name for name in node.outputs if name]) != 1:
        raise RefusedError("gives indices", "want the values alone")
    if node.get("ceil_mode", 0) or _one(node, "dilations") != 1:
        raise RefusedError("has ceil_mode or dilations", "want pooling without")
    view, padding = _along_time(axes, inputs[0]), _padding(node)
    size, stride = _one(node, "kernel_shape"), _one(node, "strides")
    count_padding = bool(node.get("count_include_pad", 0))
    layer = Pool1d("", POOLS[node.op], size, stride, padding, count_padding)
    return _windowed(axes, view, layer, view.step.size, size, stride, padding)


def pad(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Pad with nothing, or with zeros along time."""
    view, *others = inputs
    if not isinstance(view, View) or any(isinstance(v, View | State) for v in others):
        raise RefusedError("is steered by computed values", "want constants")
    amounts, value, chosen = [*others, None, None, None][:3]
    pads = ints(amounts) if isinstance(amounts, np.ndarray) else list(node.get("pads") or [])
    places = ints(chosen) if isinstance(chosen, np.ndarray) else list(range(len(pads) // 2))
    count = len(places)
    moved = {axes.position(view, p): (pads[k], pads[k + count]) for k, p in enumerate(places)}
    moved = {axis: both for axis, both in moved.items() if both != (0, 0)}
    if not moved:
        return [view]
    zero = not np.any(node.get("value", 0) if value is None else value)  # type: ignore[arg-type]
    mode = node.get("mode", "constant")
    if mode != "constant" or not zero or list(moved) != [2] or min(moved[2]) < 0:
        raise RefusedError(f"pads {pads}, mode {mode}", "want zeros along time")
    view = _along_time(axes, view)
    size = axes.shape(view)[1]
    same = np.eye(size, dtype=np.float32)[:, :, None]  # a convolution for what it puts at the ends
    layer = Conv1d("", same, np.zeros(size, np.float32), padding=moved[2])
    return _windowed(axes, view, layer, size, 1, 1, moved[2])


def over_time(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """GlobalAveragePool, GlobalMaxPool, ReduceMean, ReduceMax and ReduceSum over all of time."""
    view, *others = inputs
    if not isinstance(view, View) or view.integers:
        raise RefusedError("is fed token ids or a state", "want a computed sequence")
    if node.op.startswith("Global"):
        view, axis, keep = _along_time(axes, view), 2, True
    else:
        steer = [None, *(v if isinstance(v, np.ndarray) else None for v in others)]
        chosen = [axes.position(view, axis) for axis in axes_of(node, steer) or []]
        units = [axis for axis in chosen if view.axes[axis] == ()]
        if len(chosen) > 1 and units:  # an axis of one element has nothing to join
            chosen = [axis for axis in chosen if axis not in units]
            if not node.get("keepdims", 1):
                view = axes.squeeze(view, units)
                chosen = [axis - sum(unit < axis for unit in units) for axis in chosen]
        if len(chosen) != 1:
            raise RefusedError(f"works along axes {chosen}", "want time alone")
        axis, keep = axes.position(view, chosen[0]), bool(node.get("keepdims", 1))
        if view.step.layer is None:
            view = axes.as_features(view, len(view.axes) - 1)
    if not axes.is_time(view, view.axes[axis]):
        found = f"works along {axes.word(view, view.axes[axis])} of {axes.describe(view)}"
        raise RefusedError(found, "want time alone")
    kept = list(view.axes)
    kept[axis : axis + 1] = [()] if keep else []
    step = view.step.then(GlobalPool("", GLOBAL_POOLS[node.op]), view.step.size, vector=True)
    return [View(step, tuple(kept))]


def batch_norm(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """BatchNormalization: a Scale."""
    view, *given = inputs
    if not isinstance(view, View) or node.get("training_mode", 0):
        raise RefusedError("is in training mode", "export the model in eval mode")
    values = [f32(v).astype(np.float64) for v in given if isinstance(v, np.ndarray)]
    if len(values) != 4 or len({v.shape for v in values}) != 1 or values[0].ndim != 1:
        raise RefusedError("its statistics are computed", "want 4 constants, a value a feature")
    weight, bias, mean, variance = values
    view = with_size(axes, axes.as_features(view, 1), 1, len(weight))
    factor = weight / np.sqrt(variance + node.get("epsilon", 1e-5))
    step = view.step.then(
        Scale("", _rounded(factor), _rounded(bias - mean * factor)), view.step.size
    )
    return [View(step, view.axes)]


def layer_norm(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """LayerNormalization over the features."""
    view, weight, bias = [*inputs, None][:3]
    if weight is None and isinstance(view, View):
        weight = np.ones(axes.shape(view)[-1], np.float32)
    if (
        not isinstance(view, View)
        or not isinstance(weight, np.ndarray)
        or isinstance(bias, View | State)
    ):
        raise RefusedError("its weights are computed", "want constants")
    axis = axes.position(view, node.get("axis", -1))
    if axis != len(view.axes) - 1 or weight.ndim != 1:
        raise RefusedError(f"works along axes from {axis} on", "want the features alone")
    view = with_size(axes, axes.as_features(view, axis), axis, len(weight))
    if view.integers:
        raise RefusedError("is fed token ids", TO_EMBEDDING)
    offset = np.zeros(len(weight)) if bias is None else np.asarray(bias)
    layer = LayerNorm("", f32(weight), f32(offset), float(node.get("epsilon", 1e-5)))
    return [View(view.step.then(layer, view.step.size), view.axes)]


def _rounded(values: Array) -> F32:
    return np.ascontiguousarray(values, np.float32)

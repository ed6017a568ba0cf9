"""ONNX operators that move values, pick some or pass them on, and compute nothing.

Each function gets what is known of the axes, a node and its inputs, and returns its outputs.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm_converters.axes_onnx import (
    DIRECTION,
    FEATURES,
    Axes,
    RefusedError,
    Stack,
    State,
    Value,
    Values,
    View,
)
from edge_lstm_converters.joins_onnx import ONE_CHAIN, joined
from edge_lstm_converters.layers_onnx import embedding
from edge_lstm_converters.load_onnx import FLOAT_TYPES, INTEGER_TYPES, Node
from edge_lstm_converters.simplify_onnx import (
    axes_of,
    fold,
    ints,
    slices_of,
    split_sizes,
    target_shape,
)

ONE_STATE = "take the state of one layer by its index"

LAYOUT_OPS = {
    "Cast",
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
"""What a state may pass through on its way to an LSTM or out of the graph."""


def _split_inputs(inputs: Values) -> tuple[View, list[Array | None]]:
    """Return the view that comes first, and all inputs with None for it; the rest is constant."""
    view, *others = inputs
    if not isinstance(view, View) or any(isinstance(v, View | State | Stack) for v in others):
        raise RefusedError("is steered by computed values", "want constants")
    return view, [None, *(v if isinstance(v, np.ndarray) else None for v in others)]


def gather(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Gather: an embedding, one step of time, or one of two directions."""
    data, index = inputs
    if isinstance(data, np.ndarray) and isinstance(index, View):
        return embedding(data, node, index)
    if not isinstance(data, View) or not isinstance(index, np.ndarray):
        raise RefusedError("is steered by computed values", "want constants")
    if index.size != 1 or index.ndim > 1:
        raise RefusedError(f"takes {index.size} indices", "it may take the last step of time")
    (position,) = ints(index)
    return [axes.gather(data, node.get("axis", 0), position, keep=index.ndim == 1)]


def slice_(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Slice: a run of time steps, all of them reversed, or one of two directions."""
    view, constants = _split_inputs(inputs)
    for axis, start, end, step in slices_of(node, constants):
        view = axes.slice(view, axis, start, end, step)
    return [view]


def reverse_sequence(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """ReverseSequence of all steps."""
    view, constants = _split_inputs(inputs)
    axis, batch = (
        axes.position(view, node.get(f"{word}_axis", k)) for k, word in enumerate(("time", "batch"))
    )
    lengths = constants[1]
    if len(view.axes) == 3:  # the operator says what each axis is
        view = axes.as_sequence(view, time=axis, batch=batch, features=3 - axis - batch)
    if lengths is None or (lengths != axes.shape(view)[axis]).any():
        raise RefusedError("reverses a part of the steps", "want lengths that are all the steps")
    return [axes.slice(view, axis, -1, -(2**31), -1)]


def reshape(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Reshape: axes joined, or joined axes taken apart."""
    view, constants = _split_inputs(inputs)
    try:
        wanted = target_shape(node, constants, axes.shape(view))
    except ValueError:
        fixed = ints(constants[1]) if len(constants) > 1 else list(node.get("shape"))
        if min(fixed, default=0) > 0:
            axes.learn_from_size(view, math.prod(fixed))
        if axes.guesses:
            raise RefusedError(
                f"reshapes {axes.describe(view)} to {axes.shown(fixed)}",
                "want the same sizes fixed in the input, or left open here too",
            ) from None
        raise
    return [axes.reshape(view, wanted)]


def flatten(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Flatten: the axes from one on joined, and those before it."""
    view, _ = _split_inputs(inputs)
    shape, axis = axes.shape(view), node.get("axis", 1)
    axis += len(shape) if axis < 0 else 0
    return [axes.reshape(view, [math.prod(shape[:axis]), math.prod(shape[axis:])])]


def squeeze(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Squeeze."""
    view, constants = _split_inputs(inputs)
    return [axes.squeeze(view, axes_of(node, constants))]


def unsqueeze(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Unsqueeze."""
    view, constants = _split_inputs(inputs)
    return [axes.unsqueeze(view, axes_of(node, constants) or [])]


def transpose(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Transpose."""
    view, _ = _split_inputs(inputs)
    return [axes.transpose(view, node.get("perm"))]


def expand(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Expand to the shape that is there."""
    del node
    view, constants = _split_inputs(inputs)
    found, wanted = axes.shape(view), ints(constants[1])
    if np.broadcast_shapes(tuple(found), tuple(wanted)) != tuple(found):
        raise RefusedError(
            f"repeats {axes.shown(found)} to {axes.shown(wanted)}", "values must not be repeated"
        )
    return [view]


def identity(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Identity, and Dropout outside training."""
    del axes
    view, constants = _split_inputs(inputs)
    if node.op == "Dropout" and len(constants) > 2 and np.any(constants[2]):
        raise RefusedError("drops values as in training", "export the model in eval mode")
    return [view]


def cast(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Cast from float to float, or of the input to token ids."""
    del axes
    view, _ = _split_inputs(inputs)
    if node.get("to") in FLOAT_TYPES:
        return [replace(view, integers=False)]
    if node.get("to") in INTEGER_TYPES and view.step.layer is None:
        return [replace(view, integers=True)]
    raise RefusedError(f"rounds values to data type {node.get('to')}", "want float32")


def concat(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Concat of final states, or of the features of branches and directions."""
    views = [v for v in inputs if isinstance(v, View)]
    if len(views) == len(inputs) == 1:
        return [views[0]]
    axis = axes.position(views[0], node.get("axis", 0)) if views else 0
    if len(views) != len(inputs) or any(len(v.axes) != len(views[0].axes) for v in views):
        raise RefusedError("joins computed values", ONE_CHAIN)
    if all(_is_state(v, axis) for v in views):
        return [Stack(tuple(part for v in views for part in _states(axes, v, axis)), axis)]
    return [joined(axes, [axes.as_features(v, axis) for v in views], "concat")]


def _is_state(view: View, axis: int) -> bool:
    """Whether a view is a final state, or one step, with nothing of its own on ``axis``."""
    if view.final_state and view.axes[axis] == (DIRECTION,):
        return True
    has_features = any(FEATURES in joint for joint in view.axes)
    return view.axes[axis] == () and (view.final_state or (view.step.vector and has_features))


def _states(axes: Axes, view: View, axis: int) -> list[View]:
    """Return the final states in a view, with one element on ``axis`` each."""
    if view.axes[axis] == ():
        return [view]
    return [axes.one_direction(view, axis, index, keep=True) for index in (0, 1)]


def split(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Split into one part, or into the two directions of a layer."""
    view, constants = _split_inputs(inputs)
    if len(node.outputs) == 1:
        return [view]
    axis = axes.position(view, node.get("axis", 0))
    edges = [0, *itertools.accumulate(split_sizes(node, constants, axes.shape(view)[axis]))]
    return [axes.slice(view, axis, a, b, 1) for a, b in itertools.pairwise(edges)]


def stacked(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Any operator on a Stack: some of its parts."""
    stack = inputs[0]
    others = [v if isinstance(v, np.ndarray) else None for v in inputs]
    if not isinstance(stack, Stack) or node.op not in ("Gather", "Slice", "Split", "Identity"):
        raise RefusedError("computes with the states of several layers", ONE_STATE)
    if node.op == "Identity":
        return [stack]
    count, axis = len(stack.parts), node.get("axis", 0)
    if node.op == "Gather":
        index = others[1]
        if index is None or index.size != 1 or axis % len(stack.parts[0].axes) != stack.axis:
            raise RefusedError("takes several states", ONE_STATE)
        part = stack.parts[ints(index)[0]]
        return [part if index.ndim else axes.squeeze(part, [stack.axis])]
    if node.op == "Slice":
        ((axis, start, end, step),) = slices_of(node, others)
        parts = [stack.parts[start:end:step]]
    else:
        edges = itertools.accumulate(split_sizes(node, others, count), initial=0)
        parts = [stack.parts[a:b] for a, b in itertools.pairwise(edges)]
    if axis % len(stack.parts[0].axes) != stack.axis or not all(parts):
        raise RefusedError("cuts states apart", ONE_STATE)
    return [p[0] if len(p) == 1 else Stack(p, stack.axis) for p in parts]


def state(axes: Axes, node: Node, inputs: Values) -> list[Value]:
    """Any operator on a State."""
    del axes
    states = [v for v in inputs if isinstance(v, State)]
    if node.op not in LAYOUT_OPS:
        accepted = "a state may go to an LSTM or out of the graph, as it is"
        raise RefusedError(f"computes with {states[0].origin}", accepted)
    values = [v.values if isinstance(v, State) else v for v in inputs]
    fed = all(v.fed for v in states)
    lengths = any(v.lengths for v in states)
    return [
        State(a, states[0].origin, fed, lengths)
        for a in fold(node, values)  # type: ignore[arg-type]
    ]

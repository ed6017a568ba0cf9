"""A graph of torch.export as a ModelSpec: what each operator does to the chain of layers.

What changes the meaning and has no layer here is refused by the operator's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.cells import Activation, Dense, Embedding
from edge_lstm.cells.activation import Kind
from edge_lstm.spec import ModelSpec
from edge_lstm_converters.float_weights import as_float32
from edge_lstm_converters.pt2_file import ExportedGraph
from edge_lstm_converters.torch_joins import JOIN_OPERATORS
from edge_lstm_converters.torch_moves import CREATE_OPERATORS, MOVE_OPERATORS
from edge_lstm_converters.torch_recurrent import RECURRENT_OPERATORS
from edge_lstm_converters.torch_values import Constant, Flow, Value
from edge_lstm_converters.torch_walk import Handler, Walk
from edge_lstm_converters.torch_window import WINDOW_OPERATORS

FUSED: Mapping[str, Literal["relu", "relu6"]] = {"relu": "relu", "relu6": "relu6"}


def graph_to_spec(graph: ExportedGraph, where: str, name: str) -> ModelSpec:
    """Return the model that a graph computes.

    Args:
        graph: what torch.export saved.
        where: its file, for messages.
        name: of the model.

    Raises:
        ModelError: an operator that has no counterpart here, by its name; a damaged graph.
    """
    return Walk(graph, where).read(name, OPERATORS, MOVE_OPERATORS)


# Each operator becomes a layer, or is refused.


def _dense(walk: Walk, flow: Flow, weight: Constant, matrix: Array, bias: Value | None) -> Flow:
    """Add a Dense layer; ``matrix`` is [output, input]."""
    if matrix.ndim != 2:
        raise walk.refuse(f"its weight has shape {list(matrix.shape)}", "want 2 axes")
    if not flow.axes:
        raise walk.refuse("is fed a number", "want features")
    walk.set_role(flow.axes[-1], "features")
    where = f"{walk.where}: {weight.name}"
    weights = as_float32(where, matrix)
    if bias is None:
        bias_values = np.zeros(len(weights), np.float32)
    elif isinstance(bias, Constant) and bias.values.shape == (len(weights),):
        bias_values = as_float32(f"{walk.where}: {bias.name}", bias.values)
    else:
        raise walk.refuse("its bias is no trained vector", f"want [{len(weights)}]")
    name = walk.name(weight.name.rpartition(".")[0], "dense")
    features = walk.new_features()
    return walk.emit(flow, (*flow.axes[:-1], features), Dense(name, weights, bias_values))


def _linear(walk: Walk) -> list[Value]:
    """Linear."""
    weight = walk.constant("weight")
    bias = None if walk.argument("bias") is None else walk.value(walk.argument("bias"))
    return [_dense(walk, walk.flow("input"), weight, weight.values, bias)]


def _matmul(walk: Walk) -> list[Value]:
    """A product with a weight: a Linear without bias."""
    weight = walk.constant("other" if "other" in walk.node.arguments else "mat2")
    return [_dense(walk, walk.flow(), weight, weight.values.T, None)]


def _addmm(walk: Walk) -> list[Value]:
    """A product and a bias: a Linear."""
    if walk.argument("beta", 1) != 1 or walk.argument("alpha", 1) != 1:
        raise walk.refuse("has a beta or alpha", "both must be 1")
    weight = walk.constant("mat2")
    bias = walk.value(walk.argument("self"))
    return [_dense(walk, walk.flow("mat1"), weight, weight.values.T, bias)]


def _embedding(walk: Walk) -> list[Value]:
    """Embedding of token ids."""
    weight, flow = walk.constant("weight"), walk.flow("indices")
    if weight.values.ndim != 2:
        raise walk.refuse(f"its weight has shape {list(weight.values.shape)}", "want 2 axes")
    table = as_float32(f"{walk.where}: {weight.name}", weight.values)
    name = walk.name(weight.name.rpartition(".")[0], "embedding")
    return [walk.emit(flow, (*flow.axes, walk.new_features()), Embedding(name, table))]


def _activation(kind: Kind) -> Handler:
    def handler(walk: Walk) -> list[Value]:
        """ReLU, ReLU6, Sigmoid and Tanh."""
        flow = walk.flow("input" if "input" in walk.node.arguments else "self")
        last, before = flow.step.layer, flow.step.parent
        prefix: str = kind
        if isinstance(last, Dense) and before is not None:
            if last.activation == "none" and kind in FUSED:
                fused = replace(last, activation=FUSED[kind])
                return [replace(flow, step=walk.then(before, fused))]
            prefix = f"{last.name}_{kind}"
        return [walk.emit(flow, flow.axes, Activation(walk.name(prefix, kind), kind))]

    return handler


def _softmax(walk: Walk) -> list[Value]:
    """Softmax over the features."""
    flow = walk.flow()
    walk.set_role(flow.axes[walk.axis(len(flow.axes))], "features")
    return _activation("softmax")(walk)


def _clamp(walk: Walk) -> list[Value]:
    """Bounds 0 and none, or 0 and 6: ReLU and ReLU6."""
    low = walk.argument("min_val", walk.argument("min"))
    high = walk.argument("max_val", walk.argument("max"))
    if walk.node.target.startswith("aten.hardtanh"):
        low, high = walk.argument("min_val", -1.0), walk.argument("max_val", 1.0)
    if low == 0 and high is None:
        return _activation("relu")(walk)
    if low == 0 and high == 6:
        return _activation("relu6")(walk)
    raise walk.refuse(f"bounds {low} and {high}", "want 0 and none (ReLU), or 0 and 6 (ReLU6)")


LAYER_OPERATORS: Mapping[str, Handler] = {
    "aten.linear": _linear,
    "aten.matmul": _matmul,
    "aten.mm": _matmul,
    "aten.addmm": _addmm,
    "aten.embedding": _embedding,
    "aten.relu": _activation("relu"),
    "aten.relu6": _activation("relu6"),
    "aten.sigmoid": _activation("sigmoid"),
    "aten.tanh": _activation("tanh"),
    "aten.softmax": _softmax,
    "aten._softmax": _softmax,
    "aten.hardtanh": _clamp,
    "aten.clamp": _clamp,
    "aten.relu_": _activation("relu"),
    "aten.relu6_": _activation("relu6"),
    "aten.sigmoid_": _activation("sigmoid"),
    "aten.tanh_": _activation("tanh"),
    "aten.hardtanh_": _clamp,
    "aten.clamp_": _clamp,
    "aten.clamp_min": _clamp,
}
OPERATORS: Mapping[str, Handler] = {
    **RECURRENT_OPERATORS,
    **LAYER_OPERATORS,
    **JOIN_OPERATORS,
    **WINDOW_OPERATORS,
    **CREATE_OPERATORS,
}

"""Operators of a float ``.tflite`` file, one function each: the layer that each becomes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.cells import (
    Activation,
    Bidirectional,
    Dense,
    Elementwise,
    Embedding,
    Function,
    GlobalPool,
    Recurrent,
    Scale,
)
from edge_lstm.cells.activation import Kind
from edge_lstm.cells.recurrent import Merge
from edge_lstm.spec import Signal
from edge_lstm_converters.tflite_axes import Value
from edge_lstm_converters.tflite_float_cells import float_lstm, float_rnn, halves
from edge_lstm_converters.tflite_float_graph import FloatGraph, LayerOp
from edge_lstm_converters.tflite_graph import TfliteGraph
from edge_lstm_converters.tflite_schema import TfliteOperator
from edge_lstm_converters.tflite_tables import (
    AddOptions,
    BidirectionalLstmOptions,
    BidirectionalRnnOptions,
    DivOptions,
    FullyConnectedOptions,
    GatherOptions,
    LeakyReluOptions,
    MulOptions,
    SequenceLstmOptions,
    SequenceRnnOptions,
    SoftmaxOptions,
    SubOptions,
)

RECURRENT: dict[str, type[Any]] = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": SequenceLstmOptions,
    "UNIDIRECTIONAL_SEQUENCE_RNN": SequenceRnnOptions,
    "BIDIRECTIONAL_SEQUENCE_LSTM": BidirectionalLstmOptions,
    "BIDIRECTIONAL_SEQUENCE_RNN": BidirectionalRnnOptions,
}
ARITHMETIC: dict[str, type[Any]] = {
    "ADD": AddOptions,
    "SUB": SubOptions,
    "MUL": MulOptions,
    "DIV": DivOptions,
}
KINDS: dict[str, Kind] = {
    "LOGISTIC": "sigmoid",
    "TANH": "tanh",
    "RELU": "relu",
    "RELU6": "relu6",
    "SOFTMAX": "softmax",
}
POOLS: dict[str, Literal["average", "max", "sum"]] = {
    "MEAN": "average",
    "REDUCE_MAX": "max",
    "SUM": "sum",
}


def recurrent(graph: FloatGraph, operator: TfliteOperator) -> None:
    """A layer that runs in one direction."""
    options = graph.options(operator, RECURRENT[operator.code])
    value, order = graph.sequence(operator, time_major=options.time_major)
    layer = _cell(graph, operator, operator)
    _fits(graph, operator, layer, value)
    signal = Signal("sequence", layer.output_size)
    word = operator.code[-4:].strip("_").lower()
    graph.layer(operator, value, signal, order, lambda name: replace(layer, name=name), word)


def _cell(graph: FloatGraph, operator: TfliteOperator, part: TfliteOperator) -> Recurrent:
    read = float_lstm if operator.code.endswith("LSTM") else float_rnn
    return read(graph.model, part, graph.label(operator), "cell")


def _fits(graph: FloatGraph, operator: TfliteOperator, layer: Recurrent, value: Value) -> None:
    if layer.input_size != value.signal.size:
        raise graph.damaged(operator, f"has weights for {layer.input_size} features")


def both(graph: FloatGraph, operator: TfliteOperator) -> None:
    """Two directions, their outputs joined or apart."""
    options = graph.options(operator, RECURRENT[operator.code])
    value, order = graph.sequence(operator, time_major=options.time_major)
    is_lstm = operator.code.endswith("LSTM")
    if is_lstm and options.merge_outputs and not options.time_major and graph.layout.batch_size > 1:
        raise graph.refuse(
            operator,
            f"merges outputs of {graph.layout.batch_size} rows, batch-major",
            "LiteRT reads past its states there; want one row, or time-major",
        )
    ahead, back = (_cell(graph, operator, part) for part in halves(operator, graph.label(operator)))
    _fits(graph, operator, ahead, value)
    _fits(graph, operator, back, value)
    wanted = 1 if options.merge_outputs else 2
    if len(operator.outputs) != wanted:
        raise graph.damaged(operator, f"has {len(operator.outputs)} outputs; want {wanted}")
    name = graph.name(operator, "bidirectional")
    whole = Signal("sequence", ahead.output_size + back.output_size)
    index = graph.float_tensor(name, whole)
    layer = Bidirectional(name, ahead, back)
    graph.ops.append(LayerOp(name, (value.index,), index, layer))
    parts = [(whole, index)]
    if not options.merge_outputs:
        parts = []
        for direction, half in enumerate((ahead, back)):
            signal = Signal("sequence", half.output_size)
            taken = graph.float_tensor(name, signal)
            graph.ops.append(LayerOp(name, (index,), taken, direction=direction))
            parts.append((signal, taken))
    for output, (signal, made) in zip(operator.outputs, parts, strict=True):
        shape = graph.model.tensors[output].shape
        if math.prod(shape) != graph.layout.count(signal):
            raise graph.damaged(operator, f"gives shape {list(shape)}, which cannot be")
        graph.values[output] = Value(made, signal, order, shape)


def dense(graph: FloatGraph, operator: TfliteOperator) -> None:
    """A dense layer, on each step of a sequence."""
    options = graph.options(operator, FullyConnectedOptions)
    if options.weights_format != 0:
        raise graph.refuse(operator, "has shuffled weights", "want the default format")
    weights = graph.numbers(operator, 1, "weights")
    if weights.ndim != 2 or 0 in weights.shape:
        raise graph.refuse(operator, f"weights are {list(weights.shape)}", "want [outputs, inputs]")
    outputs, depth = weights.shape
    value = graph.last_axis(operator, graph.source(operator), depth)
    bias: F32 = np.zeros(outputs, np.float32)
    if graph.operand(operator, 2) is not None:
        bias = graph.numbers(operator, 2, "bias")
    graph.layer(
        operator, value, replace(value.signal, size=outputs), value.order,
        lambda name: Dense(name, weights, bias), "dense",
    )  # fmt: skip
    graph.activated(operator, options.fused_activation)


def arithmetic(graph: FloatGraph, operator: TfliteOperator) -> None:
    """ADD, SUB, MUL and DIV: with a constant a value a feature, or of two values."""
    options = graph.options(operator, ARITHMETIC[operator.code])
    if len(operator.inputs) != 2:
        raise graph.damaged(operator, f"takes {len(operator.inputs)} values")
    fixed = [k for k in range(2) if getattr(graph.operand(operator, k), "data", None) is not None]
    if len(fixed) == 1:
        _scaled(graph, operator, fixed[0])
    else:
        _of_two(graph, operator)
    graph.activated(operator, options.fused_activation)


def _of_two(graph: FloatGraph, operator: TfliteOperator) -> None:
    merges: dict[str, Merge] = {"ADD": "sum", "MUL": "mul"}
    values = [graph.source(operator, position) for position in range(2)]
    for value in values:
        graph.integer(operator, value)
    first, second = values
    if operator.code not in merges or (first.signal, first.order) != (
        second.signal,
        second.order,
    ):
        raise graph.refuse(
            operator, f"joins {first.signal} and {second.signal}", "want a sum or product of"
            " two alike",
        )  # fmt: skip
    inputs, merge = (first.index, second.index), merges[operator.code]
    graph.add(
        operator, first.signal, first.order,
        lambda name, index: LayerOp(name, inputs, index, merge=merge), merge,
    )  # fmt: skip


def _scaled(graph: FloatGraph, operator: TfliteOperator, position: int) -> None:
    constant = graph.numbers(operator, position, "the constant")
    source = graph.source(operator, 1 - position)
    value = graph.last_axis(operator, source, source.shape[-1] if source.shape else 0)
    size = value.signal.size
    if constant.size not in (1, size) or (constant.size > 1 and constant.shape[-1] != size):
        raise graph.refuse(
            operator,
            f"the constant has shape {list(constant.shape)} beside {value.signal}",
            "want a value a feature",
        )
    c = np.broadcast_to(constant.reshape(-1).astype(np.float64), size)
    one, zero = np.ones(size), np.zeros(size)
    first = position == 0
    if operator.code == "DIV" and first:
        raise graph.refuse(operator, "divides by a computed value", "want a constant")
    with np.errstate(all="ignore"):
        pairs: dict[str, tuple[Array, Array]] = {
            "ADD": (one, c),
            "MUL": (c, zero),
            "SUB": (-one, c) if first else (one, -c),
            "DIV": (1.0 / c, zero),
        }
    factor, offset = (v.astype(np.float32) for v in pairs[operator.code])
    graph.layer(
        operator, value, value.signal, value.order,
        lambda name: Scale(name, factor, offset), "scale",
    )  # fmt: skip


def embedding(graph: FloatGraph, operator: TfliteOperator) -> None:
    """GATHER and EMBEDDING_LOOKUP of rows of a table."""
    ids, table = (1, 0) if operator.code == "GATHER" else (0, 1)
    rows = graph.numbers(operator, table, "rows of the table")
    if operator.code == "GATHER":
        options = graph.options(operator, GatherOptions)
        if options.axis != 0 or options.batch_dims != 0:
            raise graph.refuse(operator, f"gathers on axis {options.axis}", "want rows")
    value = graph.source(operator, ids)
    if value.signal.kind != "tokens" or value.signal.size not in (0, len(rows)):
        raise graph.refuse(operator, f"indices are {value.signal}", "want the model's token ids")
    if rows.ndim != 2 or 0 in rows.shape:
        raise graph.refuse(operator, f"the table is {list(rows.shape)}", "want [tokens, features]")
    tokens = Signal("tokens", len(rows))
    graph.tensors[value.index] = replace(graph.tensors[value.index], signal=tokens)
    value = replace(value, signal=tokens)
    graph.values[operator.inputs[ids]] = value
    graph.layer(
        operator, value, Signal("sequence", rows.shape[1]), (*value.order, "size"),
        lambda name: Embedding(name, rows), "embedding",
    )  # fmt: skip


def cast(graph: FloatGraph, operator: TfliteOperator) -> None:
    """CAST of token ids, which stay what they are."""
    value = graph.source(operator)
    if value.signal.kind != "tokens" or graph.output(operator).dtype not in ("int32", "int64"):
        raise graph.refuse(
            operator, f"makes {graph.output(operator).dtype} of {value.signal}",
            "only token ids may be cast",
        )  # fmt: skip
    graph.values[operator.outputs[0]] = value


def activation(graph: FloatGraph, operator: TfliteOperator) -> None:
    """An activation."""
    value = graph.source(operator)
    graph.integer(operator, value)
    kind = KINDS.get(operator.code)
    if operator.code == "SOFTMAX":
        beta = graph.options(operator, SoftmaxOptions).beta
        if beta != 1.0:
            raise graph.refuse(operator, f"has beta {beta}", "it must be 1")
        value = graph.last_axis(operator, value, value.shape[-1] if value.shape else 0)
    if kind is not None:
        graph.layer(
            operator, value, value.signal, value.order,
            lambda name: Activation(name, kind), kind,
        )  # fmt: skip
        return
    function = Function("elu")
    if operator.code == "LEAKY_RELU":
        alpha = graph.options(operator, LeakyReluOptions).alpha
        function = Function("leaky_relu", alpha)
    graph.layer(
        operator, value, value.signal, value.order,
        lambda name: Elementwise(name, function), function.name,
    )  # fmt: skip


def pooled(graph: FloatGraph, operator: TfliteOperator) -> None:
    """MEAN, REDUCE_MAX and SUM over time."""
    value = graph.source(operator)
    graph.integer(operator, value)
    axes = graph.layout.file_axes(value, graph.label(operator))
    # One axis may be a number instead of a list.
    found = [int(axis) for axis in graph.constant(operator, 1, "axes").array().reshape(-1)]
    rank = len(axes)
    if not all(-rank <= axis < rank for axis in found):
        raise graph.damaged(operator, f"reduces axes {found} of {list(value.shape)}")
    sizes = graph.layout.sizes(value.signal)
    gone = {a for k in found for a in axes[k] if a == "time" or sizes[a] > 1}
    if gone != {"time"} or value.signal.kind != "sequence":
        raise graph.mismatch(operator, f"reduces axes {found} of {value.signal}", "want time")
    kind = POOLS[operator.code]
    order = tuple(axis for axis in value.order if axis != "time")
    graph.layer(
        operator, value, Signal("vector", value.signal.size), order,
        lambda name: GlobalPool(name, kind), f"global_{kind}_pool",
    )  # fmt: skip


FLOAT_OPERATORS: dict[str, Callable[[FloatGraph, TfliteOperator], None]] = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": recurrent,
    "UNIDIRECTIONAL_SEQUENCE_RNN": recurrent,
    "BIDIRECTIONAL_SEQUENCE_LSTM": both,
    "BIDIRECTIONAL_SEQUENCE_RNN": both,
    "FULLY_CONNECTED": dense,
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), arithmetic),
    **dict.fromkeys((*KINDS, "ELU", "LEAKY_RELU"), activation),
    **dict.fromkeys(POOLS, pooled),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), TfliteGraph.reshape),
    "GATHER": embedding,
    "EMBEDDING_LOOKUP": embedding,
    "CAST": cast,
    "STRIDED_SLICE": TfliteGraph.one_step,
    "TRANSPOSE": TfliteGraph.transpose,
    "REVERSE_V2": TfliteGraph.reverse,
    "CONCATENATION": TfliteGraph.concatenation,
}

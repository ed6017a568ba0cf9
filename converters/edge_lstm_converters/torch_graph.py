"""A graph of torch.export as a ModelSpec: what each operator does to the chain of layers.

What changes the meaning and has no layer here is refused by the operator's name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.cells import (
    Activation,
    Bidirectional,
    Dense,
    Embedding,
    Flatten,
    LastStep,
    Lstm,
    PickStep,
    Recurrent,
    Steps,
)
from edge_lstm.cells.activation import Kind
from edge_lstm.spec import ModelSpec
from edge_lstm_converters.float_weights import as_float32
from edge_lstm_converters.pt2_file import ExportedGraph, Open, Ref, Size
from edge_lstm_converters.torch_lstm import Kind as RecurrentKind
from edge_lstm_converters.torch_lstm import torch_recurrent
from edge_lstm_converters.torch_walk import (
    UNIT,
    Axis,
    Constant,
    Final,
    Flow,
    Half,
    Handler,
    Value,
    Walk,
    Zeros,
)
from edge_lstm_converters.torch_window import WINDOW_OPERATORS

END = 2**31  # at least this: slice to the end
INTEGERS = (4, 5)  # int32, int64: token ids


def graph_to_spec(graph: ExportedGraph, where: str, name: str) -> ModelSpec:
    """Return the model that a graph computes.

    Args:
        graph: what torch.export saved.
        where: its file, for messages.
        name: of the model.

    Raises:
        ModelError: an operator that has no counterpart here, by its name; a damaged graph.
    """
    return Walk(graph, where).read(name, {**OPERATORS, **WINDOW_OPERATORS})


# Operators that compute something: each becomes a layer, or is refused.


def _recurrent(kind: RecurrentKind, nonlinearity: str = "tanh") -> Handler:
    def handler(walk: Walk) -> list[Value]:
        if not walk.node.target.endswith(".input"):
            raise walk.refuse(
                "takes packed sequences", "want padded ones; give their lengths apart"
            )
        params = walk.argument("params")
        depth = walk.number("num_layers")
        flow = walk.flow("input")
        if not isinstance(params, list) or not 1 <= depth <= len(params):
            raise walk.refuse(f"has {depth} layers", "want weights for each")
        if len(flow.axes) != 3:
            raise walk.refuse(f"has {len(flow.axes)} axes", "want [batch, time, features]")
        if walk.argument("train") and walk.argument("dropout"):
            raise walk.refuse("has dropout in training", "export model.eval()")
        prefix, weights = _named_weights(walk, params, depth)
        batch, time = (0, 1) if walk.argument("batch_first") else (1, 0)
        walk.set_role(flow.axes[batch], "batch")
        walk.set_role(flow.axes[time], "time")
        if flow.axes[time] == UNIT:
            walk.set_time_steps(1)
        walk.set_role(flow.axes[2], "features")
        taken = [layer.name for layer in walk.layers]
        where = f"{walk.where}: node {walk.node.name!r}"
        layers = torch_recurrent(where, prefix, weights, taken, kind, nonlinearity)
        layers = _with_states(walk, layers, kind)
        features = walk.new_features()
        head = walk.emit(flow, (*flow.axes[:2], features), *layers)
        directions = 2 if isinstance(layers[0], Bidirectional) else 1
        words = ("hidden", "cell") if kind == "lstm" else ("hidden",)
        finals = [
            Final(what, depth, flow.axes[batch], features, walk.version, directions)
            for what in words
        ]
        return [head, *finals]

    return handler


def _named_weights(walk: Walk, params: list[object], depth: int) -> tuple[str, dict[str, Array]]:
    """Return the weights by the names that PyTorch gives them, and their prefix."""
    names = ["weight_ih", "weight_hh"]
    if walk.argument("has_biases"):
        names += ["bias_ih", "bias_hh"]
    directions = ("", "_reverse") if walk.argument("bidirectional") else ("",)
    if len(params) == depth * len(directions) * (len(names) + 1):
        names.append("weight_hr")
    full = [f"{n}_l{k}{d}" for k in range(depth) for d in directions for n in names]
    if len(full) != len(params):
        raise walk.refuse(f"has {len(params)} weights", f"want {len(full)}")
    values = [walk.value(param) for param in params]
    weights = {n: v for n, v in zip(full, values, strict=True) if isinstance(v, Constant)}
    if len(weights) != len(full):
        raise walk.refuse("has computed weights", "want trained ones")
    prefix = next(iter(weights.values())).name.rpartition(".")[0]
    return prefix, {name: weight.values for name, weight in weights.items()}


Layers = tuple[Recurrent | Bidirectional, ...]


def _with_states(walk: Walk, layers: Layers, kind: RecurrentKind) -> Layers:
    """Return the layers with their initial states."""
    states = walk.argument("hx")
    states = states if isinstance(states, list) else [states]
    fields = ("initial_hidden", "initial_cell") if kind == "lstm" else ("initial_hidden",)
    if len(states) != len(fields) or states[0] is None:
        raise walk.refuse("has no initial states", "want h_0, and c_0 of an LSTM")
    directions = 2 if isinstance(layers[0], Bidirectional) else 1
    for field, argument in zip(fields, states, strict=True):
        state = walk.value(argument)
        if isinstance(state, Zeros):
            continue
        if isinstance(state, Flow) and state.version == 0 and state.origin is not None:
            # A state that the caller carries: here the runtime carries it, from zero on.
            walk.state_inputs.add(state.origin)
            continue
        if not isinstance(state, Constant):
            raise walk.refuse(
                f"its {field} is computed", "it must be zeros, a trained weight or an input"
            )
        values = as_float32(f"{walk.where}: {state.name}", state.values)
        first = layers[0].forward_layer if isinstance(layers[0], Bidirectional) else layers[0]
        size = first.output_size
        if field == "initial_cell" and isinstance(first, Lstm):
            size = first.cell_count
        want = (directions * len(layers), size)
        if values.ndim != 3 or (values.shape[0], values.shape[2]) != want:
            raise walk.refuse(f"its {field} has shape {list(values.shape)}", f"want {list(want)}")
        if values.shape[1] == 0 or (values != values[:, :1]).any():
            raise walk.refuse(f"its {field} differs by batch row", "it must be the same for all")
        rows = values[:, 0]
        layers = tuple(
            _with_state(layer, field, rows[directions * k : directions * (k + 1)])
            for k, layer in enumerate(layers)
        )
    return layers


def _with_state(
    layer: Recurrent | Bidirectional, field: str, rows: Array
) -> Recurrent | Bidirectional:
    """Return the layer with a first state in each of its directions."""
    if isinstance(layer, Bidirectional):
        return replace(
            layer,
            forward_layer=replace(layer.forward_layer, **{field: rows[0]}),
            backward_layer=replace(layer.backward_layer, **{field: rows[1]}),
        )
    return replace(layer, **{field: rows[0]})


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
    weight = walk.constant("weight")
    bias = None if walk.argument("bias") is None else walk.value(walk.argument("bias"))
    return [_dense(walk, walk.flow("input"), weight, weight.values, bias)]


def _matmul(walk: Walk) -> list[Value]:
    weight = walk.constant("other" if "other" in walk.node.arguments else "mat2")
    return [_dense(walk, walk.flow(), weight, weight.values.T, None)]


def _addmm(walk: Walk) -> list[Value]:
    if walk.argument("beta", 1) != 1 or walk.argument("alpha", 1) != 1:
        raise walk.refuse("has a beta or alpha", "both must be 1")
    weight = walk.constant("mat2")
    bias = walk.value(walk.argument("self"))
    return [_dense(walk, walk.flow("mat1"), weight, weight.values.T, bias)]


def _add(walk: Walk) -> list[Value]:
    """Add a bias to the Dense layer before it."""
    first, second = walk.value(walk.argument("self")), walk.argument("other")
    swapped = isinstance(first, Constant)
    flow = walk.flow("other" if swapped else "self")
    bias = first if swapped else walk.value(second) if isinstance(second, Ref) else None
    last = walk.layers[-1] if walk.layers else None
    if (
        not isinstance(bias, Constant)
        or not isinstance(last, Dense)
        or last.activation != "none"
        or bias.values.shape != last.bias.shape
        or walk.role(flow.axes[-1]) != "features"
        or walk.argument("alpha", 1) != 1
    ):
        raise walk.refuse("adds what is no bias of a Dense layer", "want a trained vector there")
    values = as_float32(f"{walk.where}: {bias.name}", bias.values)
    walk.layers[-1] = replace(last, bias=last.bias + values)
    return [walk.emit(flow, flow.axes)]


def _embedding(walk: Walk) -> list[Value]:
    weight, flow = walk.constant("weight"), walk.flow("indices")
    if weight.values.ndim != 2:
        raise walk.refuse(f"its weight has shape {list(weight.values.shape)}", "want 2 axes")
    table = as_float32(f"{walk.where}: {weight.name}", weight.values)
    name = walk.name(weight.name.rpartition(".")[0], "embedding")
    return [walk.emit(flow, (*flow.axes, walk.new_features()), Embedding(name, table))]


def _activation(kind: Kind) -> Handler:
    def handler(walk: Walk) -> list[Value]:
        flow = walk.flow("input" if "input" in walk.node.arguments else "self")
        last = walk.layers[-1] if walk.layers else None
        if isinstance(last, Dense) and last.activation == "none" and kind in ("relu", "relu6"):
            walk.layers[-1] = replace(last, activation="relu" if kind == "relu" else "relu6")
            return [walk.emit(flow, flow.axes)]
        prefix = f"{last.name}_{kind}" if isinstance(last, Dense) else kind
        return [walk.emit(flow, flow.axes, Activation(walk.name(prefix, kind), kind))]

    return handler


def _softmax(walk: Walk) -> list[Value]:
    flow = walk.flow()
    axis = walk.axis(flow, "dim")
    walk.set_role(flow.axes[axis], "features")
    return _activation("softmax")(walk)


def _clamp(walk: Walk) -> list[Value]:
    low = walk.argument("min_val", walk.argument("min"))
    high = walk.argument("max_val", walk.argument("max"))
    if walk.node.target.startswith("aten.hardtanh"):
        low, high = walk.argument("min_val", -1.0), walk.argument("max_val", 1.0)
    if low == 0 and high is None:
        return _activation("relu")(walk)
    if low == 0 and high == 6:
        return _activation("relu6")(walk)
    raise walk.refuse(f"bounds {low} and {high}", "want 0 and none (ReLU), or 0 and 6 (ReLU6)")


# Operators that take a part of the values.


def _select(walk: Walk) -> list[Value]:
    value = walk.value(walk.argument("self"))
    if isinstance(value, Zeros):
        return [value]
    if isinstance(value, Final):
        rows = value.layers * value.directions
        index = walk.number("index") % rows
        if walk.number("dim") == 0 and index == rows - 1 and value.directions == 1:
            return [walk.take_hidden(value, (value.batch, value.features))]
        if walk.number("dim") == 0 and index >= rows - 2 and value.directions == 2:
            half = _half(walk, value, index - rows + 2)
            return [half]
        raise walk.refuse(
            f"takes item {walk.argument('index')} of axis {walk.argument('dim')} of the"
            f" {value.what} state",
            "want h_n[-1], the last layer's",
        )
    flow = _viewed(walk)
    axis, index = walk.axis(flow, "dim"), walk.number("index")
    if walk.role(flow.axes[axis]) == "direction":
        others = (*flow.axes[:axis], *flow.axes[axis + 1 :])
        return [Half(others, index % 2, flow.axes[axis], flow.version)]
    axes = (*flow.axes[:axis], *flow.axes[axis + 1 :])
    if flow.axes[axis] == UNIT:
        return [replace(flow, axes=axes)]
    return [_take_last(walk, flow, axis, index, axes)]


def _half(walk: Walk, final: Final, index: int) -> Half:
    """Return one direction's final state; the layer gives both from now on."""
    known = walk.halves.get(final.features)
    if known is None:
        flow = walk.both_hidden(final)
        known = walk.halves[final.features] = flow
    direction, batch, part = known.axes
    return Half((batch, part), index, direction, known.version)


def _cat(walk: Walk) -> list[Value]:
    """Join the two directions' final states."""
    items = walk.argument("tensors")
    values = [walk.value(item) for item in items] if isinstance(items, list) else []
    halves = [value for value in values if isinstance(value, Half)]
    if len(halves) != len(values) or len(halves) != 2:
        raise walk.refuse("joins computed values", "want h_n[-2] and h_n[-1] of one layer")
    first, second = halves
    walk.check_head(first)
    dim = walk.number("dim", 0)
    rank = len(first.axes)
    same = first.axes == second.axes and first.direction == second.direction
    joins = -rank <= dim < rank and walk.role(first.axes[dim % rank]) == "part"
    if not same or not joins or (first.index, second.index) != (0, 1):
        raise walk.refuse("joins states otherwise", "want h_n[-2] then h_n[-1], along features")
    features = walk.new_features()
    axes = [features if i == dim % rank else axis for i, axis in enumerate(first.axes)]
    return [walk.emit(Flow((), walk.version), tuple(axes))]


def _take_last(walk: Walk, flow: Flow, axis: int, index: int, axes: tuple[Axis, ...]) -> Flow:
    """Add a LastStep or PickStep for ``index`` of time."""
    role = walk.role(flow.axes[axis])
    if role != "time":
        what = "an axis that no LSTM has named" if role is None else f"the {role} axis"
        raise walk.refuse(f"takes a part of {what}", "only time steps can be taken")
    steps = walk.info(walk.argument("self")).sizes[axis]
    if index != -1 and index == (steps - 1 if isinstance(steps, int) else None):
        walk.set_time_steps(walk.input_steps())
        index = -1
    if index != -1:
        return walk.emit(flow, axes, PickStep(walk.name("pick_step", "pick_step"), index))
    return walk.emit(flow, axes, LastStep(walk.name("last_step", "last_step")))


def _slice(walk: Walk) -> list[Value]:
    value = walk.value(walk.argument("self"))
    if isinstance(value, Zeros):
        return [value]
    if isinstance(value, Final):
        rows = value.layers * value.directions
        start, dim = walk.argument("start"), walk.number("dim", 0)
        if value.directions == 2 and dim == 0 and start in (-2, rows - 2):
            return [walk.both_hidden(value)]
    flow = _viewed(walk)
    axis = walk.axis(flow, "dim", 0)
    start, end = walk.argument("start"), walk.argument("end")
    size = walk.info(walk.argument("self")).sizes[axis]
    start = 0 if start is None else start
    limit = size if isinstance(size, int) else END
    to_end = end is None or (isinstance(end, int) and end >= limit)
    fixed = isinstance(start, int) and (to_end or isinstance(end, int))
    if walk.argument("step", 1) != 1 or not fixed:
        raise walk.refuse(f"takes {start} to {end} of axis {axis}", "want fixed steps, one by one")
    if start == 0 and to_end:
        return [flow]
    if (to_end and start == -1) or (isinstance(end, int) and end == start + 1 != 0):
        axes = (*flow.axes[:axis], UNIT, *flow.axes[axis + 1 :])
        return [_take_last(walk, flow, axis, start, axes)]
    if walk.role(flow.axes[axis]) != "time":
        raise walk.refuse(f"takes {start} to {end} of axis {axis}", "only time steps can be taken")
    name = walk.name("steps", "steps")
    axes = (*flow.axes[:axis], walk.new_time(), *flow.axes[axis + 1 :])
    return [walk.emit(flow, axes, Steps(name, start, None if to_end else end))]


# Operators that change the order or number of axes and nothing else.


def _viewed(walk: Walk) -> Flow:
    """Return the argument ``self``, which must not be a constant."""
    value = walk.view()
    if not isinstance(value, Flow):
        raise walk.refuse("takes a part of a constant", "want a trained weight whole")
    return value


def _permuted(walk: Walk, order: Callable[[int], Sequence[int]]) -> list[Value]:
    value = walk.view()
    if isinstance(value, Zeros):
        return [value]
    if isinstance(value, Constant):
        perm = order(value.values.ndim)
        _check_order(walk, perm, value.values.ndim)
        return [Constant(value.name, value.values.transpose(tuple(perm)))]
    perm = order(len(value.axes))
    _check_order(walk, perm, len(value.axes))
    return [replace(value, axes=tuple(value.axes[i] for i in perm))]


def _check_order(walk: Walk, order: Sequence[int], rank: int) -> None:
    if sorted(order) != list(range(rank)):
        raise walk.refuse(f"orders axes as {list(order)}", f"the tensor has {rank} axes")


def _permute(walk: Walk) -> list[Value]:
    dims = walk.argument("dims")
    if not isinstance(dims, list) or not all(isinstance(d, int) for d in dims):
        raise walk.refuse(f"dims are {dims!r}", "want fixed numbers")
    return _permuted(walk, lambda rank: [d % rank if -rank <= d < rank else -1 for d in dims])


def _transpose(walk: Walk) -> list[Value]:
    first = walk.number("axis0" if "axis0" in walk.node.arguments else "dim0")
    second = walk.number("axis1" if "axis1" in walk.node.arguments else "dim1")

    def order(rank: int) -> list[int]:
        if not (-rank <= first < rank and -rank <= second < rank):
            return []
        perm = list(range(rank))
        perm[first], perm[second] = perm[second], perm[first]
        return perm

    return _permuted(walk, order)


def _reverse_axes(walk: Walk) -> list[Value]:
    return _permuted(walk, lambda rank: list(range(rank))[::-1])


def _unsqueeze(walk: Walk) -> list[Value]:
    value, dim = walk.view(), walk.number("dim")
    if isinstance(value, Zeros):
        return [value]
    rank = 1 + (value.values.ndim if isinstance(value, Constant) else len(value.axes))
    if not -rank <= dim < rank:
        raise walk.refuse(f"dim = {dim}", f"the result has {rank} axes")
    if isinstance(value, Constant):
        return [Constant(value.name, np.expand_dims(value.values, dim % rank))]
    axes = list(value.axes)
    axes.insert(dim % rank, UNIT)
    return [replace(value, axes=tuple(axes))]


def _squeeze(walk: Walk) -> list[Value]:
    value = walk.view()
    if not isinstance(value, Flow):
        if isinstance(value, Constant):
            raise walk.refuse("drops axes of a weight", "want it whole")
        return [value]
    sizes = walk.info(walk.argument("self")).sizes
    dims = walk.argument("dim", list(range(len(sizes))))
    dims = dims if isinstance(dims, list) else [dims]
    rank = len(value.axes)
    if len(sizes) != rank or not all(isinstance(d, int) and -rank <= d < rank for d in dims):
        raise walk.refuse(f"drops axes {dims}", f"the tensor has {rank} axes")
    axes: list[Axis] = list(value.axes)
    for dim in sorted((d % rank for d in dims), reverse=True):
        if sizes[dim] != 1:
            continue
        role = walk.role(axes[dim])
        if role not in (UNIT, "features"):
            raise walk.refuse(
                f"drops the {role or 'unknown'} axis, of size 1 in the example",
                "export with an example of at least 2 rows and 2 steps",
            )
        del axes[dim]
    return [replace(value, axes=tuple(axes))]


def _reshape(walk: Walk) -> list[Value]:
    """Follow axes through a reshape: kept, joined, parted again, or of size 1."""
    value = walk.view()
    wanted = walk.info(walk.node.outputs[0]).sizes
    if isinstance(value, Zeros):
        return [value]
    if isinstance(value, Constant):
        shape = [n for n in wanted if isinstance(n, int)]
        if len(shape) != len(wanted) or math.prod(shape) != value.values.size:
            raise walk.refuse(
                f"makes [{_text(wanted)}] of a weight", f"it has {value.values.size} values"
            )
        return [Constant(value.name, value.values.reshape(shape))]
    sizes = walk.info(walk.argument("self")).sizes
    axes = _reshaped(walk, value, sizes, wanted)
    if axes is None:
        raise walk.refuse(
            f"makes [{_text(wanted)}] of [{_text(sizes)}]",
            "axes can be kept, joined with their neighbours, or parted as they were joined",
        )
    joined = [i for i, axis in enumerate(axes) if _are(walk, axis, "direction", "part")]
    if joined:
        features = walk.new_features()
        axes = tuple(features if i in joined else axis for i, axis in enumerate(axes))
    flat = [i for i, axis in enumerate(axes) if _are(walk, axis, "time", "features")]
    if not flat:
        return [replace(value, axes=axes)]
    steps = walk.axis_sizes[axes[flat[0]][0]]
    if not isinstance(steps, int):
        raise walk.refuse("joins time and features", "export with a fixed number of time steps")
    walk.set_time_steps(walk.input_steps())
    features = walk.new_features()
    axes = tuple(features if i in flat else axis for i, axis in enumerate(axes))
    return [walk.emit(value, axes, Flatten(walk.name("flatten", "flatten"), steps))]


def _are(walk: Walk, axis: Axis, *roles: str) -> bool:
    """Whether an axis joins axes of these roles, in this order."""
    return isinstance(axis, tuple) and tuple(walk.role(part) for part in axis) == roles


def _reshaped(
    walk: Walk, flow: Flow, sizes: Sequence[Size], wanted: Sequence[Size]
) -> tuple[Axis, ...] | None:
    """Return the axes after a reshape from ``sizes`` to ``wanted``, or None.

    Joined axes are spelled out first, so that only keeping and joining are left. Values keep their
    order in memory, so axes whose sizes agree one after the other are the same axes.
    """
    parts: list[str] = []
    if len(sizes) != len(flow.axes):
        return None
    for axis, size in zip(flow.axes, sizes, strict=True):
        if isinstance(axis, tuple):
            parts += axis
        elif axis != UNIT:
            walk.axis_sizes[axis] = size
            parts.append(axis)
    result: list[Axis] = []
    here = 0
    for size in wanted:
        if here < len(parts) and walk.axis_sizes[parts[here]] == size:
            result.append(parts[here])
            here += 1
        elif size == 1:
            result.append(UNIT)
        else:
            stop = here + 2
            while stop <= len(parts) and not _joins(walk, parts[here:stop], size):
                stop += 1
            if stop > len(parts):
                return None
            result.append(tuple(parts[here:stop]))
            here = stop
    # One feature is one with or without an axis of its own.
    left = [part for part in parts[here:] if walk.axis_sizes[part] != 1]
    left += [part for part in parts[here:] if walk.role(part) != "features"]
    return None if left else tuple(result)


def _joins(walk: Walk, parts: Sequence[str], size: Size) -> bool:
    """Whether the axes together have ``size``, and are open where it is."""
    sizes = [walk.axis_sizes[part] for part in parts]
    product = math.prod(n.example if isinstance(n, Open) else n for n in sizes)
    is_open = any(isinstance(n, Open) for n in sizes)
    if isinstance(size, Open):
        return is_open and product == size.example
    return not is_open and product == size


def _text(sizes: Sequence[Size]) -> str:
    return ", ".join(str(size) if isinstance(size, int) else "?" for size in sizes)


# Operators that change nothing.


def _same(walk: Walk) -> list[Value]:
    value = walk.value(walk.argument("self", walk.argument("input")))
    if isinstance(value, Flow) and (value.version != 0 or value.origin == walk.fed):
        walk.check_head(value)
    if walk.argument("train") and walk.argument("p"):
        raise walk.refuse("drops values, as in training", "export model.eval()")
    dtype = walk.argument("dtype")
    if isinstance(value, Flow) and dtype is not None:
        source = walk.info(walk.argument("self")).dtype
        if source != dtype and not {source, dtype} <= set(INTEGERS):
            raise walk.refuse("changes the type of the values", "want float32 throughout")
    return [value]


def _expand(walk: Walk) -> list[Value]:
    """Repeat a learned initial state for every row of the batch."""
    value = walk.value(walk.argument("self"))
    if isinstance(value, Flow | Final | Half):
        raise walk.refuse("repeats values", "only a trained initial state can be repeated")
    return [value]


def _zeros(walk: Walk) -> list[Value]:
    if walk.argument("fill_value", 0) != 0:
        raise walk.refuse(f"fills with {walk.argument('fill_value')}", "want zeros")
    return [Zeros()]


LAYER_OPERATORS: Mapping[str, Handler] = {
    "aten.lstm": _recurrent("lstm"),
    "aten.gru": _recurrent("gru"),
    "aten.rnn_tanh": _recurrent("rnn"),
    "aten.rnn_relu": _recurrent("rnn", "relu"),
    "aten.cat": _cat,
    "aten.linear": _linear,
    "aten.matmul": _matmul,
    "aten.mm": _matmul,
    "aten.addmm": _addmm,
    "aten.add": _add,
    "aten.embedding": _embedding,
    "aten.relu": _activation("relu"),
    "aten.relu6": _activation("relu6"),
    "aten.sigmoid": _activation("sigmoid"),
    "aten.tanh": _activation("tanh"),
    "aten.softmax": _softmax,
    "aten.hardtanh": _clamp,
    "aten.clamp": _clamp,
}
OPERATORS: Mapping[str, Handler] = {
    **LAYER_OPERATORS,
    "aten._softmax": _softmax,
    "aten.relu_": _activation("relu"),
    "aten.relu6_": _activation("relu6"),
    "aten.sigmoid_": _activation("sigmoid"),
    "aten.tanh_": _activation("tanh"),
    "aten.hardtanh_": _clamp,
    "aten.clamp_": _clamp,
    "aten.clamp_min": _clamp,
    "aten.select": _select,
    "aten.slice": _slice,
    "aten.permute": _permute,
    "aten.transpose": _transpose,
    "aten.swapaxes": _transpose,
    "aten.t": _reverse_axes,
    "aten.numpy_T": _reverse_axes,
    "aten.unsqueeze": _unsqueeze,
    "aten.squeeze": _squeeze,
    "aten.view": _reshape,
    "aten.reshape": _reshape,
    "aten._unsafe_view": _reshape,
    "aten.flatten": _reshape,
    "aten.unflatten": _reshape,
    "aten.contiguous": _same,
    "aten.clone": _same,
    "aten.detach": _same,
    "aten.detach_": _same,
    "aten.alias": _same,
    "aten.to": _same,
    "aten._to_copy": _same,
    "aten.lift_fresh_copy": _same,
    "aten.dropout": _same,
    "aten.dropout_": _same,
    "aten.feature_dropout": _same,
    "aten.alpha_dropout": _same,
    "aten.expand": _expand,
    "aten.repeat": _expand,
    "aten.zeros": _zeros,
    "aten.zeros_like": _zeros,
    "aten.new_zeros": _zeros,
    "aten.full": _zeros,
}

"""Recurrent operators of torch.export: whole layers, and cells that a program runs in a loop.

torch.export unrolls a loop into a cell for each step. Every step's cell with the same weights, fed
the step's values and the state of the step before, is the same layer over the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from edge_lstm.arrays import F32, Array
from edge_lstm.cells import Backward, Bidirectional, Lstm, Recurrent
from edge_lstm_converters.chains import Step, one_direction, same_layer
from edge_lstm_converters.float_weights import as_float32
from edge_lstm_converters.torch_lstm import Kind, torch_recurrent
from edge_lstm_converters.torch_values import (
    UNIT,
    Axis,
    CellState,
    Constant,
    Flow,
    Pick,
    Value,
    Zeros,
    stack_of,
)
from edge_lstm_converters.torch_walk import Handler, Walk

STATE_FIELDS = ("initial_hidden", "initial_cell")


def _layers(kind: Kind, nonlinearity: str = "tanh") -> Handler:
    """Return the handler of torch.nn.LSTM, GRU or RNN."""

    def handler(walk: Walk) -> list[Value]:
        """LSTM, GRU and RNN with every option but packed sequences."""
        if not walk.node.target.endswith(".input"):
            raise walk.refuse(
                "takes packed sequences", "want padded ones; give their lengths apart"
            )
        params = walk.argument("params")
        depth = walk.number("num_layers")
        flow = walk.whole(walk.flow("input"))
        if not isinstance(params, list) or not 1 <= depth <= len(params):
            raise walk.refuse(f"has {depth} layers", "want weights for each")
        if len(flow.axes) != 3:
            raise walk.refuse(f"has {len(flow.axes)} axes", "want [batch, time, features]")
        if walk.argument("train") and walk.argument("dropout"):
            raise walk.refuse("has dropout in training", "export model.eval()")
        prefix, weights = _named_weights(walk, params, depth)
        batch, time = (0, 1) if walk.argument("batch_first") else (1, 0)
        for axis, role in ((batch, "batch"), (time, "time"), (2, "features")):
            walk.set_role(flow.axes[axis], role)
        where = f"{walk.where}: node {walk.node.name!r}"
        layers = torch_recurrent(where, prefix, weights, walk.names, kind, nonlinearity)
        first = layers[0].forward_layer if isinstance(layers[0], Bidirectional) else layers[0]
        directions = 2 if isinstance(layers[0], Bidirectional) else 1
        rows, fed = _first_states(walk, walk.argument("hx"), first, directions * len(layers))
        layers = tuple(_with_rows(k, layer, rows) for k, layer in enumerate(layers))
        if flow.axes[time] == UNIT and not fed:
            walk.set_time_steps(1)
        steps = walk.info(walk.argument("input")).sizes[time]
        last = Pick(flow.axes[time], -1, steps)
        ends = []
        for layer in layers:
            flow = walk.emit(flow, (*flow.axes[:2], walk.new_features()), layer)
            ends.append(flow.step)
        one_step = flow.axes[time] == UNIT and fed and directions == 1
        finals = _finals(walk, ends, flow.axes[batch], None if one_step else last)
        return [flow, *(stack_of(list(parts), 0) for parts in finals[: len(_fields(first))])]

    return handler


def _fields(layer: Recurrent) -> tuple[str, ...]:
    return STATE_FIELDS if isinstance(layer, Lstm) else STATE_FIELDS[:1]


def _finals(
    walk: Walk, ends: list[Step], batch: Axis, last: Pick | None
) -> tuple[list[Flow], list[CellState]]:
    """Return h_n and c_n, a value for each layer and direction."""
    hidden: list[Flow] = []
    cells: list[CellState] = []
    origin = walk.flow("input").origin
    for end in ends:
        axes = (batch, walk.new_features(len(hidden)))
        if not isinstance(end.layer, Bidirectional):
            hidden.append(Flow(axes, end, origin, last, state=True))
            cells.append(CellState(axes, end, last))
            continue
        for index in range(2):
            step = one_direction(end, index)
            assert step is not None
            assert last is not None
            axes = (batch, walk.new_features(len(hidden)))
            pick = replace(last, index=0) if index else last
            hidden.append(Flow(axes, step, origin, pick, state=True))
            cells.append(CellState(axes, step, pick))
    return hidden, cells


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


# First states.


def _first_states(
    walk: Walk, hx: object, layer: Recurrent, count: int
) -> tuple[dict[str, F32], bool]:
    """Return the trained first states, [count, size] each, and whether the graph is fed them.

    Args:
        walk: at the node.
        hx: its argument, a state or a list of them.
        layer: one of the layers, for the sizes.
        count: of layers and directions.
    """
    arguments = hx if isinstance(hx, list) else [hx]
    fields = _fields(layer)
    if len(arguments) != len(fields) or arguments[0] is None:
        raise walk.refuse("has no initial states", "want h_0, and c_0 of an LSTM")
    rows: dict[str, F32] = {}
    fed = []
    for field, argument in zip(fields, arguments, strict=True):
        state = walk.value(argument)
        fed.append(isinstance(state, Flow))
        if isinstance(state, Flow) and state.untouched:
            # A state that the caller carries: here the runtime carries it, from zero on.
            _note_state_input(walk, state)
        elif isinstance(state, Constant):
            is_cell = field == "initial_cell" and isinstance(layer, Lstm)
            size = cast(Lstm, layer).cell_count if is_cell else layer.output_size
            rows[field] = _rows(walk, field, state, count, size)
        elif not isinstance(state, Zeros):
            raise walk.refuse(
                f"its {field} is computed", "it must be zeros, a trained weight or an input"
            )
    if len(set(fed)) > 1:
        raise walk.refuse("is fed one of its two states", "want both from inputs, or none")
    return rows, fed[0]


def _note_state_input(walk: Walk, state: Flow) -> None:
    known = walk.states.setdefault(state.origin, [])
    if any(p is None or state.pick is None or p.same_as(state.pick) for p in known):
        raise walk.refuse(
            f"takes the input {state.origin!r} for a state that has a place already",
            "want an input for each state",
        )
    known.append(state.pick)


def _rows(walk: Walk, field: str, state: Constant, count: int, size: int) -> F32:
    """Return trained first states, [count, size]; they must be the same for every row."""
    values = as_float32(f"{walk.where}: {state.name}", state.values)
    if values.ndim < 3 and count == 1:  # of a cell: [batch, size], or [size]
        values = values.reshape(1, -1, values.shape[-1]) if values.ndim else values
    want = (count, size)
    if values.ndim != 3 or (values.shape[0], values.shape[2]) != want:
        raise walk.refuse(f"its {field} has shape {list(values.shape)}", f"want {list(want)}")
    if values.shape[1] == 0 or (values != values[:, :1]).any():
        raise walk.refuse(f"its {field} differs by batch row", "it must be the same for all")
    return values[:, 0]


def _with_rows(
    number: int, layer: Recurrent | Bidirectional, rows: Mapping[str, F32]
) -> Recurrent | Bidirectional:
    """Return the layer of a stack with its own first states."""
    if isinstance(layer, Bidirectional):
        ahead = {field: values[2 * number] for field, values in rows.items()}
        back = {field: values[2 * number + 1] for field, values in rows.items()}
        return replace(
            layer,
            forward_layer=replace(layer.forward_layer, **ahead),
            backward_layer=replace(layer.backward_layer, **back),
        )
    return replace(layer, **{field: values[number] for field, values in rows.items()})


# Cells.


def _cell(kind: Kind, nonlinearity: str = "tanh") -> Handler:
    """Return the handler of torch.nn.LSTMCell, GRUCell or RNNCell."""

    def handler(walk: Walk) -> list[Value]:
        """LSTMCell, GRUCell and RNNCell: one step after the other, or a model of one step."""
        flow = walk.flow("input")
        if not 1 <= len(flow.axes) <= 2:
            raise walk.refuse(f"is fed {len(flow.axes)} axes", "want [batch, features]")
        if flow.step.vector:
            raise walk.refuse("is fed a result of all steps", "want one step of a sequence")
        if len(flow.axes) == 2:
            walk.set_role(flow.axes[0], "batch")
        walk.set_role(flow.axes[-1], "features")
        if flow.pick is not None:
            walk.set_role(flow.pick.axis, "time")
        hx = walk.argument("hx")
        arguments = hx if isinstance(hx, list) else [hx]
        layer = _cell_layer(walk, kind, nonlinearity)
        before = walk.value(arguments[0])
        if isinstance(before, Flow) and not before.untouched:
            step, pick = before.step, _next_step(walk, flow, before, layer)
            _check_cell_state(walk, arguments, before)
        else:
            step, pick = _first_step(walk, flow, hx, layer)
        axes = (*flow.axes[:-1], walk.new_features())
        hidden = Flow(axes, step, flow.origin, pick, state=True)
        return [hidden, CellState(axes, step, pick)] if kind == "lstm" else [hidden]

    return handler


def _cell_layer(walk: Walk, kind: Kind, nonlinearity: str) -> Recurrent:
    """Return the layer that runs a cell over all steps."""
    names = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}
    given = {name: walk.argument(short) for short, name in names.items()}
    values = {name: walk.value(ref) for name, ref in given.items() if ref is not None}
    weights = {n: v for n, v in values.items() if isinstance(v, Constant)}
    if len(weights) != len(values) or "weight_ih" not in weights:
        raise walk.refuse("has computed weights", "want trained ones")
    prefix = weights["weight_ih"].name.rpartition(".")[0]
    where = f"{walk.where}: node {walk.node.name!r}"
    arrays = {f"{name}_l0": weight.values for name, weight in weights.items()}
    layers = torch_recurrent(where, prefix, arrays, walk.names, kind, nonlinearity)
    if len(layers) != 1 or not isinstance(layers[0], Recurrent):
        raise walk.refuse(f"has the weights {', '.join(weights)}", "want weight_ih and weight_hh")
    return layers[0]


def _first_step(walk: Walk, flow: Flow, hx: object, layer: Recurrent) -> tuple[Step, Pick | None]:
    """Return the layer that starts at this step, and which step of it this is."""
    rows, fed = _first_states(walk, hx, layer, 1)
    layer = replace(layer, **{field: values[0] for field, values in rows.items()})
    pick = flow.pick
    if pick is None:  # a model of one step
        if not fed:
            walk.set_time_steps(1)
        return walk.then(flow.step, layer), None
    if pick.position == 0:
        return walk.then(flow.step, layer), replace(pick, index=-1 if pick.is_last else 0)
    if pick.is_last and isinstance(pick.steps, int):
        # From the last step to the first: the layer that runs backward.
        return walk.then(flow.step, Backward(layer.name, layer)), pick
    raise walk.refuse(f"starts at step {pick.index}", "want a loop from the first step or the last")


def _next_step(walk: Walk, flow: Flow, before: Flow, layer: Recurrent) -> Pick | None:
    """Return which step this is of the layer that gave the state ``before``."""
    known = before.step.layer
    backward = isinstance(known, Backward)
    running = known.layer if isinstance(known, Backward) else known
    here, past = flow.pick, before.pick
    if not isinstance(running, Recurrent) or before.step.parent is not flow.step:
        raise walk.refuse(
            "its state is computed by other layers, or from other values than its input",
            "want each step's state from the step before, and its input from one sequence",
        )
    first = {f: getattr(running, f) for f in _fields(running) if f in _fields(layer)}
    if not same_layer(replace(layer, **first), running):
        raise walk.refuse("has other weights than the step before", "want the same at every step")
    if here is None or past is None or here.axis != past.axis or not isinstance(here.steps, int):
        raise walk.refuse("is fed the same step again", "want the step after, x[:, t]")
    if here.position != past.position + (-1 if backward else 1):
        found = f"step {here.position} follows step {past.position}"
        raise walk.refuse(found, "want steps one after the other, from the first or the last on")
    return replace(here, index=-1 if here.is_last else here.position, counted=False)


def _check_cell_state(walk: Walk, arguments: list[object], before: Flow) -> None:
    """Refuse a cell state that is not of the same step as the hidden state."""
    for argument in arguments[1:]:
        cell = walk.value(argument)
        same = isinstance(cell, CellState) and cell.step is before.step
        if not same or not isinstance(cell, CellState) or cell.pick != before.pick:
            raise walk.refuse(
                "its two states are not of one step", "want (h, c) as the step before gave them"
            )


RECURRENT_OPERATORS: Mapping[str, Handler] = {
    "aten.lstm": _layers("lstm"),
    "aten.gru": _layers("gru"),
    "aten.rnn_tanh": _layers("rnn"),
    "aten.rnn_relu": _layers("rnn", "relu"),
    "aten.lstm_cell": _cell("lstm"),
    "aten.gru_cell": _cell("gru"),
    "aten.rnn_tanh_cell": _cell("rnn"),
    "aten.rnn_relu_cell": _cell("rnn", "relu"),
}

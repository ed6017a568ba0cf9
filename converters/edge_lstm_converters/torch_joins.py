"""Operators of torch.export that bring values together: sums, products, cat, stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from edge_lstm.arrays import F32, Array
from edge_lstm.cells import Dense, Elementwise, Function, Scale
from edge_lstm_converters.float_weights import as_float32
from edge_lstm_converters.torch_values import (
    UNIT,
    CellState,
    Constant,
    Flow,
    Stack,
    Value,
    Zeros,
)
from edge_lstm_converters.torch_walk import Handler, Walk

ZEROS = "zeros"
Operation = Literal["add", "sub", "mul", "div"]


def _arithmetic(operation: Operation, names: tuple[str, str] = ("self", "other")) -> Handler:
    """Return a handler; ``names`` of the arguments, in the order of the operation."""

    def handler(walk: Walk) -> list[Value]:
        """A number or trained vector added or multiplied; two values added or multiplied."""
        if walk.argument("alpha", 1) != 1 or walk.argument("rounding_mode") is not None:
            raise walk.refuse("has an alpha or a rounding mode", "want none")
        values = [_operand(walk, walk.argument(name)) for name in names]
        if any(isinstance(v, Constant) for v in values):
            if isinstance(values[0], Constant) and isinstance(values[1], Constant):
                raise walk.refuse("computes with weights alone", "want them as they were trained")
            tensor = names[1] if isinstance(values[0], Constant) else names[0]
            return [_with_constant(walk, operation, values, tensor)]
        if operation not in ("add", "mul"):
            raise walk.refuse("takes computed values apart", "want a sum or a product of two")
        return [_two(walk, [walk.as_flow(v) for v in values], operation)]

    return handler


def _operand(walk: Walk, argument: object) -> Value:
    if isinstance(argument, int | float) and not isinstance(argument, bool):
        return Constant("a number", np.array(argument, np.float32))
    value = walk.value(argument)
    return Constant(ZEROS, np.zeros((), np.float32)) if isinstance(value, Zeros) else value


def _two(walk: Walk, flows: list[Flow], operation: Operation) -> Flow:
    """Return the sum or product of two values of the same sizes."""
    sizes = [walk.info(walk.argument(name)).sizes for name in ("self", "other")]
    if sizes[0] != sizes[1] or not flows[0].axes:
        raise walk.refuse("repeats one of its values to fit the other", "want the same sizes")
    dims = [
        i
        for i, axes in enumerate(zip(*(f.axes for f in flows), strict=True))
        if all(walk.role(axis) in ("features", None) for axis in axes)
    ]
    # With several axes of unknown meaning: features come last until a layer says otherwise.
    dim = next((i for i in dims if walk.role(flows[0].axes[i]) == "features"), None)
    if dim is None:
        dim = dims[-1] if dims else len(flows[0].axes) - 1
    return walk.joined(flows, "sum" if operation == "add" else "mul", dim)


def _with_constant(walk: Walk, operation: Operation, values: list[Value], tensor: str) -> Flow:
    """Return a value with a number, or a trained value a feature, added to it or multiplied."""
    swapped = isinstance(values[0], Constant)
    constant, other = values if swapped else values[::-1]
    flow = walk.as_flow(other)
    if not isinstance(constant, Constant) or (swapped and operation == "div"):
        raise walk.refuse("divides by computed values", "want a number or trained weights there")
    if walk.info(walk.argument(tensor)).sizes != walk.info(walk.node.outputs[0]).sizes:
        raise walk.refuse("repeats its values to fit a constant", "want the same sizes")
    if constant.name == ZEROS and operation in ("add", "sub") and not swapped:
        return flow
    numbers = as_float32(f"{walk.where}: {constant.name}", _floats(constant.values))
    dim = _feature_axis(walk, flow, numbers)
    row = numbers.reshape(-1)
    one, none = np.ones_like(row), np.zeros_like(row)
    with np.errstate(divide="ignore"):
        factor, offset = {
            "add": (one, row),
            "sub": (-one, row) if swapped else (one, -row),
            "mul": (row, none),
            "div": (np.float32(1) / row, none),
        }[operation]
    if dim is None:
        name = walk.name("scale", "scale")
        function = Function("affine", float(factor[0]), float(offset[0]))
        return walk.emit(flow, flow.axes, Elementwise(name, function))
    walk.set_role(flow.axes[dim], "features")
    if operation == "add":
        biased = _biased(walk, flow, row)
        if biased is not None:
            return biased
    return walk.emit(flow, flow.axes, Scale(walk.name("scale", "scale"), factor, offset))


def _floats(values: Array) -> Array:
    return values.astype(np.float32) if np.issubdtype(values.dtype, np.integer) else values


def _feature_axis(walk: Walk, flow: Flow, numbers: F32) -> int | None:
    """Return which axis of ``flow`` a constant goes along; None: it is one number."""
    wide = [i - numbers.ndim for i, n in enumerate(numbers.shape) if n != 1]
    if not wide and numbers.size == 1 and numbers.ndim <= len(flow.axes):
        return None
    if len(wide) != 1 or numbers.ndim > len(flow.axes):
        raise walk.refuse(
            f"takes a constant of shape {list(numbers.shape)}", "want a value a feature, or one"
        )
    return len(flow.axes) + wide[0]


def _biased(walk: Walk, flow: Flow, row: F32) -> Flow | None:
    """Return the values of the Dense layer before with a bias more, if there is one."""
    last, before = flow.step.layer, flow.step.parent
    if not isinstance(last, Dense) or before is None or last.activation != "none":
        return None
    step = walk.then(before, replace(last, bias=last.bias + row))
    return replace(flow, step=step, state=False)


def _cat(walk: Walk) -> list[Value]:
    """Values joined on their features, steps of time put in a row, states stacked."""
    values = _items(walk)
    if all(isinstance(v, Zeros) for v in values):
        return [Zeros()]
    ranks = {_rank(value) for value in values}
    if len(ranks) != 1 or None in ranks:
        raise walk.refuse("joins values with constants", "want computed values")
    dim = walk.axis(ranks.pop() or 0, default=0)
    if len(values) == 1:
        return [values[0]]
    parts = [_along(value, dim) for value in values]
    if all(part is not None for part in parts):
        flat = [p for part in parts if part is not None for p in part]
        return [walk.stacked(flat, dim)]
    return [walk.joined([walk.as_flow(v) for v in values], "concat", dim)]


def _along(value: Value, dim: int) -> list[Flow | CellState] | None:
    """Return the values that lie along ``dim`` with one index each; None: it is another axis."""
    if isinstance(value, Flow | CellState) and value.axes[dim] == UNIT:
        return [replace(value, axes=(*value.axes[:dim], *value.axes[dim + 1 :]))]
    if isinstance(value, Stack) and value.layout[dim] < 0 and value.parts.ndim == 1:
        taken = [value.taken(dim, k) for k in range(len(value.parts))]
        return [v for v in taken if isinstance(v, Flow | CellState)]
    return None


def _stack(walk: Walk) -> list[Value]:
    """Steps of time in a row, or states stacked."""
    values = _items(walk)
    if all(isinstance(v, Zeros) for v in values):
        return [Zeros()]
    parts = [v for v in values if isinstance(v, Flow | CellState)]
    if len(parts) != len(values) or len({len(v.axes) for v in parts}) != 1:
        raise walk.refuse("stacks values with constants", "want computed values")
    return [walk.stacked(parts, walk.axis(len(parts[0].axes) + 1, default=0))]


def _rank(value: Value) -> int | None:
    """Return how many axes a computed value has."""
    if isinstance(value, Stack):
        return len(value.layout)
    return len(value.axes) if isinstance(value, Flow | CellState) else None


def _items(walk: Walk) -> list[Value]:
    items = walk.argument("tensors")
    if not isinstance(items, list) or not items:
        raise walk.refuse("joins nothing", "want a list of tensors")
    return [walk.value(item) for item in items]


_SUMS: dict[str, Handler] = {
    "aten.add": _arithmetic("add"),
    "aten.sub": _arithmetic("sub"),
    "aten.mul": _arithmetic("mul"),
    "aten.div": _arithmetic("div"),
}
JOIN_OPERATORS: Mapping[str, Handler] = {
    **_SUMS,
    **{f"{word}_": handler for word, handler in _SUMS.items()},
    "aten.rsub": _arithmetic("sub", ("other", "self")),
    "aten.cat": _cat,
    "aten.concat": _cat,
    "aten.stack": _stack,
}

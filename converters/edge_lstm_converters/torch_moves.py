"""Operators of torch.export that move values, take some or pass them on, and compute nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge_lstm.cells import Steps
from edge_lstm_converters.chains import one_direction
from edge_lstm_converters.pt2_file import Size
from edge_lstm_converters.torch_reshape import reshape
from edge_lstm_converters.torch_values import (
    UNIT,
    Axis,
    CellState,
    Constant,
    Flow,
    Pick,
    Stack,
    Value,
    Zeros,
    ZerosView,
)
from edge_lstm_converters.torch_walk import READ_WHOLE, Handler, Walk

END = 2**31  # at least this: slice to the end
COLLECT = "want steps collected in a list, then torch.stack(steps, dim=1)"
INTEGERS = (4, 5)  # int32, int64: token ids


def _moved(walk: Walk) -> Value:
    """Return the argument ``self``, which may be anything but zeros with steps written to them."""
    return walk.value(walk.argument("self"))


def _without(axes: tuple[Axis, ...], dim: int) -> tuple[Axis, ...]:
    return (*axes[:dim], *axes[dim + 1 :])


# Operators that take a part of the values.


def _select(walk: Walk) -> list[Value]:
    """One step of time, one layer's state, one direction."""
    return [_one_index(walk, walk.number("index"))]


def _unbind(walk: Walk) -> list[Value]:
    """Every step of time, or every layer's state, alone."""
    size = _size_of_axis(walk, 0)
    return [_one_index(walk, index) for index in range(size)]


def _size_of_axis(walk: Walk, default: int) -> int:
    sizes = walk.info(walk.argument("self")).sizes
    size = sizes[walk.axis(len(sizes), default=default)]
    if not isinstance(size, int):
        raise walk.refuse("parts an axis of open size", "export with a fixed number of time steps")
    return size


def _one_index(walk: Walk, index: int) -> Value:
    """Return what one index of the axis ``dim`` holds."""
    value = walk.in_memory(walk.argument("self"))
    sizes = walk.info(walk.argument("self")).sizes
    if not sizes:
        raise walk.refuse("takes a part of a number", "want a tensor with axes")
    dim = walk.axis(len(sizes), default=0)
    size = sizes[dim]
    if isinstance(size, int) and not -size <= index < size:
        raise walk.refuse(f"takes index {index} of {size}", "want one that is there")
    if isinstance(value, Zeros):
        value.size = size
        view = ZerosView(whole=value, place=(dim, index % size if isinstance(size, int) else index))
        content = view.content()
        if content is None:
            raise walk.refuse("reads a part of zeros that were written to", READ_WHOLE)
        return content
    if isinstance(value, Stack) and value.layout[dim] < 0:
        return value.taken(dim, index)
    if isinstance(value, Stack):
        return _of_each(value, dim, lambda v, axis: _picked(walk, v, axis, index, size, keep=False))
    return _picked(walk, _part_of(walk, value), dim, index, size, keep=False)


def _of_each(
    stack: Stack, dim: int, take: Callable[[Flow | CellState, int], Flow | CellState]
) -> Stack:
    """Return the parts after one index of their own axis, which is ``dim`` of the whole."""
    axis = stack.layout[dim]
    parts = np.empty(stack.parts.shape, object)
    for place, part in np.ndenumerate(stack.parts):
        parts[place] = take(part, axis)
    others = (*stack.layout[:dim], *stack.layout[dim + 1 :])
    return Stack(parts, tuple(a - (a > axis) for a in others))


def _part_of(walk: Walk, value: Value) -> Flow | CellState:
    if isinstance(value, Constant):
        raise walk.refuse("takes a part of a constant", "want a trained weight whole")
    return value if isinstance(value, CellState) else walk.as_flow(value)


def _picked(
    walk: Walk, flow: Flow | CellState, dim: int, index: int, size: Size, *, keep: bool
) -> Flow | CellState:
    """Return one index of an axis: a step of time, or a direction; ``keep``: the axis stays."""
    axis = flow.axes[dim]
    axes = (*flow.axes[:dim], *((UNIT,) if keep else ()), *flow.axes[dim + 1 :])
    if axis == UNIT:
        return replace(flow, axes=axes)
    role = walk.role(axis)
    if not isinstance(flow, Flow) or role not in (None, "time") or isinstance(axis, tuple):
        what = "several axes in one" if isinstance(axis, tuple) else f"the {role} axis"
        raise walk.refuse(f"takes a part of {what}", "only time steps can be taken")
    if flow.pick is not None:
        raise walk.refuse("takes a part of one step of time", "want its features whole")
    counted = index != -1 and isinstance(size, int) and index == size - 1
    return replace(flow, axes=axes, pick=Pick(axis, index, size, counted))


def _slice(walk: Walk) -> list[Value]:
    """A run of steps or of layers' states; the features of one direction."""
    value = _moved(walk)
    if isinstance(value, Zeros):
        return [value.view()]
    if isinstance(value, Constant):
        raise walk.refuse("takes a part of a constant", "want a trained weight whole")
    sizes = walk.info(walk.argument("self")).sizes
    dim = walk.axis(len(sizes), default=0)
    start, end = walk.argument("start"), walk.argument("end")
    limit = sizes[dim]
    start = 0 if start is None else start
    to_end = end is None or (isinstance(end, int) and end >= _limit(limit))
    fixed = isinstance(start, int) and (to_end or isinstance(end, int))
    if walk.argument("step", 1) != 1 or not fixed:
        raise walk.refuse(
            f"takes {start!r} to {end!r} of axis {dim}", "want fixed steps, one by one"
        )
    return [_run(walk, value, dim, start, None if to_end else end, limit)]


def _limit(size: Size) -> int:
    return size if isinstance(size, int) else END


def _run(
    walk: Walk, value: Value, dim: int, start: int, end: int | None, size: Size
) -> Flow | Stack | CellState:
    """Return what ``start`` to ``end`` of an axis hold; ``end`` None: to the end."""
    if isinstance(value, Stack) and value.layout[dim] < 0:
        taken = value.taken(dim, slice(start, end))
        if isinstance(taken, Stack) and taken.parts.size:
            return taken
        raise walk.refuse(f"takes {start} to {end} of axis {dim}", "which holds nothing")
    flow = _part_of(walk, value)
    if start == 0 and end is None:
        return flow
    if (end is None and start == -1) or (end is not None and end == start + 1 != 0):
        if walk.role(flow.axes[dim]) != "features":
            return _picked(walk, flow, dim, start, size, keep=True)
    elif end is None and isinstance(size, int) and start == size - 1:
        return _picked(walk, flow, dim, start, size, keep=True)
    if isinstance(flow, Flow) and walk.role(flow.axes[dim]) == "features":
        return _direction(walk, flow, dim, start, end, size)
    if not isinstance(flow, Flow) or walk.role(flow.axes[dim]) != "time":
        raise walk.refuse(f"takes {start} to {end} of axis {dim}", "only time steps can be taken")
    name = walk.name("steps", "steps")
    axes = (*flow.axes[:dim], walk.new_time(), *flow.axes[dim + 1 :])
    return walk.emit(flow, axes, Steps(name, start, end))


def _direction(walk: Walk, flow: Flow, dim: int, start: int, end: int | None, size: Size) -> Flow:
    """Return one direction's features of a bidirectional layer."""
    if not isinstance(size, int):
        raise walk.refuse("takes some of an open number of features", "want them all")
    first, last, _ = slice(start, end).indices(size)
    half = size // 2
    halves = ((0, half), (half, 2 * half))
    index = halves.index((first, last)) if (first, last) in halves else None
    step = None if index is None or size % 2 else one_direction(flow.step, index)
    if step is None:
        raise walk.refuse(
            f"takes {start} to {end} of axis {dim}",
            "of features, only one direction's of a bidirectional layer can be taken",
        )
    axes = (*flow.axes[:dim], walk.new_features(index or 0), *flow.axes[dim + 1 :])
    return replace(flow, axes=axes, step=step, state=False)


def _split(walk: Walk) -> list[Value]:
    """Time, states or directions in parts."""
    size = _size_of_axis(walk, 0)
    if "chunks" in walk.node.arguments:
        chunks = walk.number("chunks")
        each = -(-size // chunks) if chunks > 0 else 0
    else:
        sizes = walk.argument("split_sizes", walk.argument("split_size"))
        if isinstance(sizes, list) and all(isinstance(n, int) for n in sizes):
            return _parts(walk, [0, *np.cumsum(sizes).tolist()], size)
        each = sizes if isinstance(sizes, int) else 0
    if each < 1:
        raise walk.refuse("parts an axis into nothing", "want parts of at least 1")
    return _parts(walk, [*range(0, size, each), size], size)


def _parts(walk: Walk, edges: list[int], size: int) -> list[Value]:
    value = _moved(walk)
    if isinstance(value, Zeros):
        return [value.view() for _ in edges[1:]]
    if isinstance(value, Constant):
        raise walk.refuse("takes a part of a constant", "want a trained weight whole")
    rank = len(walk.info(walk.argument("self")).sizes)
    dim = walk.axis(rank, default=0)
    pairs = itertools.pairwise(edges)
    return [_run(walk, value, dim, a, None if b == size else b, size) for a, b in pairs]


# Operators that change the order or number of axes and nothing else.


def _permuted(walk: Walk, order: Callable[[int], Sequence[int]]) -> list[Value]:
    value = _moved(walk)
    if isinstance(value, Zeros):
        return [value.view()]
    rank = len(walk.info(walk.argument("self")).sizes)
    perm = list(order(rank))
    if sorted(perm) != list(range(rank)):
        raise walk.refuse(f"orders axes as {perm}", f"the tensor has {rank} axes")
    if isinstance(value, Constant):
        return [Constant(value.name, value.values.transpose(perm))]
    if isinstance(value, Stack):
        return [value.permuted(perm)]
    assert isinstance(value, Flow | CellState)
    return [replace(value, axes=tuple(value.axes[i] for i in perm))]


def _permute(walk: Walk) -> list[Value]:
    """Axes in another order."""
    dims = walk.argument("dims")
    if not isinstance(dims, list) or not all(isinstance(d, int) for d in dims):
        raise walk.refuse(f"dims are {dims!r}", "want fixed numbers")
    return _permuted(walk, lambda rank: [d % rank if -rank <= d < rank else -1 for d in dims])


def _transpose(walk: Walk) -> list[Value]:
    """Axes in another order."""
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
    """Axes in another order."""
    return _permuted(walk, lambda rank: list(range(rank))[::-1])


def _unsqueeze(walk: Walk) -> list[Value]:
    """A new axis of size 1."""
    value = _moved(walk)
    rank = 1 + len(walk.info(walk.argument("self")).sizes)
    if isinstance(value, Zeros):
        return [value.view()]
    dim = walk.axis(rank)
    if isinstance(value, Constant):
        return [Constant(value.name, np.expand_dims(value.values, dim))]
    if isinstance(value, Stack):
        raise walk.refuse(
            f"works on the states of {value.parts.size} layers at once", "want one of them"
        )
    assert isinstance(value, Flow | CellState)
    return [replace(value, axes=(*value.axes[:dim], UNIT, *value.axes[dim:]))]


def _squeeze(walk: Walk) -> list[Value]:
    """Axes of size 1 dropped."""
    value = _moved(walk)
    if isinstance(value, Zeros):
        return [value.view()]
    if isinstance(value, Constant):
        raise walk.refuse("drops axes of a weight", "want it whole")
    sizes = walk.info(walk.argument("self")).sizes
    rank = len(sizes)
    dims = walk.argument("dim", list(range(rank)))
    dims = dims if isinstance(dims, list) else [dims]
    if not all(isinstance(d, int) and -rank <= d < rank for d in dims):
        raise walk.refuse(f"drops axes {dims}", f"the tensor has {rank} axes")
    gone = sorted({d % rank for d in dims if sizes[d] == 1}, reverse=True)
    for dim in gone:
        if isinstance(value, Stack) and value.layout[dim] < 0:
            value = value.taken(dim, 0)
            continue
        part = _part_of(walk, value)
        role = walk.role(part.axes[dim])
        if role not in (UNIT, "features"):
            raise walk.refuse(
                f"drops the {role or 'unknown'} axis, of size 1 in the example",
                "export with an example of at least 2 rows and 2 steps",
            )
        value = replace(part, axes=_without(part.axes, dim))
    return [value]


# Operators that change nothing.


def _same(walk: Walk) -> list[Value]:
    """Nothing: copies, and dropout outside training."""
    argument = walk.argument("self", walk.argument("input"))
    value = walk.value(argument)
    if walk.argument("train") and walk.argument("p"):
        raise walk.refuse("drops values, as in training", "export model.eval()")
    dtype = walk.argument("dtype")
    if isinstance(value, Flow | Stack | CellState) and dtype is not None:
        source = walk.info(argument).dtype
        if source != dtype and not {source, dtype} <= set(INTEGERS):
            raise walk.refuse("changes the type of the values", "want float32 throughout")
    return [value.view() if isinstance(value, Zeros) else value]


def _expand(walk: Walk) -> list[Value]:
    """A trained initial state for every row."""
    value = _moved(walk)
    same = walk.info(walk.argument("self")).sizes == walk.info(walk.node.outputs[0]).sizes
    if isinstance(value, Flow | Stack | CellState) and not same:
        raise walk.refuse("repeats values", "only a trained initial state can be repeated")
    return [value.view() if isinstance(value, Zeros) else value]


def _zeros(walk: Walk) -> list[Value]:
    """Zeros: first states, or a place for each step."""
    if walk.argument("fill_value", 0) != 0:
        raise walk.refuse(f"fills with {walk.argument('fill_value')!r}", "want zeros")
    return [Zeros()]


def _copy(walk: Walk) -> list[Value]:
    """A step of time written to its place among zeros."""
    target = walk.in_memory(walk.argument("self"))
    value = walk.flow("src")
    same = walk.info(walk.argument("self")).sizes == walk.info(walk.argument("src")).sizes
    if isinstance(target, Constant):
        found = f"writes into the weight or buffer {target.name!r}"
        raise walk.refuse(found, "want a state that is an input, and given back")
    place = target.place if isinstance(target, ZerosView) else None
    if not isinstance(target, ZerosView) or place is None or target.content() is not target:
        raise walk.refuse("writes into a tensor", COLLECT)
    if not same or isinstance(target.whole, ZerosView):
        raise walk.refuse("writes into a part of zeros", COLLECT)
    target.whole.written[place] = value
    return [target]


MOVE_OPERATORS: Mapping[str, Handler] = {
    "aten.select": _select,
    "aten.unbind": _unbind,
    "aten.slice": _slice,
    "aten.split": _split,
    "aten.split_with_sizes": _split,
    "aten.chunk": _split,
    "aten.permute": _permute,
    "aten.transpose": _transpose,
    "aten.swapaxes": _transpose,
    "aten.t": _reverse_axes,
    "aten.numpy_T": _reverse_axes,
    "aten.unsqueeze": _unsqueeze,
    "aten.squeeze": _squeeze,
    "aten.view": reshape,
    "aten.reshape": reshape,
    "aten._unsafe_view": reshape,
    "aten.flatten": reshape,
    "aten.unflatten": reshape,
    "aten.contiguous": _same,
    "aten.detach": _same,
    "aten.detach_": _same,
    "aten.alias": _same,
    "aten.to": _same,
    "aten._to_copy": _same,
    "aten.dropout": _same,
    "aten.dropout_": _same,
    "aten.feature_dropout": _same,
    "aten.alpha_dropout": _same,
    "aten.expand": _expand,
    "aten.repeat": _expand,
}
CREATE_OPERATORS: Mapping[str, Handler] = {
    "aten.clone": _same,
    "aten.lift_fresh_copy": _same,
    "aten.copy_": _copy,
    "aten.zeros": _zeros,
    "aten.zeros_like": _zeros,
    "aten.new_zeros": _zeros,
    "aten.full": _zeros,
}

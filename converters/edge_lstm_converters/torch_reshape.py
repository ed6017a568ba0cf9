"""Reshapes in a graph of torch.export: which axes are the same before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from edge_lstm.cells import Flatten
from edge_lstm_converters.chains import one_direction
from edge_lstm_converters.pt2_file import Open, Size
from edge_lstm_converters.torch_values import (
    UNIT,
    Axis,
    CellState,
    Constant,
    Flow,
    Stack,
    Value,
    Zeros,
    stack_of,
)
from edge_lstm_converters.torch_walk import Walk


def reshape(walk: Walk) -> list[Value]:
    """Axes joined with their neighbours, or parted as they were joined."""
    value = walk.value(walk.argument("self"))
    wanted = list(walk.info(walk.node.outputs[0]).sizes)
    if isinstance(value, Zeros):
        return [value.view()]
    if isinstance(value, Constant):
        shape = [n for n in wanted if isinstance(n, int)]
        if len(shape) != len(wanted) or math.prod(shape) != value.values.size:
            raise walk.refuse(
                f"makes [{_text(wanted)}] of a weight", f"it has {value.values.size} values"
            )
        return [Constant(value.name, value.values.reshape(shape))]
    sizes = list(walk.info(walk.argument("self")).sizes)
    if isinstance(value, Stack) and value.parts.size > 1:
        return [_reshaped_stack(walk, value, sizes, wanted)]
    if isinstance(value, CellState):
        if sizes == wanted:
            return [value]
        ones = [i for i, axis in enumerate(value.axes) if axis == UNIT]
        kept = tuple(axis for axis in value.axes if axis != UNIT)
        if [n for i, n in enumerate(sizes) if i not in ones] == wanted:
            return [replace(value, axes=kept)]
    flow = walk.as_flow(value)
    parted = _parted_directions(walk, flow, sizes, wanted)
    if parted is not None:
        return [parted]
    axes = _reshaped(walk, flow, sizes, wanted)
    if axes is None:
        raise _unlike(walk, sizes, wanted)
    flat = [
        i
        for i, axis in enumerate(axes)
        if isinstance(axis, tuple) and tuple(map(walk.role, axis)) == ("time", "features")
    ]
    if not flat:
        return [replace(flow, axes=axes)]
    steps = walk.axis_sizes[axes[flat[0]][0]]
    if not isinstance(steps, int):
        raise walk.refuse("joins time and features", "export with a fixed number of time steps")
    walk.set_time_steps(walk.input_steps(flow.origin))
    features = walk.new_features()
    axes = tuple(features if i in flat else axis for i, axis in enumerate(axes))
    layer = Flatten(walk.name("flatten", "flatten"), steps)
    return [walk.emit(flow, axes, layer, vector=True)]


def _unlike(walk: Walk, sizes: Sequence[Size], wanted: Sequence[Size]) -> Exception:
    return walk.refuse(
        f"makes [{_text(wanted)}] of [{_text(sizes)}]",
        "axes can be kept, joined with their neighbours, or parted as they were joined",
    )


def _parted_directions(
    walk: Walk, flow: Flow, sizes: list[Size], wanted: list[Size]
) -> Stack | None:
    """Return the two directions of a bidirectional layer, parted on an axis of their own."""
    if not sizes or not isinstance(sizes[-1], int) or walk.role(flow.axes[-1]) != "features":
        return None
    if wanted != [*sizes[:-1], 2, sizes[-1] // 2] or sizes[-1] % 2:
        return None
    parts = []
    for index in range(2):
        step = one_direction(flow.step, index)
        if step is None:
            return None
        axes = (*flow.axes[:-1], walk.new_features(index))
        parts.append(replace(flow, axes=axes, step=step, state=False))
    return stack_of(parts, len(sizes) - 1)


def _reshaped_stack(
    walk: Walk, stack: Stack, sizes: list[Size], wanted: list[Size]
) -> Stack | Flow:
    """Return a Stack with stacking axes parted or joined, or joined with the features."""
    if wanted == sizes:
        return stack
    for i, axis in enumerate(stack.layout):
        split = wanted[i : i + 2]
        parted = [*sizes[:i], *split, *sizes[i + 1 :]]
        if axis < 0 and len(split) == 2 and parted == wanted:
            if not all(isinstance(n, int) for n in split) or math.prod(split) != sizes[i]:
                continue
            shape = stack.parts.shape
            k = ~axis
            parts = stack.parts.reshape(*shape[:k], *split, *shape[k + 1 :])
            layout = [a - 1 if a < 0 and ~a > k else a for a in stack.layout]
            layout[i : i + 1] = [~k, ~(k + 1)]
            return Stack(parts, tuple(layout))
    for i in range(len(sizes)):
        for j in range(i + 2, len(sizes) + 1):
            run = stack.layout[i:j]
            if wanted == [*sizes[:i], _product(sizes[i:j]), *sizes[j:]] and _ends(walk, stack, run):
                return _concatenated(walk, stack, i, j)
    raise _unlike(walk, sizes, wanted)


def _product(sizes: list[Size]) -> int | None:
    fixed = [n for n in sizes if isinstance(n, int)]
    return math.prod(fixed) if len(fixed) == len(sizes) else None


def _ends(walk: Walk, stack: Stack, run: tuple[int, ...]) -> bool:
    """Whether a run of axes is all the stacking axes, then the features."""
    first = stack.parts.flat[0]
    is_features = run[-1] >= 0 and walk.role(first.axes[run[-1]]) == "features"
    return is_features and all(a < 0 for a in run[:-1]) and len(run) == stack.parts.ndim + 1


def _concatenated(walk: Walk, stack: Stack, start: int, stop: int) -> Flow:
    """Return the parts joined on their features, which the axes ``start`` to ``stop`` are."""
    run = stack.layout[start:stop]
    parts = stack.parts.transpose([~a for a in run[:-1]])
    others = [a for a in stack.layout if a >= 0]
    flows = [walk.as_flow(part) for part in parts.flat]
    flows = [replace(flow, axes=tuple(flow.axes[a] for a in others)) for flow in flows]
    return walk.joined(flows, "concat", others.index(run[-1]))


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

"""Operators of torch.export along time, and normalizations: what each does to the chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from edge_lstm.arrays import F32, F64
from edge_lstm.cells import (
    Conv1d,
    Elementwise,
    Function,
    GlobalPool,
    LayerNorm,
    Pool1d,
    Reverse,
    Scale,
)
from edge_lstm.cells.window import Padding
from edge_lstm.spec import Layer
from edge_lstm_converters.float_weights import as_float32
from edge_lstm_converters.layouts import ungrouped
from edge_lstm_converters.torch_values import UNIT, Constant, Flow, Stack, Value
from edge_lstm_converters.torch_walk import Handler, Walk


def _along_time(walk: Walk, flow: Flow) -> Flow:
    """Return values that must be [batch, features, time]."""
    if len(flow.axes) != 3:
        raise walk.refuse(f"is fed {len(flow.axes)} axes", "want [batch, features, time]")
    for axis, role in zip(flow.axes, ("batch", "features", "time"), strict=True):
        walk.set_role(axis, role)
    return walk.whole(flow)


def _vector(walk: Walk, name: str, size: int, default: float) -> F32:
    """Return a weight with a value a feature; absent: ``default``."""
    argument = walk.argument(name)
    if argument is None:
        return np.full(size, default, np.float32)
    value = walk.value(argument)
    if not isinstance(value, Constant) or value.values.shape != (size,):
        raise walk.refuse(f"its {name} is no trained vector", f"want [{size}]")
    return as_float32(f"{walk.where}: {value.name}", value.values)


def _prefix(walk: Walk, name: str) -> str:
    argument = walk.argument(name)
    value = None if argument is None else walk.value(argument)
    return value.name.rpartition(".")[0] if isinstance(value, Constant) else ""


def _one(walk: Walk, name: str, default: int) -> int:
    value = walk.argument(name, default)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    value = default if value == [] else value
    if not isinstance(value, int) or isinstance(value, bool):
        raise walk.refuse(f"{name} is {value!r}", "want one fixed number, along time")
    return value


def _conv1d(walk: Walk) -> list[Value]:
    """Conv1d."""
    if walk.argument("transposed"):
        raise walk.refuse("is a transposed convolution", "want Conv1d")
    flow = _along_time(walk, walk.flow("input"))
    weight = walk.constant("weight")
    if weight.values.ndim != 3:
        raise walk.refuse(f"its weight has shape {list(weight.values.shape)}", "want 3 axes")
    groups = _one(walk, "groups", 1)
    if groups < 1 or len(weight.values) % groups:
        raise walk.refuse(f"has {groups} groups", "want a divisor of its outputs")
    weights = ungrouped(as_float32(f"{walk.where}: {weight.name}", weight.values), groups)
    bias = _vector(walk, "bias", len(weights), 0.0)
    stride, dilation = _one(walk, "stride", 1), _one(walk, "dilation", 1)
    padding = walk.argument("padding", 0)
    total = dilation * (weights.shape[2] - 1)
    # PyTorch's "same": stride 1, and the odd one after, as everywhere.
    pads: Padding
    if padding == "same":
        pads = (total // 2, total - total // 2)
    elif padding == "valid":
        pads = (0, 0)
    else:
        pads = (_one(walk, "padding", 0),) * 2
    name = walk.name(weight.name.rpartition(".")[0], "conv1d")
    layer = Conv1d(name, weights, bias, stride, dilation, pads)
    return [walk.emit(flow, (flow.axes[0], walk.new_features(), walk.new_time()), layer)]


def _pool(kind: Literal["max", "average"]) -> Handler:
    def handler(walk: Walk) -> list[Value]:
        """MaxPool1d and AvgPool1d."""
        flow = _along_time(walk, walk.flow())
        size = _one(walk, "kernel_size", 1)
        stride, pad = _one(walk, "stride", size), _one(walk, "padding", 0)
        if walk.argument("ceil_mode") or _one(walk, "dilation", 1) != 1:
            raise walk.refuse("has ceil_mode or dilation", "want pooling without")
        count = kind == "average" and bool(walk.argument("count_include_pad", True))
        name = walk.name(f"{kind}_pool", f"{kind}_pool")
        layer = Pool1d(name, kind, size, stride, (pad, pad), count)
        return [walk.emit(flow, (*flow.axes[:2], walk.new_time()), layer)]

    return handler


def _adaptive_pool(kind: Literal["max", "average"]) -> Handler:
    def handler(walk: Walk) -> list[Value]:
        """Adaptive pooling to one step."""
        flow = _along_time(walk, walk.flow())
        if _one(walk, "output_size", 1) != 1:
            raise walk.refuse(f"gives {walk.argument('output_size')!r} steps", "want 1")
        layer = GlobalPool(walk.name("pool", "pool"), kind)
        return [walk.emit(flow, (*flow.axes[:2], UNIT), layer, vector=True)]

    return handler


def _over_time(kind: Literal["max", "average", "sum"]) -> Handler:
    def handler(walk: Walk) -> list[Value]:
        """Mean, maximum or sum over time, or over the states of layers."""
        dims = walk.argument("dim")
        dims = dims if isinstance(dims, list) else [dims]
        rank = len(walk.info(walk.argument("self")).sizes)
        if len(dims) != 1 or not isinstance(dims[0], int) or not -rank <= dims[0] < rank:
            raise walk.refuse(f"works along axes {dims}", "want time alone")
        dim = dims[0] % rank
        value = walk.value(walk.argument("self"))
        if isinstance(value, Stack) and value.layout[dim] < 0 and kind != "max":
            return [_combined(walk, value, dim, "sum" if kind == "sum" else "ave")]
        flow = walk.flow()
        if walk.role(flow.axes[dim]) != "time":
            word = walk.role(flow.axes[dim]) or "unknown"
            raise walk.refuse(f"works along the {word} axis", "want time alone")
        kept = (UNIT,) if walk.argument("keepdim") else ()
        axes = (*flow.axes[:dim], *kept, *flow.axes[dim + 1 :])
        layer = GlobalPool(walk.name("pool", "pool"), kind)
        return [walk.emit(flow, axes, layer, vector=True)]

    return handler


def _combined(walk: Walk, stack: Stack, dim: int, merge: Literal["sum", "ave"]) -> Flow:
    """Return the states of several layers or directions added up, or their mean."""
    if stack.parts.ndim != 1 or walk.argument("keepdim"):
        raise walk.refuse("works on states of layers and directions at once", "want one axis")
    parts = [stack.taken(dim, k) for k in range(len(stack.parts))]
    return walk.joined([walk.as_flow(p) for p in parts], merge, len(stack.layout) - 2)


def _layer_norm(walk: Walk) -> list[Value]:
    """LayerNorm over the features."""
    flow = walk.flow("input")
    shape = walk.argument("normalized_shape")
    if not isinstance(shape, list) or len(shape) != 1 or not isinstance(shape[0], int):
        raise walk.refuse(f"works on {shape}", "want the features alone")
    walk.set_role(flow.axes[-1], "features")
    weight = _vector(walk, "weight", shape[0], 1.0)
    bias = _vector(walk, "bias", shape[0], 0.0)
    name = walk.name(_prefix(walk, "weight"), "layer_norm")
    layer = LayerNorm(name, weight, bias, float(walk.argument("eps", 1e-5)))
    return [walk.emit(flow, flow.axes, layer)]


def _batch_norm(walk: Walk) -> list[Value]:
    """BatchNorm1d after training."""
    if walk.argument("training"):
        raise walk.refuse("is in training", "export model.eval()")
    flow = walk.flow("input")
    if len(flow.axes) not in (2, 3):
        raise walk.refuse(f"is fed {len(flow.axes)} axes", "want [batch, features, time]")
    walk.set_role(flow.axes[1], "features")
    mean = walk.constant("running_mean")
    size = mean.values.size
    words = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    weight, bias, average, variance = (
        _vector(walk, word, size, default) for word, default in words.items()
    )
    name = walk.name(mean.name.rpartition(".")[0], "batch_norm")
    epsilon = float(walk.argument("eps", 1e-5))
    layer = batch_norm_scale(name, weight, bias, average, variance, epsilon)
    return [walk.emit(flow, flow.axes, layer)]


def batch_norm_scale(
    name: str, weight: F32, bias: F32, mean: F32, variance: F32, epsilon: float
) -> Scale:
    """Return a batch normalization after training."""
    factor: F64 = weight.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    offset: F64 = bias - mean * factor
    return Scale(name, factor.astype(np.float32), offset.astype(np.float32))


def _flip(walk: Walk) -> list[Value]:
    """Time reversed."""
    flow, dims = walk.flow(), walk.argument("dims")
    rank = len(flow.axes)
    if not isinstance(dims, list) or len(dims) != 1 or not -rank <= dims[0] < rank:
        raise walk.refuse(f"reverses axes {dims}", "want time alone")
    flow = walk.whole(flow)
    axis = flow.axes[dims[0] % rank]
    if walk.role(axis) != "time":
        raise walk.refuse(f"reverses the {walk.role(axis) or 'unknown'} axis", "want time alone")
    return [walk.emit(flow, flow.axes, Reverse(walk.name("reverse", "reverse")))]


def _elementwise(word: str, **arguments: tuple[str, float]) -> Handler:
    """Return a handler; arguments: our name to PyTorch's and its default."""

    def handler(walk: Walk) -> list[Value]:
        """ELU, LeakyReLU and Softplus."""
        flow = walk.flow("input" if "input" in walk.node.arguments else "self")
        values: dict[str, Any] = {
            ours: walk.argument(theirs, default) for ours, (theirs, default) in arguments.items()
        }
        if word == "elu" and (
            walk.argument("scale", 1) != 1 or walk.argument("input_scale", 1) != 1
        ):
            raise walk.refuse("has a scale", "want none")
        if word == "softplus" and walk.argument("beta", 1) != 1:
            raise walk.refuse(f"has beta {walk.argument('beta')!r}", "want 1")
        layer: Layer = Elementwise(walk.name(word, word), Function(word, **values))
        return [walk.emit(flow, flow.axes, layer)]

    return handler


def _hard_sigmoid(walk: Walk) -> list[Value]:
    """Hardsigmoid."""
    flow = walk.flow()
    function = Function("hard_sigmoid", 1 / 6, 0.5)
    layer = Elementwise(walk.name("hard_sigmoid", "hard_sigmoid"), function)
    return [walk.emit(flow, flow.axes, layer)]


WINDOW_OPERATORS: Mapping[str, Handler] = {
    "aten.conv1d": _conv1d,
    "aten.convolution": _conv1d,
    "aten.max_pool1d": _pool("max"),
    "aten.avg_pool1d": _pool("average"),
    "aten.adaptive_avg_pool1d": _adaptive_pool("average"),
    "aten.adaptive_max_pool1d": _adaptive_pool("max"),
    "aten.mean": _over_time("average"),
    "aten.amax": _over_time("max"),
    "aten.max": _over_time("max"),
    "aten.sum": _over_time("sum"),
    "aten.layer_norm": _layer_norm,
    "aten.batch_norm": _batch_norm,
    "aten.flip": _flip,
    "aten.elu": _elementwise("elu", alpha=("alpha", 1.0)),
    "aten.leaky_relu": _elementwise("leaky_relu", alpha=("negative_slope", 0.01)),
    "aten.softplus": _elementwise("softplus"),
    "aten.hardsigmoid": _hard_sigmoid,
}

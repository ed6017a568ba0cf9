"""Folding: the parts of an ONNX graph that do not depend on the data become NumPy arrays.

Shape arithmetic is folded with numbers: the reader gives an unknown batch size or sequence length
a large prime as its value, so that ``Shape``, ``Gather``, ``Mul`` and ``Reshape`` chains become
plain integers that can be recognised again.

Each function gets a node and the values of its inputs, None where one is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from edge_lstm.arrays import Array
from edge_lstm_converters.load_onnx import SIZE_LIMIT, VALUE_LIMIT, Node

Inputs = Sequence[Array | None]


def fold(node: Node, inputs: Inputs) -> list[Array]:
    """Return the outputs of a node of ``FOLDS`` whose inputs are all constants.

    Raises:
        ValueError, IndexError, TypeError …: the inputs do not fit the operator, or are huge.
    """
    count = sum(math.prod(a.shape) for a in inputs if a is not None)
    if count > SIZE_LIMIT and node.op not in ("Shape", "Size"):
        raise ValueError(f"{count:,} constant values; want at most {SIZE_LIMIT:,}")
    with np.errstate(all="ignore"):
        result = FOLDS[node.op](node, inputs)
    # NumPy turns arrays without axes into scalars here and there.
    return [np.asarray(a) for a in (result if isinstance(result, list) else [result])]


def ints(value: Array | None) -> list[int]:
    """Return a constant's values as Python integers."""
    if value is None:
        return []
    if not np.issubdtype(value.dtype, np.integer) or value.size > VALUE_LIMIT:
        raise ValueError(f"{value.dtype} where integers are wanted")
    return [int(v) for v in value.reshape(-1)]


def axes_of(node: Node, inputs: Inputs, position: int = 1) -> list[int] | None:
    """Return the axes of Squeeze or Unsqueeze: an attribute before opset 13, an input after."""
    given = node.get("axes")
    if given is not None:
        return [int(a) for a in given]
    value = inputs[position] if len(inputs) > position else None
    return None if value is None else ints(value)


def slices_of(node: Node, inputs: Inputs) -> list[tuple[int, int, int, int]]:
    """Return (axis, start, end, step) of a Slice: attributes before opset 10, inputs after."""
    if node.get("starts") is not None:
        starts, ends = list(node.get("starts")), list(node.get("ends"))
        axes, steps = list(node.get("axes") or range(len(starts))), [1] * len(starts)
    else:
        given = [ints(a) for a in inputs[1:]] + [[]] * 4
        starts, ends = given[0], given[1]
        axes = given[2] or list(range(len(starts)))
        steps = given[3] or [1] * len(starts)
    if 0 in steps:
        raise ValueError("a step of 0")
    return list(zip(axes, starts, ends, steps, strict=True))


def target_shape(node: Node, inputs: Inputs, shape: Sequence[int]) -> list[int]:
    """Return the shape that a Reshape gives, with 0 and -1 replaced by numbers."""
    given = node.get("shape")
    wanted = ints(inputs[1]) if given is None else [int(v) for v in given]
    if not node.get("allowzero", 0):
        wanted = [shape[i] if v == 0 else v for i, v in enumerate(wanted)]
    if wanted.count(-1) > 1 or min(wanted, default=1) < -1:
        raise ValueError(f"the shape {wanted}")
    if -1 in wanted:
        known = math.prod(v for v in wanted if v != -1)
        total = math.prod(shape)
        if known == 0 or total % known:
            raise ValueError(f"shape {list(shape)} does not divide into {wanted}")
        wanted[wanted.index(-1)] = total // known
    if math.prod(wanted) != math.prod(shape):
        raise ValueError(f"shape {list(shape)} is not as large as {wanted}")
    return wanted


def split_sizes(node: Node, inputs: Inputs, length: int) -> list[int]:
    """Return the sizes that Split cuts an axis of ``length`` into."""
    given = node.get("split")
    if given is None and len(inputs) > 1 and inputs[1] is not None:
        given = ints(inputs[1])
    if given is None:
        count = len(node.outputs)
        part = -(-length // count)
        given = [part] * (count - 1) + [length - part * (count - 1)]
    given = [int(v) for v in given]
    if sum(given) != length or len(given) != len(node.outputs):
        raise ValueError(f"an axis of {length} does not split into {list(given)}")
    return given


def _first(inputs: Inputs) -> Array:
    if not inputs or inputs[0] is None:
        raise ValueError("the first input is missing")
    return inputs[0]


def _bounded(count: int) -> None:
    if count > SIZE_LIMIT:
        raise ValueError(f"{count:,} values; want at most {SIZE_LIMIT:,}")


def _constant(node: Node, inputs: Inputs) -> Array:
    del inputs
    for key in ("value_int", "value_float", "value_ints", "value_floats"):
        if key in node.attributes:
            dtype = np.int64 if "int" in key else np.float32
            return np.array(node.attributes[key], dtype)
    tensor = node.attributes["value"]
    _bounded(math.prod(tensor.dims))
    return numpy_helper.to_array(tensor)


def _shape(node: Node, inputs: Inputs) -> Array:
    shape = np.array(_first(inputs).shape, np.int64)
    return shape[node.get("start", 0) : node.get("end", len(shape))]


def _expand(node: Node, inputs: Inputs) -> Array:
    del node
    x = _first(inputs)
    shape = np.broadcast_shapes(x.shape, tuple(_plausible(ints(inputs[1]))))
    return np.broadcast_to(x, shape)


def _plausible(shape: list[int]) -> list[int]:
    if min(shape, default=0) < 0 or math.prod(shape) > VALUE_LIMIT:
        raise ValueError(f"the shape {shape}")
    return shape


def _constant_of_shape(node: Node, inputs: Inputs) -> Array:
    value = node.get("value")
    fill = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    return np.broadcast_to(fill.reshape(()), tuple(_plausible(ints(_first(inputs)))))


def _gather(node: Node, inputs: Inputs) -> Array:
    x, index = _first(inputs), inputs[1]
    axis = node.get("axis", 0)
    assert index is not None
    _bounded(x.size // max(x.shape[axis], 1) * index.size)
    return np.take(x, index, axis=axis)


def _concat(node: Node, inputs: Inputs) -> Array:
    return np.concatenate([a for a in inputs if a is not None], axis=node.get("axis", 0))


def _slice(node: Node, inputs: Inputs) -> Array:
    x = _first(inputs)
    for axis, start, end, step in slices_of(node, inputs):
        window: list[slice] = [slice(None)] * x.ndim
        last = x.shape[axis]
        # A stop below the first element, which Python cannot write as a number.
        stop = None if step < 0 and end < -last else end
        window[axis] = slice(start, stop, step)
        x = x[tuple(window)]
    return x


def _squeeze(node: Node, inputs: Inputs) -> Array:
    axes = axes_of(node, inputs)
    return np.squeeze(_first(inputs), None if axes is None else tuple(axes))


def _unsqueeze(node: Node, inputs: Inputs) -> Array:
    return np.expand_dims(_first(inputs), tuple(axes_of(node, inputs) or ()))


def _reshape(node: Node, inputs: Inputs) -> Array:
    x = _first(inputs)
    return x.reshape(target_shape(node, inputs, x.shape))


def _flatten(node: Node, inputs: Inputs) -> Array:
    x, axis = _first(inputs), node.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _cast(node: Node, inputs: Inputs) -> Array:
    return _first(inputs).astype(helper.tensor_dtype_to_np_dtype(node.get("to")))


def _tile(node: Node, inputs: Inputs) -> Array:
    x, repeats = _first(inputs), ints(inputs[1])
    _bounded(math.prod(_plausible(repeats)) * max(x.size, 1))
    return np.tile(x, repeats)


def _range(node: Node, inputs: Inputs) -> Array:
    del node
    start, limit, delta = (a.item() for a in inputs if a is not None)
    _bounded(abs(math.ceil((limit - start) / delta)))
    return np.arange(start, limit, delta, dtype=_first(inputs).dtype)


def _split(node: Node, inputs: Inputs) -> list[Array]:
    x, axis = _first(inputs), node.get("axis", 0)
    sizes = split_sizes(node, inputs, x.shape[axis])
    return np.split(x, np.cumsum(sizes)[:-1].tolist(), axis=axis)


def _transpose(node: Node, inputs: Inputs) -> Array:
    return np.transpose(_first(inputs), node.get("perm"))


def _divide(a: Array, b: Array) -> Array:
    if not np.issubdtype(a.dtype, np.integer):
        return np.divide(a, b)
    if not np.all(b):
        raise ValueError("division by 0")
    quotient = np.abs(a) // np.abs(b)  # ONNX truncates, // floors
    return np.asarray(np.sign(a) * np.sign(b) * quotient, a.dtype)


def _elementwise(function: Callable[..., Any]) -> Callable[[Node, Inputs], Array]:
    def run(node: Node, inputs: Inputs) -> Array:
        del node
        arrays = [a for a in inputs if a is not None]
        _bounded(math.prod(np.broadcast_shapes(*(a.shape for a in arrays))))
        return np.asarray(function(*arrays))

    return run


def _reduce_prod(node: Node, inputs: Inputs) -> Array:
    axes = axes_of(node, inputs)
    return np.asarray(
        np.prod(
            _first(inputs),
            axis=None if axes is None else tuple(axes),
            keepdims=bool(node.get("keepdims", 1)),
            dtype=_first(inputs).dtype,
        )
    )


FOLDS: dict[str, Callable[[Node, Inputs], Array | list[Array]]] = {
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_divide),
    "Equal": _elementwise(np.equal),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "Identity": lambda node, inputs: _first(inputs),
    "Less": _elementwise(np.less),
    "Max": _elementwise(np.maximum),
    "Min": _elementwise(np.minimum),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Range": _range,
    "ReduceProd": _reduce_prod,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda node, inputs: np.array(_first(inputs).size, np.int64),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(np.where),
}

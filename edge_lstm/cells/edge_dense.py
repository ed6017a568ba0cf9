"""Dense in the `edge` arithmetic: a scale for each row, one rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal
from weakref import WeakKeyDictionary

import numpy as np

from edge_lstm.arrays import F64, I8, I16, I32, I64, Array
from edge_lstm.cells.activation import Activation
from edge_lstm.cells.dense import Dense
from edge_lstm.cells.edge_columns import columns_of
from edge_lstm.cells.edge_rows import Rows, accumulate, quantize_rows
from edge_lstm.fixed_point import saturate
from edge_lstm.program import Kernel, Op, Program, ProgramBuilder, Range, StatelessKernel
from edge_lstm.spec import Layer
from edge_lstm.tape import SET, Call, Parameter, Tape, clip, compile_tape

SIGMOID_END = math.log(255.0)
"""Where a sigmoid reaches 255/256."""


@dataclass(frozen=True, eq=False, repr=False)
class EdgeDenseOp(Op):
    """Dense of the `edge` profile.

    Args:
        weights: int8 [output, input].
        bias: int32 [output].
        multipliers: int16 [output].
        shift: behind the multiplication.
        low: least output, where ReLU cuts.
        high: greatest output.
    """

    type_name: ClassVar[str] = "edge_dense"

    weights: I8
    bias: I32
    multipliers: I16
    shift: int
    low: int
    high: int

    @property
    def rows(self) -> Rows:
        """The rows; Dense is never packed in pairs."""
        return Rows(self.weights, self.bias, self.multipliers, self.shift)

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del program
        return EdgeDenseKernel(self, batch_size)


_FOLDED: WeakKeyDictionary[EdgeDenseOp, F64] = WeakKeyDictionary()


def _folded(op: EdgeDenseOp) -> F64:
    """Return weights and bias times the multipliers, [input + 1, output], for all sessions."""
    if op not in _FOLDED:
        rows = op.rows
        columns = np.column_stack([rows.effective_weights(), rows.bias])
        factors = rows.multipliers * 2.0**-op.shift
        _FOLDED[op] = np.ascontiguousarray((columns * factors[:, None]).T)
    return _FOLDED[op]


class EdgeDenseKernel(StatelessKernel):
    """One sum, one rounding, one clamp; a step of it exact in float64, in few calls."""

    def __init__(self, op: EdgeDenseOp, batch_size: int) -> None:
        self.op, self.rows = op, op.rows
        output, inputs = op.weights.shape
        fed, y = np.ones((batch_size, inputs + 1)), np.empty((batch_size, output))
        limits = np.array(float(op.low)), np.array(float(op.high))
        self.result = y
        self.tape: Tape = [
            (SET, (fed[:, :-1], Parameter("x"))),
            (fed.dot, (_folded(op), y)),
            (np.floor, (y, y)),
            (clip, (y, *limits, y)),
        ]
        self.last: Call = (y.astype, (np.dtype(np.int8),))
        self._step = compile_tape(self.tape, ["x"], result=self.last)

    def step(self, x: Array) -> Array:
        """Return the output for one step: int8 or int16 [batch, input] to int8 [batch, output]."""
        y: Array = self._step(x)
        return y

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the output, int8 [..., output]."""
        del lengths
        value = self.rows.requantize(accumulate(self.rows, inputs[0]))
        return saturate(value, self.op.low, self.op.high).astype(np.int8)


def told_by_sigmoid(layers: tuple[Layer, ...], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the ranges, with a Dense's in front of a sigmoid cut to what 8 bits of it tell.

    Beyond its greatest value, 255/256, a sigmoid's output stays: what is left has finer steps.
    """
    known = dict(ranges)
    for dense, behind in pairwise(layers):
        name = f"{dense.name}.output"
        is_sigmoid = isinstance(behind, Activation) and behind.kind == "sigmoid"
        if is_sigmoid and isinstance(dense, Dense) and name in known:
            seen = known[name]
            low, high = max(seen.low, -SIGMOID_END), min(seen.high, SIGMOID_END)
            known[name] = replace(seen, low=min(low, high), high=max(low, high))
    return known


def quantize_edge_dense(layer: Dense, builder: ProgramBuilder, source: int) -> int:
    """Add a float Dense to a Program of the `edge` profile."""
    value = builder.tensors[source]
    output = builder.activation(f"{layer.name}.output", layer.output_signal(value.signal))
    tensor = builder.tensors[output]
    weights = layer.weights.astype(np.float64)
    rows = quantize_rows(
        weights,
        layer.bias.astype(np.float64),
        columns_of(builder, value),
        np.full(len(weights), 1 / tensor.scale),
        tensor.zero_point,
        f"layer {layer.name!r}",
        paired=False,
    )
    bounds: dict[Literal["none", "relu", "relu6"], tuple[float, float]] = {
        "none": (-128, 127),
        "relu": (tensor.zero_point, 127),
        "relu6": (tensor.zero_point, tensor.zero_point + 6 / tensor.scale),
    }
    low, high = bounds[layer.activation]
    return builder.add_op(
        EdgeDenseOp(
            name=layer.name,
            inputs=(source,),
            output=output,
            weights=rows.weights,
            bias=rows.bias,
            multipliers=rows.multipliers,
            shift=rows.shift,
            low=max(-128, round(low)),
            high=min(127, round(high)),
        )
    )

"""LSTM in the `edge` arithmetic: how it is quantized, and one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edge_lstm.arrays import F64, I8, I16, I32, I64, Array
from edge_lstm.cells.edge_columns import (
    HIDDEN_SCALE,
    hidden_of,
    recurrent_columns,
)
from edge_lstm.cells.edge_rows import (
    ARGUMENT_ONE,
    Rows,
    accumulate,
    quantize_rows,
    sigmoid_of,
    tanh_of,
)
from edge_lstm.cells.lstm import Lstm
from edge_lstm.fixed_point import saturate, saturate_s8, saturate_s16
from edge_lstm.program import Kernel, Op, Program, ProgramBuilder, Tensor
from edge_lstm.spec import FloatRun, check_shape

CELL_BITS_MAX = 12
CELL_BITS_CUT = 3
"""How many integer bits of a cell state may be given up for finer steps."""
WORTH_A_BIT = 1.25
"""How many times less the mean square error of few sequences must be to cut one."""
Shifts = tuple[int, int]
"""``input_shift`` and ``hidden_shift``."""
SHIFT_MAX = 8


@dataclass(frozen=True, eq=False, repr=False)
class EdgeRecurrentOp(Op):
    """What the recurrent cells of the `edge` profile hold; activations are [input, hidden].

    Args:
        weights: int8 [rows, input + hidden].
        bias: int32 [rows].
        multipliers: int16 [rows].
        shift: behind the multiplication.
        high_shift: where rows are packed in pairs, that of rows 0, 2, 4 ...; 0: they are not.
        input_size: columns of the input.
        input_shift: the input is multiplied by ``2**input_shift``, so that its weights and those
            of the hidden state share a scale.
        hidden_shift: likewise for the hidden state, beside 16-bit inputs.
    """

    weights: I8
    bias: I32
    multipliers: I16
    shift: int
    high_shift: int
    input_size: int
    input_shift: int
    hidden_shift: int

    @property
    def rows(self) -> Rows:
        """The rows of all gates."""
        return Rows(self.weights, self.bias, self.multipliers, self.shift, self.high_shift)

    @property
    def hidden_size(self) -> int:
        """Number of units."""
        return int(self.weights.shape[1]) - self.input_size

    def activations(self, x: Array, hidden: Array) -> I64:
        """Return the vector that the rows multiply, [batch, input + hidden]."""
        parts = [
            x.astype(np.int64) << self.input_shift,
            hidden.astype(np.int64) << self.hidden_shift,
        ]
        return np.concatenate(parts, axis=1)

    def derived(self, program: Program) -> dict[str, object]:
        del program
        return {
            "shifts": self.rows.shifts(),
            "argument_format": "sigmoid argument in steps of 2**-14, 18 bits",
            "gate_format": "Q0.15 int16",
            "table": "128 segments of 2**11 steps, word = value << 16 | slope",
        }


@dataclass(frozen=True, eq=False, repr=False)
class EdgeLstmOp(EdgeRecurrentOp):
    """LSTM of the `edge` profile; rows are i, f, g, o of a unit, unit after unit.

    Args:
        cell_bits: integer bits of the cell state, whose scale is ``2**(cell_bits - 15)``.
        initial_hidden: int8 [hidden].
        initial_cell: int16 [hidden].
    """

    type_name: ClassVar[str] = "edge_lstm"

    cell_bits: int
    initial_hidden: I8
    initial_cell: I16

    def __post_init__(self) -> None:
        hidden = self.hidden_size
        check_shape(self.name, "weights", self.weights, (4 * hidden, self.input_size + hidden))
        check_shape(self.name, "bias", self.bias, (4 * hidden,))
        check_shape(self.name, "multipliers", self.multipliers, (4 * hidden,))

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        from edge_lstm.cells.edge_lstm_fast import FastEdgeLstmKernel

        wide = program.tensors[self.inputs[0]].dtype != "int8"
        return FastEdgeLstmKernel(self, batch_size, wide=wide)


class EdgeLstmKernel:
    """One step of the `edge` LSTM, line by line as the C does it."""

    def __init__(self, op: EdgeLstmOp, batch_size: int) -> None:
        self.op, self.rows = op, op.rows
        self.hidden = np.empty((batch_size, op.hidden_size), np.int8)
        self.cell = np.empty((batch_size, op.hidden_size), np.int16)

    def reset(self) -> None:
        """Set hidden and cell state to their first values."""
        self.hidden[...] = self.op.initial_hidden
        self.cell[...] = self.op.initial_cell

    @property
    def state(self) -> dict[str, Array]:
        """Hidden state int8 and cell state int16, ``[batch, hidden]``; a copy."""
        return {"hidden": self.hidden.copy(), "cell": self.cell.copy()}

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Set the state."""
        self.hidden[...] = state["hidden"]
        self.cell[...] = state["cell"]

    def step(self, x: Array) -> Array:
        """Run one step: ``x`` [batch, input] to int8 [batch, hidden]."""
        op = self.op
        acc = accumulate(self.rows, op.activations(x, self.hidden))
        argument = self.rows.requantize(acc).reshape(len(x), op.hidden_size, 4)
        entrance, forget = sigmoid_of(argument[..., 0]), sigmoid_of(argument[..., 1])
        candidate, exit_ = tanh_of(argument[..., 2]), sigmoid_of(argument[..., 3])
        added = (entrance * candidate) >> op.cell_bits
        cell = saturate_s16((forget * self.cell + added + (1 << 14)) >> 15)
        # The argument of tanh(c) is 2c in steps of 2**-14.
        squashed = tanh_of(cell << op.cell_bits)
        self.cell[...] = cell
        self.hidden[...] = saturate_s8((exit_ * squashed + (1 << 22)) >> 23)
        return self.hidden.copy()

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return every step's hidden state, int8 [batch, time, hidden]."""
        del lengths  # a row's state past its end is never read
        (x,) = inputs
        return np.stack([self.step(x[:, t]) for t in range(x.shape[1])], axis=1)


class RecurrentRows:
    """The rows of a recurrent layer over [input, hidden], with the shifts that suit them best.

    A row's scale is that of its largest weight, in units of the activations. A shift makes the
    units of one block smaller until that block is not the one that decides; rounding errors of
    the other block shrink, its own grow. 16-bit inputs fill their words, so that with them the
    hidden state is shifted. All are tried; rows packed in pairs, which run faster, come first.

    Args:
        builder: of the Program.
        source: the input.
        name: of the layer.
        weights: real, [rows, input + hidden].
        bias: real, [rows].
        gain: steps of the result in 1.0, [rows].
        paired: pack the rows in pairs where the sums allow it.
        error: of rows and shifts, what to choose by; None: the mean error of the sums.
    """

    def __init__(
        self,
        builder: ProgramBuilder,
        source: Tensor,
        name: str,
        weights: F64,
        bias: F64,
        gain: F64,
        *,
        paired: bool,
        error: Callable[[Rows, Shifts], float] | None = None,
    ) -> None:
        self.where = f"layer {name!r}"
        best = (True, math.inf)
        hidden = weights.shape[1] - source.signal.size
        for shift in range(SHIFT_MAX + 1):
            shifts = (shift, 0) if source.dtype == "int8" else (0, shift)
            columns = recurrent_columns(builder, source, name, hidden, shifts)
            alone = columns.apart()
            rows = quantize_rows(weights, bias, alone, gain, 0.0, self.where, paired=paired)
            found = rows.error(weights, columns, gain) if error is None else error(rows, shifts)
            rank = (rows.paired != paired, found)
            if shift == 0 or rank < best:
                best, self.shifts, self.columns = rank, shifts, columns

    def quantized(
        self, columns: slice, weights: Array, bias: Array, gain: F64, *, paired: bool
    ) -> Rows:
        """Quantize rows over some of the columns."""
        part = self.columns.part(columns)
        return quantize_rows(weights, bias, part, gain, 0.0, self.where, paired=paired)


def hidden_tensor(builder: ProgramBuilder, name: str, hidden_size: int) -> int:
    """Add the output of a recurrent `edge` layer: int8, 1/128, zero point 0."""
    return builder.add_tensor(hidden_of(name, hidden_size))


def row_fields(rows: Rows, input_size: int, shifts: Shifts) -> dict[str, Any]:
    """Return the fields of an EdgeRecurrentOp that its rows and shifts decide."""
    return {
        "weights": rows.weights,
        "bias": rows.bias,
        "multipliers": rows.multipliers,
        "shift": rows.shift,
        "high_shift": rows.high_shift,
        "input_size": input_size,
        "input_shift": shifts[0],
        "hidden_shift": shifts[1],
    }


def quantize_edge_lstm(layer: Lstm, builder: ProgramBuilder, source: int) -> int:
    """Add a float LSTM to a Program of the `edge` profile."""
    if layer.variants:
        raise layer.not_in_int8(f"an LSTM with {' and '.join(layer.variants)}")
    value = builder.tensors[source]
    hidden, features = layer.hidden_size, layer.input_size
    input_weights = np.stack([g.input_weights for g in layer.gates], axis=1)
    recurrent = np.stack([g.recurrent_weights for g in layer.gates], axis=1)
    bias = np.stack([g.bias for g in layer.gates], axis=1).astype(np.float64).reshape(-1)
    weights = np.concatenate([input_weights, recurrent], axis=2).astype(np.float64)
    # tanh(z) = 2 sigmoid(2z) - 1
    gain = np.tile([1.0, 1.0, 2.0, 1.0], hidden) * ARGUMENT_ONE
    flat = weights.reshape(4 * hidden, features + hidden)
    peak = max(builder.range(f"{layer.name}.cell_state").magnitude, 2.0**-20)
    cell_bits = min(max(math.ceil(math.log2(peak)), 0), CELL_BITS_MAX)
    first_hidden = np.zeros(hidden) if layer.initial_hidden is None else layer.initial_hidden
    first_cell = np.zeros(hidden) if layer.initial_cell is None else layer.initial_cell
    hidden_integers = saturate(np.rint(first_hidden / HIDDEN_SCALE), -128, 127).astype(np.int8)
    output = hidden_tensor(builder, layer.name, hidden)

    def op_of(rows: Rows, shifts: Shifts, bits: int = cell_bits) -> EdgeLstmOp:
        cell_integers = saturate_s16(np.rint(first_cell * 2.0 ** (15 - bits))).astype(np.int16)
        return EdgeLstmOp(
            name=layer.name,
            inputs=(source,),
            output=output,
            **row_fields(rows, features, shifts),
            cell_bits=bits,
            initial_hidden=hidden_integers,
            initial_cell=cell_integers,
        )

    tried = None
    seen = builder.ranges.get(value.name)
    sample = None if seen is None else seen.sample
    if sample is not None:
        x, want = value.quantize(sample), layer.forward(sample, FloatRun(len(sample)))
        if value.dtype == "int16":

            def tried(rows: Rows, shifts: Shifts) -> float:
                return _error(op_of(rows, shifts), x, want)

    paired = value.dtype == "int8"
    fed = RecurrentRows(builder, value, layer.name, flat, bias, gain, paired=paired, error=tried)
    rows = fed.quantized(slice(None), flat, bias, gain, paired=paired)
    if sample is not None:
        seen_bits = cell_bits

        # A cell state that is cut where tanh has long reached 1 may gain by the finer steps.
        def rank(bits: int) -> float:
            return _error(op_of(rows, fed.shifts, bits), x, want) * WORTH_A_BIT ** (
                seen_bits - bits
            )

        cell_bits = min(range(seen_bits, max(seen_bits - CELL_BITS_CUT, 0) - 1, -1), key=rank)
    return builder.add_op(op_of(rows, fed.shifts, cell_bits))


def _error(op: EdgeLstmOp, x: Array, want: F64) -> float:
    """Return the mean square error of what an op gives for ``x``, [batch, time, input].

    The error of a sum would say little of 16-bit inputs, which often span decades: that of the
    hidden state's weights stays through the quiet steps, and the cell gathers it.
    """
    from edge_lstm.cells.edge_lstm_fast import FastEdgeLstmKernel

    kernel = FastEdgeLstmKernel(op, len(x), wide=True)
    kernel.reset()
    return float(np.square(kernel.run([x], None) * HIDDEN_SCALE - want).mean())

"""GRU and plain RNN in the `edge` arithmetic.

The hidden state is kept in Q0.15 where the update reads it, and in Q0.7 where the rows do:
``h += z * ...`` moves by less than a 128th. The candidate's two sums, where the reset comes
after the product, meet in Q3.12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_lstm.arrays import I8, I16, I32, I64, Array
from edge_lstm.cells.edge_lstm import (
    EdgeRecurrentOp,
    RecurrentRows,
    hidden_tensor,
    row_fields,
)
from edge_lstm.cells.edge_rows import (
    ARGUMENT_ONE,
    Rows,
    accumulate,
    sigmoid_of,
    tanh_of,
)
from edge_lstm.cells.functions import SIGMOID, TANH
from edge_lstm.cells.gru import Gru
from edge_lstm.cells.rnn import Rnn
from edge_lstm.errors import UnsupportedModel
from edge_lstm.fixed_point import saturate, saturate_s8, saturate_s16
from edge_lstm.program import Kernel, Program, ProgramBuilder

CANDIDATE_ONE = 2.0**12
"""Steps of the candidate's two halves in 1.0: Q3.12."""


@dataclass(frozen=True, eq=False, repr=False)
class EdgeGruOp(EdgeRecurrentOp):
    """GRU of the `edge` profile; the rows are z and r of a unit, unit after unit.

    Args:
        reset_after: whether r multiplies the recurrent product or the hidden state.
        candidate_weights: int8 [hidden, input], or [hidden, input + hidden] where the reset comes
            before the product.
        candidate_bias: int32 [hidden].
        candidate_multipliers: int16 [hidden].
        candidate_shift: behind the multiplication.
        candidate_high_shift: as ``high_shift``.
        recurrent_weights: int8 [hidden, hidden] of the candidate, or None.
        recurrent_bias: int32 [hidden].
        recurrent_multipliers: int16 [hidden].
        recurrent_shift: behind the multiplication.
        recurrent_high_shift: as ``high_shift``.
        initial_hidden: int16 [hidden], Q0.15.
    """

    type_name: ClassVar[str] = "edge_gru"

    reset_after: bool
    candidate_weights: I8
    candidate_bias: I32
    candidate_multipliers: I16
    candidate_shift: int
    candidate_high_shift: int
    initial_hidden: I16
    recurrent_weights: I8 | None = None
    recurrent_bias: I32 | None = None
    recurrent_multipliers: I16 | None = None
    recurrent_shift: int = 0
    recurrent_high_shift: int = 0

    @property
    def candidate_rows(self) -> Rows:
        """The candidate's rows over the input, or over both."""
        return Rows(
            self.candidate_weights,
            self.candidate_bias,
            self.candidate_multipliers,
            self.candidate_shift,
            self.candidate_high_shift,
        )

    @property
    def recurrent_rows(self) -> Rows:
        """The candidate's rows over the hidden state, with ``reset_after``."""
        assert self.recurrent_weights is not None
        assert self.recurrent_bias is not None
        assert self.recurrent_multipliers is not None
        return Rows(
            self.recurrent_weights,
            self.recurrent_bias,
            self.recurrent_multipliers,
            self.recurrent_shift,
            self.recurrent_high_shift,
        )

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del program
        return EdgeGruKernel(self, batch_size)


@dataclass(frozen=True, eq=False, repr=False)
class EdgeRnnOp(EdgeRecurrentOp):
    """Plain RNN with tanh of the `edge` profile.

    Args:
        initial_hidden: int16 [hidden], Q0.15.
    """

    type_name: ClassVar[str] = "edge_rnn"

    initial_hidden: I16

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del program
        return EdgeRnnKernel(self, batch_size)


def narrowed(hidden: I64) -> I64:
    """Return a hidden state of Q0.15 in Q0.7, rounded."""
    return saturate_s8((hidden + 128) >> 8)


class _HiddenKernel:
    """What GRU and RNN share: a hidden state in Q0.15, [batch, hidden]."""

    def __init__(self, op: EdgeGruOp | EdgeRnnOp, batch_size: int) -> None:
        self.first = op.initial_hidden
        self.hidden = np.empty((batch_size, op.hidden_size), np.int64)

    def reset(self) -> None:
        """Set the hidden state to its first value."""
        self.hidden[...] = self.first

    @property
    def state(self) -> dict[str, Array]:
        """Hidden state in Q0.15, int16 ``[batch, hidden]``; a copy."""
        return {"hidden": self.hidden.astype(np.int16)}

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Set the state."""
        self.hidden[...] = state["hidden"]

    def step(self, x: Array) -> Array:
        """Run one step: ``x`` [batch, input] to int8 [batch, hidden]."""
        raise NotImplementedError

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return every step's hidden state, int8 [batch, time, hidden]."""
        del lengths  # a row's state past its end is never read
        (x,) = inputs
        return np.stack([self.step(x[:, t]) for t in range(x.shape[1])], axis=1)


class EdgeGruKernel(_HiddenKernel):
    """One step of the `edge` GRU, line by line as the C does it."""

    def __init__(self, op: EdgeGruOp, batch_size: int) -> None:
        super().__init__(op, batch_size)
        self.op, self.rows, self.candidate = op, op.rows, op.candidate_rows
        self.recurrent = op.recurrent_rows if op.reset_after else None

    def step(self, x: Array) -> Array:
        """Run one step: ``x`` [batch, input] to int8 [batch, hidden]."""
        op, hidden = self.op, self.hidden
        narrow = narrowed(hidden)
        acc = accumulate(self.rows, op.activations(x, narrow))
        argument = self.rows.requantize(acc).reshape(len(x), op.hidden_size, 2)
        update, reset = sigmoid_of(argument[..., 0]), sigmoid_of(argument[..., 1])
        if self.recurrent is None:
            kept = saturate_s8((reset * hidden + (1 << 22)) >> 23)
            acc = accumulate(self.candidate, op.activations(x, kept))
            squashed = tanh_of(self.candidate.requantize(acc))
        else:
            shifted = op.activations(x, narrow)
            fresh, kept = shifted[:, : op.input_size], shifted[:, op.input_size :]
            from_input = self.candidate.requantize(accumulate(self.candidate, fresh))
            from_hidden = self.recurrent.requantize(accumulate(self.recurrent, kept))
            gated = (reset * saturate_s16(from_hidden) + (1 << 14)) >> 15
            total = saturate_s16(from_input) + gated
            # Twice the value in steps of 2**-14, from Q3.12.
            squashed = tanh_of(total << 3)
        moved = (update * (hidden - squashed) + (1 << 14)) >> 15
        self.hidden[...] = saturate_s16(squashed + moved)
        return narrowed(self.hidden).astype(np.int8)


class EdgeRnnKernel(_HiddenKernel):
    """One step of the `edge` RNN."""

    def __init__(self, op: EdgeRnnOp, batch_size: int) -> None:
        super().__init__(op, batch_size)
        self.op, self.rows = op, op.rows

    def step(self, x: Array) -> Array:
        """Run one step: ``x`` [batch, input] to int8 [batch, hidden]."""
        acc = accumulate(self.rows, self.op.activations(x, narrowed(self.hidden)))
        self.hidden[...] = tanh_of(self.rows.requantize(acc))
        return narrowed(self.hidden).astype(np.int8)


def _first_hidden(initial: Array | None, size: int) -> I16:
    values = np.zeros(size) if initial is None else initial
    return saturate(np.rint(values * 2.0**15), -32768, 32767).astype(np.int16)


def quantize_edge_gru(layer: Gru, builder: ProgramBuilder, source: int) -> int:
    """Add a float GRU to a Program of the `edge` profile."""
    if layer.functions != (SIGMOID, TANH) or layer.clip is not None:
        raise UnsupportedModel(
            f"layer {layer.name!r} (gru): has functions of its own or a clip; GRU in profile edge"
            " must have sigmoid, tanh and no clip; convert with --quant float32 --to onnx"
        )
    value = builder.tensors[source]
    hidden, features = layer.hidden_size, layer.input_size
    inputs = np.stack([g.input_weights for g in layer.gates]).astype(np.float64)
    recurrents = np.stack([g.recurrent_weights for g in layer.gates]).astype(np.float64)
    bias = np.stack([g.bias for g in layer.gates]).astype(np.float64)
    both = np.concatenate([inputs, recurrents], axis=2)
    flat = both[:2].swapaxes(0, 1).reshape(2 * hidden, -1)
    gain = np.full(2 * hidden, ARGUMENT_ONE)
    paired = value.dtype == "int8"
    even = paired and hidden % 2 == 0
    gate_bias = bias[:2].T.reshape(-1)
    fed = RecurrentRows(builder, value, layer.name, flat, gate_bias, gain, paired=paired)
    gates = fed.quantized(slice(None), flat, gate_bias, gain, paired=paired)
    recurrent, gain = None, np.full(hidden, CANDIDATE_ONE)
    if layer.reset_after:
        part = slice(None, features)
        candidate = fed.quantized(part, inputs[2], bias[2], gain, paired=even)
        extra = layer.candidate_recurrent_bias
        recurrent_bias = np.zeros(hidden) if extra is None else extra
        part = slice(features, None)
        recurrent = fed.quantized(part, recurrents[2], recurrent_bias, gain, paired=even)
    else:
        gain = np.full(hidden, 2 * ARGUMENT_ONE)
        candidate = fed.quantized(slice(None), both[2], bias[2], gain, paired=even)
    return builder.add_op(
        EdgeGruOp(
            name=layer.name,
            inputs=(source,),
            output=hidden_tensor(builder, layer.name, hidden),
            **row_fields(gates, features, fed.shifts),
            reset_after=layer.reset_after,
            candidate_weights=candidate.weights,
            candidate_bias=candidate.bias,
            candidate_multipliers=candidate.multipliers,
            candidate_shift=candidate.shift,
            candidate_high_shift=candidate.high_shift,
            initial_hidden=_first_hidden(layer.initial_hidden, hidden),
            recurrent_weights=None if recurrent is None else recurrent.weights,
            recurrent_bias=None if recurrent is None else recurrent.bias,
            recurrent_multipliers=None if recurrent is None else recurrent.multipliers,
            recurrent_shift=0 if recurrent is None else recurrent.shift,
            recurrent_high_shift=0 if recurrent is None else recurrent.high_shift,
        )
    )


def quantize_edge_rnn(layer: Rnn, builder: ProgramBuilder, source: int) -> int:
    """Add a float RNN with tanh to a Program of the `edge` profile."""
    if layer.function != TANH or layer.clip is not None:
        raise UnsupportedModel(
            f"layer {layer.name!r} (rnn): has another function than tanh, or a clip; RNN in"
            " profile edge must have tanh and no clip; convert with --quant float32 --to onnx"
        )
    value = builder.tensors[source]
    hidden, features = layer.hidden_size, layer.input_size
    blocks = (layer.gate.input_weights, layer.gate.recurrent_weights)
    flat = np.concatenate(blocks, axis=1).astype(np.float64)
    gain = np.full(hidden, 2 * ARGUMENT_ONE)
    paired = value.dtype == "int8" and hidden % 2 == 0
    bias = layer.gate.bias.astype(np.float64)
    fed = RecurrentRows(builder, value, layer.name, flat, bias, gain, paired=paired)
    rows = fed.quantized(slice(None), flat, bias, gain, paired=paired)
    return builder.add_op(
        EdgeRnnOp(
            name=layer.name,
            inputs=(source,),
            output=hidden_tensor(builder, layer.name, hidden),
            **row_fields(rows, features, fed.shifts),
            initial_hidden=_first_hidden(layer.initial_hidden, hidden),
        )
    )

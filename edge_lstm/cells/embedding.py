"""Embedding: a row of a table for each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_lstm.arrays import F32, F64, I64, Array
from edge_lstm.cells.quantize_op import QuantizeOp
from edge_lstm.program import (
    Kernel,
    Op,
    Program,
    ProgramBuilder,
    Range,
    StatelessKernel,
    Tensor,
    asymmetric_scale,
)
from edge_lstm.spec import FloatRun, Layer, Signal


@dataclass(frozen=True, eq=False, repr=False)
class Embedding(Layer):
    """Looks tokens up.

    Args:
        table: [tokens, features].
    """

    table: F32

    def output_signal(self, signal: Signal) -> Signal:
        if signal.kind != "tokens" or signal.size != len(self.table):
            raise self._refuse(
                f"is fed {signal}", f"Embedding must be fed token ids below {len(self.table)}"
            )
        return Signal("sequence", int(self.table.shape[1]))

    def forward(self, x: F64, run: FloatRun) -> F64:
        y = self.table.astype(np.float64)[x.astype(np.int64)]
        run.note(f"{self.name}.output", y)
        return y

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        # The whole table's range, not only that of the tokens that calibration met.
        values = Range(float(self.table.min()), float(self.table.max()))
        signal = self.output_signal(builder.tensors[source].signal)
        if builder.activation_dtype == "int16":
            # No runtime gathers int16; as weights, the rows are int8 in any case.
            scale, zero_point = asymmetric_scale(values, f"layer {self.name!r}, table")
            rows = Tensor(f"{self.name}.output", signal, "int8", scale, zero_point)
            looked_up = builder.add_tensor(rows)
            builder.add_op(EmbeddingOp(self.name, (source,), looked_up, rows.quantize(self.table)))
            wide = f"{self.name}_wide"
            output = builder.activation(f"{wide}.output", signal, values)
            return builder.add_op(QuantizeOp(wide, (looked_up,), output))
        output = builder.activation(f"{self.name}.output", signal, values)
        table = builder.tensors[output].quantize(self.table)
        return builder.add_op(EmbeddingOp(self.name, (source,), output, table))


@dataclass(frozen=True, eq=False, repr=False)
class EmbeddingOp(Op):
    """GATHER from a table in the output's scale.

    Args:
        table: int8 or int16 [tokens, features].
    """

    type_name: ClassVar[str] = "embedding"

    table: Array

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del program, batch_size
        return EmbeddingKernel(self)


class EmbeddingKernel(StatelessKernel):
    """GATHER."""

    def __init__(self, op: EmbeddingOp) -> None:
        self.table = op.table

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the rows, [batch, time, features]."""
        del lengths
        return self.table[inputs[0]]

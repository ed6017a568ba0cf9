"""MUL: two values multiplied element by element, such as a gate and what it lets through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_lstm.arrays import I64, Array
from edge_lstm.cells.dense import FusedActivation, activation_bounds
from edge_lstm.cells.lstm_integer import TFLITE_PROFILES
from edge_lstm.cells.quantize_op import refuse_int16_of_tflite_runtime
from edge_lstm.fixed_point import quantize_multiplier, requantize, saturate
from edge_lstm.program import Kernel, Op, Program, StatelessKernel


@dataclass(frozen=True, eq=False, repr=False)
class MulOp(Op):
    """MUL of two values of one shape.

    Args:
        activation: fused: bounds of the output.
    """

    type_name: ClassVar[str] = "mul"

    activation: FusedActivation = "none"

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del batch_size
        return MulKernel(self, program)

    def derived(self, program: Program) -> dict[str, object]:
        kernel = MulKernel(self, program)
        if kernel.xnnpack:
            return {"float32_factor": float(kernel.ratio)}
        return {"factor": list(kernel.factor)}


class MulKernel(StatelessKernel):
    """MUL as the profile's runtime rounds it; int16 by the reference kernel everywhere.

    Mirrors: reference_integer_ops::Mul (TFLite, TFLM); xnn_qs8_vmul for the profile litert.
    """

    def __init__(self, op: MulOp, program: Program) -> None:
        self.sources = [program.tensors[index] for index in op.inputs]
        self.output = program.tensors[op.output]
        self.low, self.high = activation_bounds(self.output, op.activation)
        refuse_int16_of_tflite_runtime(op, program)
        left, right = (np.float32(source.scale) for source in self.sources)
        # TFLite divides floats, TFLM doubles.
        self.ratio = left * right / np.float32(self.output.scale)
        exact = self.sources[0].scale * self.sources[1].scale / self.output.scale
        double = program.profile not in TFLITE_PROFILES
        self.factor = quantize_multiplier(exact if double else float(self.ratio))
        self.xnnpack = program.uses_xnnpack and self.output.dtype == "int8"

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the product, of the inputs' shape."""
        del lengths
        left, right = (
            x.astype(np.int64) - source.zero_point
            for x, source in zip(inputs, self.sources, strict=True)
        )
        product = left * right
        if self.xnnpack:
            # To nearest, ties to even.
            scaled = np.rint(product.astype(np.float32) * self.ratio).astype(np.int64)
        else:
            scaled = requantize(product, self.factor)
        total = scaled + self.output.zero_point
        return saturate(total, self.low, self.high).astype(self.output.dtype)

"""ADD and SUB: two values of their own scales, such as the halves of a Bidirectional that sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_lstm.arrays import I64, Array
from edge_lstm.cells.dense import FusedActivation, activation_bounds
from edge_lstm.cells.quantize_op import refuse_int16_of_tflite_runtime
from edge_lstm.errors import UnsupportedModel
from edge_lstm.fixed_point import quantize_multiplier, requantize, saturate, shift_right_ties_up
from edge_lstm.program import Kernel, Op, Program, StatelessKernel

# XNNPACK takes ratios of input to output scale in this range; below, TFLite's own kernel runs.
XNNPACK_RATIOS = (2.0**-10, 2.0**8)
HEADROOM = {"int8": 20, "int16": 15}  # left shift before the inputs are brought to one scale


@dataclass(frozen=True, eq=False, repr=False)
class AddOp(Op):
    """ADD of two values of one shape.

    Args:
        activation: fused: bounds of the output.
    """

    type_name: ClassVar[str] = "add"
    sign: ClassVar[int] = 1
    """Of the second value."""

    activation: FusedActivation = "none"

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del batch_size
        return AddKernel(self, program)

    def derived(self, program: Program) -> dict[str, object]:
        kernel = AddKernel(self, program)
        if kernel.right:
            return {"weights": kernel.weights, "right_shift": kernel.right}
        return {
            "left_shift": kernel.headroom,
            "input_factors": [list(factor) for factor in kernel.factors],
            "output_factor": list(kernel.factor),
        }


@dataclass(frozen=True, eq=False, repr=False)
class SubOp(AddOp):
    """SUB: the second of two values taken from the first."""

    type_name: ClassVar[str] = "sub"
    sign: ClassVar[int] = -1


class AddKernel(StatelessKernel):
    """ADD or SUB as the profile's runtime rounds it; int16 by the reference kernel everywhere.

    Mirrors: reference_integer_ops::Add, reference_ops::SubElementwise (TFLite, TFLM);
    xnn_qs8_vadd and xnn_qs8_vsub for the profile litert.
    """

    def __init__(self, op: AddOp, program: Program) -> None:
        self.sources, self.sign = [program.tensors[index] for index in op.inputs], op.sign
        self.output = program.tensors[op.output]
        self.low, self.high = activation_bounds(self.output, op.activation)
        refuse_int16_of_tflite_runtime(op, program)
        # All three are float32 scales; the kernels divide them in double.
        scales = [source.scale for source in self.sources]
        self.headroom, twice = HEADROOM[self.output.dtype], 2 * max(scales)
        self.factors = [quantize_multiplier(scale / twice) for scale in scales]
        self.factor = quantize_multiplier(twice / (2**self.headroom * self.output.scale))
        ratios = np.array(scales, np.float32) / np.float32(self.output.scale)
        low, high = XNNPACK_RATIOS
        xnnpack = program.uses_xnnpack and self.output.dtype == "int8"
        if xnnpack and ratios.max() >= high:
            raise UnsupportedModel(
                f"layer {op.name!r}: {op.type_name.upper()} makes values {ratios.max():.0f} times"
                " finer, which is not computed here as profile litert does; load with litert-ref"
                " or tflm"
            )
        self.right = 0
        if xnnpack and ratios.min() >= low:
            # 20 fractional bits for the larger input.
            self.right = 21 - int(np.frexp(ratios.max())[1])
            self.weights = np.rint(np.ldexp(ratios.astype(np.float64), self.right)).astype(np.int64)
            self.weights[1] *= self.sign

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the sum or the difference, of the inputs' shape."""
        del lengths
        left, right = (
            x.astype(np.int64) - source.zero_point
            for x, source in zip(inputs, self.sources, strict=True)
        )
        if self.right:
            total = shift_right_ties_up(
                left * self.weights[0] + right * self.weights[1], self.right
            )
        else:
            unit = 1 << self.headroom
            total = requantize(
                requantize(left * unit, self.factors[0])
                + self.sign * requantize(right * unit, self.factors[1]),
                self.factor,
            )
        return saturate(total + self.output.zero_point, self.low, self.high).astype(
            self.output.dtype
        )

"""QUANTIZE and DEQUANTIZE: where a file's floats become integers and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_lstm.arrays import I64, Array
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.fixed_point import quantize_multiplier, requantize, round_half_away, saturate
from edge_lstm.program import Kernel, Op, Program, StatelessKernel


@dataclass(frozen=True, eq=False, repr=False)
class QuantizeOp(Op):
    """QUANTIZE: float32 to int8, or int8 to int8 of another scale."""

    type_name: ClassVar[str] = "quantize"

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del batch_size
        if program.tensors[self.inputs[0]].dtype == "float32":
            return QuantizeKernel(self, program)
        if program.profile == "litert":
            raise UnsupportedModel(
                f"layer {self.name!r}: QUANTIZE from int8 to int8 has no counterpart in profile"
                " litert (XNNPACK rounds it in a way of its own); load with litert-ref or tflm"
            )
        return RequantizeKernel(self, program)


class QuantizeKernel(StatelessKernel):
    """QUANTIZE of float32.

    Mirrors: AffineQuantize (TFLite, TFLM); XNNPACK's convert for the profile litert.
    """

    def __init__(self, op: QuantizeOp, program: Program) -> None:
        self.output, self.profile = program.tensors[op.output], program.profile

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the integers, of the input's shape."""
        del lengths
        scale = np.float32(self.output.scale)
        values = inputs[0].astype(np.float32)
        if np.isnan(values).any():
            count = int(np.isnan(values).sum())
            raise UsageError(f"tensor {self.output.name!r}: {count} values are NaN")
        if self.profile == "litert":
            whole = np.rint(values * (np.float32(1) / scale))
        elif self.profile == "tflite-runtime":
            whole = round_half_away(values.astype(np.float64) / float(scale))
        else:
            whole = round_half_away(values / scale)
        info = np.iinfo(self.output.dtype)
        # Bounded while still a float: a cast of a huge float to an integer is undefined.
        low, high = info.min - self.output.zero_point, info.max - self.output.zero_point
        q: Array = np.clip(whole, low, high).astype(np.int64) + self.output.zero_point
        return q.astype(self.output.dtype)


class RequantizeKernel(StatelessKernel):
    """QUANTIZE of integers: the same values in another scale.

    Mirrors: Requantize (TFLite reference_ops, TFLM).
    """

    def __init__(self, op: QuantizeOp, program: Program) -> None:
        self.source, self.output = program.tensors[op.inputs[0]], program.tensors[op.output]
        # The runtimes divide two floats and keep the quotient as a double.
        self.factor = quantize_multiplier(float(self.source.scale) / float(self.output.scale))

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the integers, of the input's shape."""
        del lengths
        centred = inputs[0].astype(np.int64) - self.source.zero_point
        info = np.iinfo(self.output.dtype)
        q = requantize(centred, self.factor) + self.output.zero_point
        return saturate(q, int(info.min), int(info.max)).astype(self.output.dtype)


@dataclass(frozen=True, eq=False, repr=False)
class DequantizeOp(Op):
    """DEQUANTIZE: int8 or int16 to float32."""

    type_name: ClassVar[str] = "dequantize"

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del batch_size
        return DequantizeKernel(self, program)


class DequantizeKernel(StatelessKernel):
    """DEQUANTIZE, alike in every runtime."""

    def __init__(self, op: DequantizeOp, program: Program) -> None:
        self.source = program.tensors[op.inputs[0]]

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return float32, of the input's shape."""
        del lengths
        return self.source.dequantize(inputs[0])

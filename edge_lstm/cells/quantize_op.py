"""QUANTIZE and DEQUANTIZE: where a file's floats become integers and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_lstm.arrays import I64, Array
from edge_lstm.cells.lstm_integer import TFLITE_PROFILES
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.fixed_point import (
    Factor,
    multiply_and_shift,
    quantize_multiplier,
    requantize,
    requantize_ties_up,
    round_half_away,
    saturate,
)
from edge_lstm.program import Kernel, Op, Program, StatelessKernel


@dataclass(frozen=True, eq=False, repr=False)
class QuantizeOp(Op):
    """QUANTIZE: float32 to int8 or int16, or those to another scale."""

    type_name: ClassVar[str] = "quantize"

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del batch_size
        refuse_int16_of_tflite_runtime(self, program)
        dtypes = {program.tensors[index].dtype for index in (*self.inputs, self.output)}
        if "float32" in dtypes:
            if "int16" in dtypes and program.profile in TFLITE_PROFILES:
                raise UnsupportedModel(
                    f"layer {self.name!r}: QUANTIZE of floats to int16 is not computed here as"
                    f" profile {program.profile} does; load with tflm or cmsis-nn"
                )
            return QuantizeKernel(self, program)
        return RequantizeKernel(self, program)

    def derived(self, program: Program) -> dict[str, object]:
        kernel = self.prepare(program, 1)
        if isinstance(kernel, RequantizeKernel):
            rounding = "one rounding, ties up"
            if kernel.rounder is requantize:
                rounding = "two roundings, ties up, then away"
            elif kernel.rounder is requantize_ties_up:
                rounding = "two roundings, ties up"
            return {"factor": list(kernel.factor), "rounding": rounding}
        if program.profile == "litert":
            return {"rounding": "float32 product with 1 / scale, ties to even"}
        if program.profile == "tflite-runtime":
            return {"rounding": "float64 quotient by scale, ties away from zero"}
        return {"rounding": "float32 quotient by scale, ties away from zero"}


def refuse_int16_of_tflite_runtime(op: Op, program: Program) -> None:
    """Raise UnsupportedModel where tflite-runtime, which has other kernels, would run int16."""
    dtypes = {program.tensors[index].dtype for index in (*op.inputs, op.output)}
    if "int16" in dtypes and program.profile == "tflite-runtime":
        raise UnsupportedModel(
            f"layer {op.name!r}: {op.type_name.upper()} with int16 is not computed here as profile"
            " tflite-runtime does; load with tflm or litert"
        )


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


# XNNPACK takes ratios of scales from 2^-8 to 2^7 only; the rest is left to TFLite's own kernel.
XNNPACK_RATIOS = (2.0**-8, 2.0**7)


class RequantizeKernel(StatelessKernel):
    """QUANTIZE of integers: the same values in another scale.

    Mirrors: Requantize (TFLite reference_ops, TFLM); xnn_qs8_vcvt for the profile litert.
    """

    def __init__(self, op: QuantizeOp, program: Program) -> None:
        self.source, self.output = program.tensors[op.inputs[0]], program.tensors[op.output]
        # The runtimes divide two floats and keep the quotient as a double.
        self.factor = quantize_multiplier(float(self.source.scale) / float(self.output.scale))
        ratio = np.float32(self.source.scale) / np.float32(self.output.scale)
        self.rounder: Callable[[Array, Factor], I64] = requantize
        # XNNPACK and the optimized kernel take int8 only.
        if program.profile == "litert" and self.source.dtype == self.output.dtype == "int8":
            low, high = XNNPACK_RATIOS
            self.rounder = requantize_ties_up  # TFLite's optimized kernel on x86
            if program.uses_xnnpack and low <= ratio <= high:
                # The factor is cut to 8 fractional bits, ties to even.
                self.factor = Factor(int(np.rint(np.float32(256) * ratio)), 23)
                self.rounder = multiply_and_shift

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the integers, of the input's shape."""
        del lengths
        centred = inputs[0].astype(np.int64) - self.source.zero_point
        info = np.iinfo(self.output.dtype)
        q = self.rounder(centred, self.factor) + self.output.zero_point
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

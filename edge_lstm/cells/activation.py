"""Activations as layers: sigmoid, tanh, softmax, ReLU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from edge_lstm import activations
from edge_lstm.arrays import F32, F64, I64, Array
from edge_lstm.cells.activation_s16 import (
    OUTPUT_SCALE,
    scale_quotient,
    softmax_s16,
    table_s16,
)
from edge_lstm.cells.functions import sigmoid
from edge_lstm.cells.lstm_integer import TFLITE_PROFILES
from edge_lstm.errors import UnsupportedModel
from edge_lstm.fixed_point import (
    I32_MAX,
    Factor,
    quantize_multiplier,
    requantize,
    round_half_away,
    rounding_divide_by_pot,
    saturate,
    saturate_s8,
    saturating_rounding_doubling_high_mul,
    wrap32,
)
from edge_lstm.program import Kernel, Op, Program, ProgramBuilder, StatelessKernel, Tensor
from edge_lstm.spec import FloatRun, Layer, Signal

Kind = Literal["sigmoid", "tanh", "softmax", "relu", "relu6"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_FIXED_OUTPUT: dict[str, tuple[float, int]] = {
    "sigmoid": (1 / 256, -128),
    "softmax": (1 / 256, -128),
    "tanh": (1 / 128, 0),
}


def fixed_output(kind: str, dtype: str) -> tuple[float, int] | None:
    """Return scale and zero point that TFLite demands, or by convention has; None: any."""
    if kind not in _FIXED_OUTPUT:
        return None
    return (OUTPUT_SCALE, 0) if dtype == "int16" else _FIXED_OUTPUT[kind]


@dataclass(frozen=True, eq=False, repr=False)
class Activation(Layer):
    """One activation, elementwise; softmax over the last axis."""

    kind: Kind

    @property
    def type_name(self) -> str:
        return self.kind

    def output_signal(self, signal: Signal) -> Signal:
        if signal.kind == "tokens":
            raise self._refuse(f"is fed {signal}", "an activation must be fed numbers")
        return signal

    def forward(self, x: F64, run: FloatRun) -> F64:
        y = activate(self.kind, x)
        run.note(f"{self.name}.output", y)
        return y

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        value = builder.tensors[source]
        name = f"{self.name}.output"
        fixed = fixed_output(self.kind, value.dtype)
        if fixed is not None:
            output = builder.add_tensor(Tensor(name, value.signal, value.dtype, *fixed))
        else:
            # The same scale on both sides makes ReLU exact in every runtime; TFLM's RELU6
            # does not rescale at all.
            output = builder.add_tensor(
                Tensor(name, value.signal, value.dtype, value.scale, value.zero_point)
            )
        return builder.add_op(ActivationOp(self.name, (source,), output, self.kind))


def activate(kind: str, x: F64) -> F64:
    """Return an activation in float64."""
    if kind == "sigmoid":
        return sigmoid(x)
    if kind == "tanh":
        return np.tanh(x)
    if kind == "softmax":
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        y: F64 = e / e.sum(axis=-1, keepdims=True)
        return y
    return np.clip(x, 0.0, 6.0 if kind == "relu6" else None)


@dataclass(frozen=True, eq=False, repr=False)
class ActivationOp(Op):
    """LOGISTIC, TANH, SOFTMAX, RELU or RELU6 in integers.

    Args:
        kind: which.
        beta: of softmax.
    """

    type_name: ClassVar[str] = "activation"

    kind: Kind
    beta: float = 1.0

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del batch_size
        return ActivationKernel(self, program)

    def derived(self, program: Program) -> dict[str, object]:
        kernel = ActivationKernel(self, program)
        if kernel.table is not None:
            size = len(kernel.table)
            return {
                "table_format": f"{size} entries, output at input + {size // 2}",
                "table": kernel.table.astype(kernel.output.dtype),
            }
        if kernel.wide or program.profile in ("litert", "tflite-runtime"):
            return {"softmax_argument_scale": program.tensors[self.inputs[0]].scale * self.beta}
        factor, least = softmax_factor(program.tensors[self.inputs[0]].scale, self.beta)
        return {"softmax_factor": list(factor), "softmax_least_difference": least}


class ActivationKernel(StatelessKernel):
    """An activation: a table of all 256 inputs where it is elementwise."""

    def __init__(self, op: ActivationOp, program: Program) -> None:
        self.op, self.profile = op, program.profile
        self.source, self.output = program.tensors[op.inputs[0]], program.tensors[op.output]
        self.wide = self.source.dtype == "int16"
        if self.wide and not _runs_wide(op.kind, self.source.scale, program.profile):
            raise UnsupportedModel(
                f"layer {op.name!r}: {op.kind} of int16 is not computed here as profile"
                f" {program.profile} does; load with tflm or cmsis-nn"
            )
        values = np.arange(-128, 128)
        double = program.profile == "tflm"  # the float quotient until 2026-10-12
        self.table: Array | None
        if op.kind == "softmax":
            self.table = None
        elif self.wide:
            self.table = table_s16(op.kind, self.source, self.output, double=double)
        elif op.kind in ("relu", "relu6"):
            if op.kind == "relu6" and program.profile not in TFLITE_PROFILES:
                self.table = _relu6_in_place(values, self.source)
            else:
                self.table = _relu(op.kind, values, self.source, self.output, double=double)
        elif program.profile in TFLITE_PROFILES:
            self.table = _tabulated(op.kind, values, self.source, self.output)
        else:
            self.table = _fixed_point(op.kind, values, self.source)

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the output, of the input's type and shape."""
        del lengths
        (x,) = inputs
        if self.table is not None:
            return self.table[x.astype(np.int64) + len(self.table) // 2].astype(x.dtype)
        rows = x.reshape(-1, x.shape[-1])
        if self.wide:
            return softmax_s16(rows, self.source.scale, self.op.beta).reshape(x.shape)
        if self.profile in ("litert", "tflite-runtime"):
            y = _float_softmax(rows, self.source.scale, self.op.beta)
        else:
            y = _fixed_point_softmax(rows, self.source.scale, self.op.beta)
        return y.astype(np.int8).reshape(x.shape)


def _runs_wide(kind: str, scale: float, profile: str) -> bool:
    """Whether a profile computes int16 as TFLM does.

    LiteRT does, but for ReLU6, softmax, and its optimized sigmoid and tanh of power-of-two scales.
    """
    if profile not in TFLITE_PROFILES:
        return True
    if profile == "tflite-runtime" or kind in ("relu6", "softmax"):
        return False
    power_of_two = math.frexp(scale)[0] == 0.5
    return profile != "litert" or kind == "relu" or not power_of_two


def _relu(kind: str, values: Array, source: Tensor, output: Tensor, *, double: bool) -> I64:
    """Mirrors: ReluXQuantized / QuantizedReluX (TFLite, TFLM)."""
    factor = quantize_multiplier(scale_quotient(source, output, double=double))
    y = requantize(values - source.zero_point, factor) + output.zero_point
    high = 127
    if kind == "relu6":
        high = min(127, output.zero_point + int(round_half_away(np.float32(6 / output.scale))))
    return saturate(y, output.zero_point, high)


def _relu6_in_place(values: Array, source: Tensor) -> I64:
    """Mirrors: Relu6Quantized (TFLM activations.cc), which clamps in the input's scale."""
    six = source.zero_point + int(round_half_away(np.float32(6) / np.float32(source.scale)))
    return saturate(values, source.zero_point, min(127, six))


def _tabulated(kind: str, values: Array, source: Tensor, output: Tensor) -> I64:
    """Mirrors: PopulateLookupTable with std::tanh or 1 / (1 + std::exp(-x)), float32."""
    x = np.float32(source.scale) * (values - source.zero_point).astype(np.float32)
    one = np.float32(1)
    y = np.tanh(x) if kind == "tanh" else one / (one + np.exp(-x))
    scaled = y.astype(np.float32) * (one / np.float32(output.scale))
    return saturate_s8(round_half_away(scaled).astype(np.int64) + output.zero_point)


def _fixed_point(kind: str, values: Array, source: Tensor) -> I64:
    """Mirrors: reference_integer_ops::Logistic and Tanh (TFLM), with 4 integer bits."""
    factor = quantize_multiplier(source.scale * 2.0**27)
    radius = math.floor(15 * 2.0**27 / 2.0**factor.shift)
    centred = values.astype(np.int64) - source.zero_point
    inside = np.clip(centred, -radius, radius)
    argument = requantize(inside, factor)
    if kind == "sigmoid":
        y = rounding_divide_by_pot(activations.logistic_s32(argument, 4), 23) - 128
    else:
        y = rounding_divide_by_pot(activations.tanh_s32(argument, 4), 24)
    y = np.where(centred >= radius, 127, np.where(centred <= -radius, -128, y))
    return saturate_s8(y)


def float_exponentials(scale: float, beta: float) -> F32:
    """Return exp of all differences from the maximum down, float32 [256]."""
    step = np.float32(-np.float32(scale) * np.float32(beta))
    table: F32 = np.exp(step * np.arange(256, dtype=np.float32))
    return table


def _float_softmax(rows: Array, scale: float, beta: float) -> I64:
    """Mirrors: SoftmaxInt8LUT (TFLite optimized_ops.h): float32 table, sum in index order."""
    below = rows.max(axis=1, keepdims=True).astype(np.int64) - rows
    exponentials = float_exponentials(scale, beta)[below]
    total = np.zeros(len(rows), np.float32)
    for k in range(rows.shape[1]):
        total += exponentials[:, k]
    scaled = exponentials / (total * np.float32(1 / 256))[:, None]
    return saturate_s8(round_half_away(scaled).astype(np.int64) - 128)


def softmax_factor(scale: float, beta: float) -> tuple[Factor, int]:
    """Return the factor to Q5.26, and the least difference to the maximum that counts."""
    factor = quantize_multiplier(min(beta * scale * 2.0**26, 2.0**31 - 1))
    return factor, -math.floor(31 * 2.0**26 / 2.0**factor.shift)


def fixed_point_exponentials(below: Array, factor: Factor) -> I64:
    """Return exp in Q0.31 of differences to the maximum, times ``factor`` in Q5.26."""
    argument = saturating_rounding_doubling_high_mul(
        wrap32(below << factor.shift), factor.multiplier
    )
    return activations.exp_of_negative_s32(argument, 5)


def _fixed_point_softmax(rows: Array, scale: float, beta: float) -> I64:
    """Mirrors: reference_ops::Softmax, int8 (TFLite, TFLM): Q5.26 exponents, sum in Q12.19."""
    factor, least = softmax_factor(scale, beta)
    below = rows.astype(np.int64) - rows.max(axis=1, keepdims=True)
    counted = below >= least
    exponentials = fixed_point_exponentials(np.where(counted, below, 0), factor)
    total = wrap32(np.where(counted, rounding_divide_by_pot(exponentials, 12), 0).sum(axis=1))
    out = np.full(rows.shape, -128, np.int64)
    for row, whole in enumerate(total.tolist()):
        zeros = 32 - int(whole).bit_length()
        fraction = ((int(whole) << zeros) & 0xFFFFFFFF) - 2**31
        inverse = min(int(activations.one_over_one_plus_s32(np.int64(fraction))), I32_MAX)
        product = saturating_rounding_doubling_high_mul(exponentials[row], inverse)
        y = saturate_s8(rounding_divide_by_pot(product, 35 - zeros) - 128)
        out[row] = np.where(counted[row], y, -128)
    return out

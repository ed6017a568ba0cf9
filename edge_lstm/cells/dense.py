"""Dense: ``y = weights @ x + bias`` on the last axis, of a vector or of every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal
from weakref import WeakKeyDictionary

import numpy as np

from edge_lstm.arrays import F32, F64, I8, I64, Array
from edge_lstm.cells.lstm_integer import dot, scale_product
from edge_lstm.cells.weights import quantize_bias, quantize_weights
from edge_lstm.fixed_point import (
    quantize_multiplier,
    requantize,
    requantize_s64,
    requantize_ties_up,
    round_half_away,
    saturate,
    wrap32,
)
from edge_lstm.program import Kernel, Op, Program, ProgramBuilder, StatelessKernel, Tensor
from edge_lstm.spec import FloatRun, Layer, Signal, check_shape
from edge_lstm.tape import SET, Call, Parameter, Tape, clip, compile_tape

FusedActivation = Literal["none", "relu", "relu6", "relu_n1_to_1"]


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Layer):
    """A fully connected layer; on a sequence it acts on every step (time-distributed).

    Args:
        weights: [output, input].
        bias: [output].
        activation: applied at once; the others are layers of their own.
    """

    weights: F32
    bias: F32
    activation: Literal["none", "relu", "relu6"] = "none"

    def __post_init__(self) -> None:
        if self.weights.ndim != 2:
            raise self._refuse(f"weights have shape {list(self.weights.shape)}", "want 2 axes")
        check_shape(self.name, "bias", self.bias, (len(self.weights),))

    def output_signal(self, signal: Signal) -> Signal:
        features = int(self.weights.shape[1])
        if signal.kind == "tokens" or signal.size != features:
            raise self._refuse(f"is fed {signal}", f"Dense must be fed {features} features")
        return Signal(signal.kind, len(self.weights))

    def forward(self, x: F64, run: FloatRun) -> F64:
        y = x @ self.weights.astype(np.float64).T + self.bias.astype(np.float64)
        if self.activation != "none":
            y = np.clip(y, 0.0, 6.0 if self.activation == "relu6" else None)
        run.note(f"{self.name}.output", y)
        return y

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        value = builder.tensors[source]
        output = builder.activation(f"{self.name}.output", self.output_signal(value.signal))
        weights, scale = quantize_weights(self.weights, f"layer {self.name!r}, weights")
        return builder.add_op(
            DenseOp(
                name=self.name,
                inputs=(source,),
                output=output,
                weights=weights,
                bias=quantize_bias(
                    self.bias, value.scale, scale, wide=builder.activation_dtype == "int16"
                ),
                weight_scales=np.array([scale], np.float32),
                activation=self.activation,
            )
        )


_ROUNDINGS = {
    "litert": "float32 product, ties to even",
    "litert-ref": "float64 product, ties away from zero",
    "tflite-runtime": "two roundings, ties up",
}


@dataclass(frozen=True, eq=False, repr=False)
class DenseOp(Op):
    """FULLY_CONNECTED in integers.

    Args:
        weights: int8 [output, input].
        bias: int32 [output]; int64 beside int16 activations.
        weight_scales: float32 [1], or [output] when each row has its own.
        activation: fused: bounds of the output.
        weight_zero_point: of the weights; 0 in every file of ours.
    """

    type_name: ClassVar[str] = "dense"

    weights: I8
    bias: Array
    weight_scales: F32
    activation: FusedActivation = "none"
    weight_zero_point: int = 0

    def __post_init__(self) -> None:
        check_shape(self.name, "bias", self.bias, (len(self.weights),))

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        return DenseKernel(self, program, batch_size)

    def derived(self, program: Program) -> dict[str, object]:
        kernel = DenseKernel(self, program, 1)
        found: dict[str, object] = {
            "input_zero_point": program.tensors[self.inputs[0]].zero_point,
            "effective_bias": kernel.bias,
            "output_zero_point": kernel.zero_point,
            "output_range": [kernel.low, kernel.high],
            "rounding": _ROUNDINGS.get(kernel.rounding, "two roundings, ties up, then away"),
        }
        if kernel.wide and kernel.rounding not in _ROUNDINGS:
            found["rounding"] = "multiplier cut to 16 bits, one rounding, ties up"
        if kernel.rounding == "litert":
            found["float32_factors"] = kernel.float_scales
        elif kernel.rounding == "litert-ref":
            found["float64_factors"] = kernel.real_scales
        else:
            found["multipliers"] = [f.multiplier for f in kernel.factors]
            found["shifts"] = [f.shift for f in kernel.factors]
        return found


def activation_bounds(tensor: Tensor, activation: FusedActivation) -> tuple[int, int]:
    """Return the least and greatest integer that a fused activation leaves.

    Mirrors: CalculateActivationRangeQuantized (TFLite kernel_util.cc).
    """
    info = np.iinfo(tensor.dtype)

    def integer(real: float) -> int:
        return tensor.zero_point + int(round_half_away(np.float32(real / tensor.scale)))

    low = {"none": info.min, "relu_n1_to_1": integer(-1.0)}.get(activation, integer(0.0))
    high = {"relu6": integer(6.0), "relu_n1_to_1": integer(1.0)}.get(activation, info.max)
    return max(info.min, int(low)), min(info.max, int(high))


_SHARED: WeakKeyDictionary[DenseOp, dict[object, F64]] = WeakKeyDictionary()


def _shared(op: DenseOp, key: object, make: Callable[[], F64]) -> F64:
    """Return what ``make`` returns, made once for all sessions of an op."""
    known = _SHARED.setdefault(op, {})
    if key not in known:
        known[key] = make()
    return known[key]


class DenseKernel(StatelessKernel):
    """FULLY_CONNECTED as the profile's runtime rounds it."""

    def __init__(self, op: DenseOp, program: Program, batch_size: int) -> None:
        self.op = op
        source, output = program.tensors[op.inputs[0]], program.tensors[op.output]
        self.zero_point = output.zero_point
        self.dtype, self.wide = output.dtype, source.dtype == "int16"
        self.low, self.high = activation_bounds(output, op.activation)
        self.rounding = program.profile
        if program.profile == "litert" and self.wide:
            self.rounding = "litert-ref"  # XNNPACK takes no int16
        elif program.profile == "litert" and not program.uses_xnnpack:
            self.rounding = "tflite-runtime"  # ruy, which both have beside their delegates
        double = program.profile == "tflm" or len(op.weight_scales) > 1
        products = [scale_product(source.scale, s, double=double) for s in op.weight_scales]
        self.factors = [quantize_multiplier(p / output.scale) for p in products]
        self.weights = _shared(
            op, "weights", lambda: op.weights.astype(np.float64) - op.weight_zero_point
        )
        row_sums = self.weights.sum(axis=1).astype(np.int64)
        self.bias = op.bias - source.zero_point * row_sums
        self.real_scales = op.weight_scales.astype(np.float64) * source.scale / output.scale
        float_products = op.weight_scales * np.float32(source.scale)
        self.float_scales = float_products.astype(np.float32) / np.float32(output.scale)

        self.result = np.empty((batch_size, len(op.weights)))
        self.tape = self._step_tape(source.zero_point)
        self.last: Call = (self.result.astype, (np.dtype(np.int8),))
        self._step = None if self.tape is None else compile_tape(self.tape, ["x"], result=self.last)

    def step(self, x: Array) -> Array:
        """Return the output for one step: int8 [batch, input] to int8 [batch, output]."""
        if self._step is None:
            return self.run([x], None)
        y: Array = self._step(x)
        return y

    def _step_tape(self, source_zero_point: int) -> Tape | None:
        """Return one step in few calls, as ``lstm_fast`` does it, or None where that is not exact.

        The two roundings of ``requantize`` are ``floor`` of the folded product, then ``rint`` of
        a value whose ties are nudged away from zero (up, in tflite-runtime); XNNPACK's is
        ``rint`` of a float32 product.
        """
        one_row_each = len(self.factors) > 1 and self.rounding != "litert"
        if self.dtype != "int8" or self.wide or one_row_each or self.rounding == "litert-ref":
            return None
        (multiplier, shift), out = self.factors[0], self.result
        bound = float((np.abs(self.weights).sum(axis=1) * 128 + np.abs(self.bias)).max())
        if bound >= 2.0**31:
            return None
        fed = np.ones((len(out), self.weights.shape[1] + 1))

        def columns(factor: float, half: float) -> F64:
            """Return the weights times ``factor``, the bias below them, for rows of inputs."""
            folded = np.column_stack([self.weights, self.bias]) * factor
            folded[:, -1] += half
            return np.ascontiguousarray(folded.T)

        tape: Tape = [(SET, (fed[:, :-1], Parameter("x")))]
        if self.rounding == "litert":
            acc = np.empty(out.shape, np.float32)
            tape += [
                (fed.dot, (_shared(self.op, source_zero_point, lambda: columns(1.0, 0.0)), out)),
                (SET, (acc, out)),
                (np.multiply, (acc, self.float_scales, acc)),
                (np.rint, (acc, out)),
            ]
        else:
            if shift > 0 or bound * multiplier + 2.0**31 >= 2.0**52:
                return None
            key = (source_zero_point, multiplier)
            ties_up = self.rounding == "tflite-runtime"
            scale = 2.0**shift * (1.0 if ties_up else 1 + 2.0**-40)
            tape += [
                (
                    fed.dot,
                    (_shared(self.op, key, lambda: columns(multiplier * 2.0**-31, 0.5)), out),
                ),
                (np.floor, (out, out)),
                (np.multiply, (out, np.array(scale), out)),
                *(
                    [(np.add, (out, np.array(0.5), out)), (np.floor, (out, out))]
                    if ties_up and shift
                    else [(np.rint, (out, out))]
                ),
            ]
        low, high = np.array(float(self.low)), np.array(float(self.high))
        return [
            *tape,
            (np.add, (out, np.array(float(self.zero_point)), out)),
            (clip, (out, low, high, out)),
        ]

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the output, int8 [..., output]."""
        del lengths
        (x,) = inputs
        acc = dot(x, self.weights) + self.bias
        rounded = self._round(acc if self.wide else wrap32(acc))
        return saturate(rounded + self.zero_point, self.low, self.high).astype(self.dtype)

    def _round(self, acc: I64) -> I64:
        if self.rounding == "litert":
            # XNNPACK: float32 product, then to nearest, ties to even.
            return np.rint(acc.astype(np.float32) * self.float_scales).astype(np.int64)
        if self.rounding == "litert-ref":
            return round_half_away(acc * self.real_scales).astype(np.int64)
        if self.wide:
            rounder = requantize_s64
        elif self.rounding == "tflite-runtime":
            rounder = requantize_ties_up
        else:
            rounder = requantize
        if len(self.factors) == 1:
            return rounder(acc, self.factors[0])
        rows = [rounder(acc[..., k], factor) for k, factor in enumerate(self.factors)]
        return np.stack(rows, axis=-1)

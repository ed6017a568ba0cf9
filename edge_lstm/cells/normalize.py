"""Normalization, and other functions of each value alone: Scale, LayerNorm, Elementwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import F32, F64
from edge_lstm.cells.functions import Function
from edge_lstm.program import ProgramBuilder
from edge_lstm.spec import FloatRun, Layer, Signal, check_shape


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Layer):
    """``y = factor * x + offset``, a pair a feature: a batch normalization after training.

    Args:
        factor: [size].
        offset: [size].
    """

    factor: F32
    offset: F32

    def __post_init__(self) -> None:
        if self.factor.ndim != 1:
            raise self._refuse(f"factor has shape {list(self.factor.shape)}", "want 1 axis")
        check_shape(self.name, "offset", self.offset, self.factor.shape)

    def output_signal(self, signal: Signal) -> Signal:
        if signal.kind == "tokens" or signal.size != len(self.factor):
            raise self._refuse(
                f"is fed {signal}", f"this scale must be fed {len(self.factor)} features"
            )
        return signal

    def forward(self, x: F64, run: FloatRun) -> F64:
        y = x * self.factor.astype(np.float64) + self.offset.astype(np.float64)
        run.note(f"{self.name}.output", y)
        return y

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        del builder, source
        raise self.not_in_int8("a scale (batch normalization) with no Dense or LSTM beside it")


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(Layer):
    """Features of each step less their mean, over their deviation, times weight, plus bias.

    Args:
        weight: [size].
        bias: [size].
        epsilon: added to the variance.
    """

    weight: F32
    bias: F32
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.weight.ndim != 1:
            raise self._refuse(
                f"weight has shape {list(self.weight.shape)}", "want it over the features alone"
            )
        check_shape(self.name, "bias", self.bias, self.weight.shape)

    @property
    def type_name(self) -> str:
        return "layer_norm"

    def output_signal(self, signal: Signal) -> Signal:
        if signal.kind == "tokens" or signal.size != len(self.weight):
            raise self._refuse(
                f"is fed {signal}",
                f"this normalization must be fed {len(self.weight)} features",
            )
        return signal

    def forward(self, x: F64, run: FloatRun) -> F64:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.mean(np.square(centred), axis=-1, keepdims=True)
        normal = centred / np.sqrt(variance + self.epsilon)
        y: F64 = normal * self.weight.astype(np.float64) + self.bias.astype(np.float64)
        run.note(f"{self.name}.output", y)
        return y

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        del builder, source
        raise self.not_in_int8("layer normalization")


@dataclass(frozen=True, eq=False, repr=False)
class Elementwise(Layer):
    """A function of each value, of those that ``Activation`` does not have."""

    function: Function

    @property
    def type_name(self) -> str:
        return self.function.name

    def output_signal(self, signal: Signal) -> Signal:
        if signal.kind == "tokens":
            raise self._refuse(f"is fed {signal}", "an activation must be fed numbers")
        return signal

    def forward(self, x: F64, run: FloatRun) -> F64:
        y = self.function(x)
        run.note(f"{self.name}.output", y)
        return y

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        del builder, source
        raise self.not_in_int8(f"the activation {self.function}")

"""What moves values and computes nothing: steps taken, joined and reversed, features joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_lstm.arrays import F64, I64, Array
from edge_lstm.errors import UnsupportedModel
from edge_lstm.program import Kernel, Op, Program, ProgramBuilder, StatelessKernel, Tensor
from edge_lstm.spec import FloatRun, Layer, Signal


def _moved(layer: Layer, builder: ProgramBuilder, source: int) -> int:
    """Add a tensor with the source's scale and the layer's output signal."""
    value = builder.tensors[source]
    signal = layer.output_signal(value.signal)
    return builder.add_tensor(
        Tensor(f"{layer.name}.output", signal, value.dtype, value.scale, value.zero_point)
    )


@dataclass(frozen=True, eq=False, repr=False)
class LastStep(Layer):
    """Keeps the last valid step of a sequence: [batch, time, size] to [batch, size]."""

    def output_signal(self, signal: Signal) -> Signal:
        if signal.kind != "sequence":
            raise self._refuse(f"is fed {signal}", "only a sequence has a last step")
        return Signal("vector", signal.size)

    def forward(self, x: F64, run: FloatRun) -> F64:
        return take_last(x, run.lengths)

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        output = _moved(self, builder, source)
        return builder.add_op(LastStepOp(self.name, (source,), output))


@dataclass(frozen=True, eq=False, repr=False)
class Flatten(Layer):
    """Joins all steps: [batch, time, size] to [batch, time * size].

    Args:
        time_steps: the one sequence length that the layers after it were trained for.
    """

    time_steps: int

    def output_signal(self, signal: Signal) -> Signal:
        if signal.kind == "vector":
            return signal
        if signal.kind == "tokens":
            raise self._refuse(f"is fed {signal}", "Flatten must be fed numbers")
        return Signal("vector", signal.size * self.time_steps)

    def forward(self, x: F64, run: FloatRun) -> F64:
        if run.lengths is not None and (run.lengths != self.time_steps).any():
            raise self._refuse("is fed padded sequences", f"every length must be {self.time_steps}")
        return x.reshape(len(x), -1)

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        if builder.tensors[source].signal.kind == "vector":
            return source
        output = _moved(self, builder, source)
        return builder.add_op(FlattenOp(self.name, (source,), output))


@dataclass(frozen=True, eq=False, repr=False)
class Dropout(Layer):
    """Does nothing outside training."""

    def output_signal(self, signal: Signal) -> Signal:
        return signal

    def forward(self, x: F64, run: FloatRun) -> F64:
        del run
        return x

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        del builder
        return source


def take_last(x: Array, lengths: I64 | None) -> Array:
    """Return the last valid step of each row, [batch, size]."""
    if lengths is None:
        return x[:, -1]
    return x[np.arange(len(x)), lengths - 1]


@dataclass(frozen=True, eq=False, repr=False)
class LastStepOp(Op):
    """STRIDED_SLICE of the last step."""

    type_name: ClassVar[str] = "last_step"

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del program, batch_size
        return LastStepKernel()


class LastStepKernel(StatelessKernel):
    """STRIDED_SLICE of the last step."""

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return [batch, size]."""
        return take_last(inputs[0], lengths)

    def step(self, x: Array) -> Array:
        """Return the step itself."""
        return x


@dataclass(frozen=True, eq=False, repr=False)
class FlattenOp(Op):
    """RESHAPE that joins all steps."""

    type_name: ClassVar[str] = "flatten"
    streams: ClassVar[bool] = False

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del program, batch_size
        return FlattenKernel()


class FlattenKernel(StatelessKernel):
    """RESHAPE that joins all steps."""

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return [batch, time * size]."""
        del lengths
        x = inputs[0]
        return x.reshape(len(x), -1)


@dataclass(frozen=True, eq=False, repr=False)
class FirstStepOp(Op):
    """STRIDED_SLICE of the first step."""

    type_name: ClassVar[str] = "first_step"
    streams: ClassVar[bool] = False  # every step but the first would give another one's output

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del program, batch_size
        return FirstStepKernel()


class FirstStepKernel(StatelessKernel):
    """STRIDED_SLICE of the first step."""

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return [batch, size]."""
        del lengths  # a row has at least one step
        return inputs[0][:, 0]


@dataclass(frozen=True, eq=False, repr=False)
class ReverseOp(Op):
    """REVERSE_V2 of the time axis."""

    type_name: ClassVar[str] = "reverse"
    streams: ClassVar[bool] = False

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del program, batch_size
        return ReverseKernel()


class ReverseKernel(StatelessKernel):
    """REVERSE_V2 of the time axis: of each row's valid steps, what lies past them stays."""

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the steps last to first, [batch, time, size]."""
        (x,) = inputs
        if lengths is None:
            return x[:, ::-1]
        steps = np.arange(x.shape[1])[None, :]
        source = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
        return x[np.arange(len(x))[:, None], source]


@dataclass(frozen=True, eq=False, repr=False)
class ConcatOp(Op):
    """CONCATENATION of features; all inputs have the output's scale."""

    type_name: ClassVar[str] = "concat"

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del batch_size
        labels = {
            (program.tensors[index].scale, program.tensors[index].zero_point)
            for index in (*self.inputs, self.output)
        }
        if len(labels) > 1:
            raise UnsupportedModel(
                f"layer {self.name!r}: joins values of {len(labels)} scales, which no runtime"
                " does; give inputs and output one scale"
            )
        return ConcatKernel()


class ConcatKernel(StatelessKernel):
    """CONCATENATION of features."""

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return [..., sum of all sizes]."""
        del lengths
        return np.concatenate(inputs, axis=-1)

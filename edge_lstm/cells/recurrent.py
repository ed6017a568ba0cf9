"""What recurrent layers share, and the layers that run one against the direction of time."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from edge_lstm.arrays import F32, F64, I64, Array
from edge_lstm.cells.add_op import AddOp
from edge_lstm.cells.mul_op import MulOp
from edge_lstm.cells.shape import ConcatOp, LastStepOp, ReverseOp, take_last
from edge_lstm.program import Op, ProgramBuilder
from edge_lstm.spec import FloatRun, Layer, Signal

Merge = Literal["concat", "sum", "mul", "ave"]
MERGES: tuple[Merge, ...] = get_args(Merge)
_ELEMENTWISE: dict[Merge, type[AddOp | MulOp]] = {"sum": AddOp, "mul": MulOp}


@dataclass(frozen=True, eq=False, repr=False)
class Recurrent(Layer):
    """A layer that carries a state from step to step; gives every step."""

    @property
    @abc.abstractmethod
    def input_size(self) -> int:
        """Features of one input step."""

    @property
    @abc.abstractmethod
    def output_size(self) -> int:
        """Features of one output step."""

    def output_signal(self, signal: Signal) -> Signal:
        if signal != Signal("sequence", self.input_size):
            raise self._refuse(
                f"is fed {signal}",
                f"{type(self).__name__.upper()} must be fed a sequence [time, {self.input_size}]",
            )
        return Signal("sequence", self.output_size)

    def first_state(self, run: FloatRun, what: str, values: F32 | None, size: int) -> F64:
        """Return the state that the run carries, or the layer's own first one, [batch, size]."""
        start = np.zeros(size) if values is None else values.astype(np.float64)
        given = run.state.get(f"{self.name}.{what}")
        return np.tile(start, (run.batch_size, 1)) if given is None else given


def clipped(values: F64, bound: float | None) -> F64:
    """Return values held to [-bound, bound]; None: as they are."""
    return values if bound is None else np.clip(values, -bound, bound)


def reversed_in_time(x: Array, lengths: I64 | None) -> Array:
    """Return the valid steps of each row in reverse order; those past its length stay."""
    if lengths is None:
        return x[:, ::-1]
    steps = np.arange(x.shape[1])[None, :]
    index = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return x[np.arange(len(x))[:, None], index]


def merged(parts: list[F64], merge: Merge) -> F64:
    """Return values joined on their features, or combined element by element."""
    if merge == "concat":
        return np.concatenate(parts, axis=-1)
    if merge == "mul":
        product: F64 = np.prod(parts, axis=0)
        return product
    total: F64 = np.sum(parts, axis=0)
    return total / len(parts) if merge == "ave" else total


@dataclass(frozen=True, eq=False, repr=False)
class Reverse(Layer):
    """Turns the valid steps of a sequence round."""

    def output_signal(self, signal: Signal) -> Signal:
        if signal.kind == "vector":
            raise self._refuse(f"is fed {signal}", "only a sequence can be turned round")
        return signal

    def forward(self, x: F64, run: FloatRun) -> F64:
        return reversed_in_time(x, run.lengths)

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        return moved(builder, source, ReverseOp, self.name)


@dataclass(frozen=True, eq=False, repr=False)
class Backward(Layer):
    """A recurrent layer that reads from the last valid step to the first.

    Its outputs are in the order of time, so that step 0 has seen the whole sequence.

    Args:
        layer: takes the name of this one.
    """

    layer: Recurrent

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", replace(self.layer, name=self.name))

    @property
    def type_name(self) -> str:
        return f"backward {self.layer.type_name}"

    def _arrays(self) -> Iterator[Array]:
        return self.layer._arrays()

    def output_signal(self, signal: Signal) -> Signal:
        return self.layer.output_signal(signal)

    def forward(self, x: F64, run: FloatRun) -> F64:
        y = self.layer.forward(reversed_in_time(x, run.lengths), run)
        return reversed_in_time(y, run.lengths)

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        turned = moved(builder, source, ReverseOp, f"{self.name}_reversed")
        output = builder.add_layer(self.layer, turned)
        return moved(builder, output, ReverseOp, f"{self.name}_in_order")


@dataclass(frozen=True, eq=False, repr=False)
class Bidirectional(Layer):
    """Two recurrent layers over the same sequence, one in each direction.

    Args:
        forward_layer: takes the name ``<name>_forward``.
        backward_layer: takes the name ``<name>_backward``.
        merge: how their outputs are joined; concat: the forward ones first.
        final: give each direction's state after its last step, [batch, size], instead of every
            step. That is ONNX's Y_h and Keras's return_sequences=False; a LastStep behind the
            layer is another thing, for there the backward layer has seen one step.
    """

    forward_layer: Recurrent
    backward_layer: Recurrent
    merge: Merge = "concat"
    final: bool = False

    def __post_init__(self) -> None:
        for word in ("forward", "backward"):
            layer = getattr(self, f"{word}_layer")
            object.__setattr__(self, f"{word}_layer", replace(layer, name=f"{self.name}_{word}"))
        sizes = self.forward_layer.output_size, self.backward_layer.output_size
        if self.merge not in MERGES:
            raise self._refuse(f"merges by {self.merge!r}", f"want one of {', '.join(MERGES)}")
        if self.merge != "concat" and sizes[0] != sizes[1]:
            raise self._refuse(f"merges {sizes[0]} and {sizes[1]} features", "want the same size")

    def _arrays(self) -> Iterator[Array]:
        yield from self.forward_layer._arrays()
        yield from self.backward_layer._arrays()

    def output_signal(self, signal: Signal) -> Signal:
        sizes = [
            layer.output_signal(signal).size for layer in (self.forward_layer, self.backward_layer)
        ]
        size = sum(sizes) if self.merge == "concat" else sizes[0]
        return Signal("vector" if self.final else "sequence", size)

    def forward(self, x: F64, run: FloatRun) -> F64:
        ahead = self.forward_layer.forward(x, run)
        back = self.backward_layer.forward(reversed_in_time(x, run.lengths), run)
        if self.final:
            parts = [take_last(y, run.lengths) for y in (ahead, back)]
        else:
            parts = [ahead, reversed_in_time(back, run.lengths)]
        y = merged(parts, self.merge)
        run.note(f"{self.name}.output", y)
        return y

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        if self.merge == "concat":
            # A concatenation has one scale, so both directions get the range of the two.
            names = [f"{part.name}.output" for part in (self.forward_layer, self.backward_layer)]
            both = builder.range(names[0]).union(builder.range(names[1]))
            builder.ranges = {**builder.ranges, **dict.fromkeys(names, both)}
        ahead = builder.add_layer(self.forward_layer, source)
        turned = moved(builder, source, ReverseOp, f"{self.name}_reversed")
        back = builder.add_layer(self.backward_layer, turned)
        if self.final:
            ahead = moved(builder, ahead, LastStepOp, f"{self.name}_forward_last", vector=True)
            back = moved(builder, back, LastStepOp, f"{self.name}_backward_last", vector=True)
        else:
            back = moved(builder, back, ReverseOp, f"{self.name}_in_order")
        return joined(builder, self, self.merge, ahead, back)


def joined(builder: ProgramBuilder, layer: Layer, merge: Merge, left: int, right: int) -> int:
    """Add the op that joins two values as ``merged`` does; return its output's index."""
    first, second = builder.tensors[left], builder.tensors[right]
    if merge in _ELEMENTWISE:
        output = builder.activation(f"{layer.name}.output", first.signal)
        return builder.add_op(_ELEMENTWISE[merge](layer.name, (left, right), output))
    labels = [(value.scale, value.zero_point, value.dtype) for value in (first, second)]
    if merge != "concat" or labels[0] != labels[1]:
        what = "parts of two scales" if merge == "concat" else f"a merge by {merge}"
        raise layer.not_in_int8(what)
    signal = Signal(first.signal.kind, first.signal.size + second.signal.size)
    output = builder.add_tensor(replace(first, name=f"{layer.name}.output", signal=signal))
    return builder.add_op(ConcatOp(layer.name, (left, right), output))


def moved(
    builder: ProgramBuilder, source: int, op: type[Op], name: str, *, vector: bool = False
) -> int:
    """Add an op that only moves values; ``vector``: it leaves one step."""
    value = builder.tensors[source]
    signal = Signal("vector", value.signal.size) if vector else value.signal
    output = builder.add_tensor(replace(value, name=f"{name}.output", signal=signal))
    return builder.add_op(op(name, (source,), output))

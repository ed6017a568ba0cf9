"""A ``.tflite`` graph on its way to a Program: its values, and the operators that only move them.

Beside each of the file's tensors stands which canonical axes lie in its memory, in which order.
Operators that only move axes (RESHAPE, TRANSPOSE, ...) change that note and vanish.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from edge_lstm.cells import (
    ConcatOp,
    FirstStepOp,
    FlattenOp,
    LastStepOp,
    ReadStateOp,
    ReverseOp,
    WriteStateOp,
)
from edge_lstm.errors import UnreadableModel, UnsupportedModel
from edge_lstm.program import DType, Op, Profile, Tensor
from edge_lstm.spec import Signal
from edge_lstm_converters.rules_tflite import is_scale
from edge_lstm_converters.tflite_axes import (
    CANONICAL,
    TIME_MAJOR,
    Axis,
    Layout,
    LayoutMismatch,
    Value,
)
from edge_lstm_converters.tflite_schema import (
    ABSENT,
    TfliteModel,
    TfliteOperator,
    TfliteTensor,
)
from edge_lstm_converters.tflite_tables import ConcatenationOptions, StridedSliceOptions
from edge_lstm_converters.traps_tflite import CONCAT_TRAPS, REVERSE_TRAPS, TfliteMove, notes

Options = TypeVar("Options")

_DTYPES: dict[str, DType] = {
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int32",  # token ids; a Program has them as int32
    "float32": "float32",
}


class TfliteGraph:
    """The tensors and ops made so far, and what each of the file's tensors has become.

    Args:
        model: the file.
        where: its name, for messages.
        profile: whose kernels shall run it.
        layout: what the model's input means.
    """

    def __init__(self, model: TfliteModel, where: str, profile: Profile, layout: Layout) -> None:
        self.model, self.where, self.profile, self.layout = model, where, profile, layout
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []
        self.notes: list[str] = []
        self.time_steps: int | None = None
        self.names: set[str] = set()
        self.values: dict[int, Value] = {}
        self.states: dict[int, str] = {}
        """Variable tensors that are read and not yet written, and the ops that read them."""
        self.producers = {o.outputs[0]: o for o in model.operators if o.outputs}
        source = model.tensors[model.inputs[0]]
        index = self.add_tensor("input", source, layout.signal)
        self.values[model.inputs[0]] = Value(index, layout.signal, layout.order, source.shape)

    def refuse(self, operator: TfliteOperator, found: str, accepted: str) -> UnsupportedModel:
        return UnsupportedModel(f"{self.label(operator)}: {found}; {accepted}")

    def mismatch(self, operator: TfliteOperator, found: str, accepted: str) -> LayoutMismatch:
        return LayoutMismatch(f"{self.label(operator)}: {found}; {accepted}")

    def damaged(self, operator: TfliteOperator, found: str) -> UnreadableModel:
        return UnreadableModel(
            f"{self.label(operator)}: {found}; the file is damaged, get it again"
        )

    def label(self, operator: TfliteOperator) -> str:
        number = next(k for k, o in enumerate(self.model.operators) if o is operator)
        return f"{self.where}: operator {number} ({operator.code})"

    def options(self, operator: TfliteOperator, cls: type[Options]) -> Options:
        if operator.options is None:
            return cls()
        if not isinstance(operator.options, cls):
            raise self.damaged(operator, f"has {type(operator.options).__name__}")
        return operator.options

    def operand(self, operator: TfliteOperator, position: int) -> TfliteTensor | None:
        """Return an input tensor of an operator; None where it is absent."""
        if position >= len(operator.inputs) or operator.inputs[position] == ABSENT:
            return None
        return self.model.tensors[operator.inputs[position]]

    def constant(self, operator: TfliteOperator, position: int, what: str) -> TfliteTensor:
        tensor = self.operand(operator, position)
        if tensor is None:
            raise self.refuse(operator, f"{what} (input {position}) is absent", "it must be there")
        if tensor.data is None:
            raise self.refuse(
                operator, f"{what} (input {position}) is not a constant", "it must be one"
            )
        return tensor

    def indices(self, operator: TfliteOperator, position: int, what: str) -> list[int]:
        """Return a constant list of integers."""
        tensor = self.constant(operator, position, what)
        if tensor.dtype not in ("int32", "int64") or len(tensor.shape) != 1:
            raise self.refuse(
                operator, f"{what} is {tensor.dtype} {list(tensor.shape)}", "want a list of int32"
            )
        return [int(value) for value in tensor.array()]

    def source(self, operator: TfliteOperator, position: int = 0) -> Value:
        tensor = self.operand(operator, position)
        if tensor is not None and tensor.is_variable:
            return self.state(operator, operator.inputs[position])
        if position >= len(operator.inputs) or operator.inputs[position] not in self.values:
            raise self.refuse(
                operator, f"input {position} is not computed from the model's input", "it must be"
            )
        return self.values[operator.inputs[position]]

    def state(self, operator: TfliteOperator, index: int) -> Value:
        """Return a variable tensor: the value of the call before, until an operator writes it."""
        if index not in self.values:
            tensor, steps = self.model.tensors[index], self.layout.time_steps
            size = tensor.shape[-1] if tensor.shape else 0
            signal = Signal("sequence", size)
            if steps != 1 or size == 0 or math.prod(tensor.shape) != self.layout.count(signal):
                raise self.refuse(
                    operator,
                    f"is fed the state {tensor.name!r} of shape {list(tensor.shape)}",
                    "a graph with a state must take one step, and keep features for each row",
                )
            if tensor.data is not None or tensor.dtype not in ("int8", "int16"):
                raise self.refuse(
                    operator, f"is fed a state of {tensor.dtype}", "want int8 or int16, no data"
                )
            written, dot, end = tensor.name.rpartition(".")
            name = self.unused(written if dot and end == "output" else "state")
            state = self.add_tensor(f"{name}.output", tensor, signal)
            # Where a runtime starts from, and what it resets to.
            start = np.full(size, self.tensors[state].zero_point, tensor.dtype)
            self.ops.append(ReadStateOp(name, (), state, start))
            self.values[index] = Value(state, signal, CANONICAL, tensor.shape)
            self.states[index] = name
        return self.values[index]

    def keep(self, operator: TfliteOperator) -> None:
        """Write a state: a CONCATENATION of one value, which copies it."""
        index = operator.outputs[0]
        if index not in self.states:
            raise self.refuse(operator, "writes a state before it is read", "want it read first")
        value = self.joinable(operator, 0, self.options(operator, ConcatenationOptions).axis)
        state = self.values[index]
        if len(operator.inputs) != 1 or value.signal != state.signal:
            raise self.refuse(
                operator,
                f"writes {len(operator.inputs)} values, the first {value.signal}, to a state",
                f"want one {state.signal}",
            )
        name = self.unused(f"{self.states.pop(index)}_next")
        self.ops.append(WriteStateOp(name, (value.index,), state.index))

    def output(self, operator: TfliteOperator) -> TfliteTensor:
        return self.model.tensors[operator.outputs[0]]

    def name(self, operator: TfliteOperator, type_name: str) -> str:
        """Return the name in the file where we wrote it, else one made of the type."""
        written, dot, end = self.output(operator).name.rpartition(".")
        name = written if dot and end == "output" and written.isidentifier() else type_name
        return self.unused(name)

    def unused(self, name: str) -> str:
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}_{count}"
        self.names.add(unique)
        return unique

    def scale(self, tensor: TfliteTensor, where: str) -> tuple[float, int]:
        """Return the one scale and zero point of an activation."""
        if len(tensor.scales) != 1:
            raise UnsupportedModel(
                f"{where}: tensor {tensor.name!r} has {len(tensor.scales)} scales; an activation"
                " must have one"
            )
        scale, zero_point = tensor.scales[0], tensor.zero_points[0]
        info = np.iinfo(tensor.dtype)
        if not (is_scale(scale) and info.min <= zero_point <= info.max):
            raise UnsupportedModel(
                f"{where}: tensor {tensor.name!r} has scale {scale}, zero point {zero_point}; want"
                f" a positive scale and a zero point in {tensor.dtype}"
            )
        return scale, zero_point

    def add_tensor(self, name: str, tensor: TfliteTensor, signal: Signal) -> int:
        if tensor.dtype not in _DTYPES:
            raise UnsupportedModel(
                f"{self.where}: tensor {tensor.name!r} is {tensor.dtype}; values must be int8,"
                " or int16 in 16x8 models"
            )
        dtype, scale, zero_point = _DTYPES[tensor.dtype], 0.0, 0
        if dtype in ("int8", "int16"):
            scale, zero_point = self.scale(tensor, self.where)
        self.tensors.append(Tensor(name, signal, dtype, scale, zero_point))
        return len(self.tensors) - 1

    def add(
        self, operator: TfliteOperator, signal: Signal, order: tuple[Axis, ...],
        make: Callable[[str, int], Op], type_name: str,
    ) -> None:  # fmt: skip
        """Add an op that ``make`` returns for a name and an output tensor."""
        tensor = self.output(operator)
        if tensor.is_variable:
            raise self.refuse(
                operator, f"writes the state {tensor.name!r}", "only a CONCATENATION of one may"
            )
        if math.prod(tensor.shape) != self.layout.count(signal):
            raise self.damaged(operator, f"gives shape {list(tensor.shape)}, which cannot be")
        name = self.name(operator, type_name)
        index = self.add_tensor(f"{name}.output", tensor, signal)
        self.ops.append(make(name, index))
        self.values[operator.outputs[0]] = Value(index, signal, order, tensor.shape)

    def integer(self, operator: TfliteOperator, value: Value) -> None:
        if not self.tensors[value.index].is_quantized:
            raise self.refuse(
                operator,
                f"is fed {self.tensors[value.index].dtype}",
                "a full-integer model computes in int8; convert float models with --quant int8",
            )

    def sequence(
        self, operator: TfliteOperator, *, time_major: bool
    ) -> tuple[Value, tuple[Axis, ...]]:
        """Return the sequence that a recurrent operator is fed, and the order of its axes."""
        value = self.source(operator)
        order = TIME_MAJOR if time_major else CANONICAL
        sizes = self.layout.sizes(value.signal)
        fits = value.shape == tuple(sizes.get(axis, 0) for axis in order)
        if value.signal.kind != "sequence" or not fits or not self.layout.lies_as(value, order):
            raise self.mismatch(
                operator,
                f"is fed {value.signal} as {list(value.shape)}",
                f"want a sequence with axes {', '.join(order)}",
            )
        self.integer(operator, value)
        return value, order

    # ------------------------------------------------------------------------- axes

    def flattened(self, value: Value, written_by: TfliteOperator | None) -> Value:
        """Return the vector [batch, time * size] of a sequence.

        Args:
            value: the sequence, whose steps the file joins.
            written_by: the operator that gives it; a RESHAPE of ours names the layer.
        """
        if not self.layout.lies_as(value, CANONICAL):
            raise LayoutMismatch(
                f"{self.where}: joins the steps of a time-major sequence; transpose it first"
            )
        self.time_steps = self.layout.time_steps
        name = self.unused("flatten")
        if written_by is not None and written_by.code == "RESHAPE":
            self.names.discard(name)
            name = self.name(written_by, "flatten")
        signal = Signal("vector", value.signal.size * self.layout.time_steps)
        index = len(self.tensors)
        before = self.tensors[value.index]
        self.tensors.append(replace(before, name=f"{name}.output", signal=signal))
        self.ops.append(FlattenOp(name, (value.index,), index))
        return Value(index, signal, CANONICAL[::2], value.shape)

    def settled(self, index: int) -> Value:
        """Return the model's output: a sequence whose steps the file joined is a vector."""
        value, steps = self.values[index], self.layout.time_steps
        size = value.signal.size
        if value.signal.kind == "tokens":
            raise UnsupportedModel(f"{self.where}: token ids are never looked up; want a GATHER")
        if value.signal.kind == "sequence" and value.shape and value.shape[-1] != size:
            if value.shape[-1] != size * steps:
                raise UnsupportedModel(
                    f"{self.where}: output has shape {list(value.shape)}; want {size} features last"
                )
            return self.flattened(value, self.producers.get(index))
        return value

    def last_axis(self, operator: TfliteOperator, value: Value, depth: int) -> Value:
        """Return ``value`` so that an operator on rows of ``depth`` features can take it."""
        self.integer(operator, value)
        if value.order[-1] == "size":
            if depth == value.signal.size:
                return value
            if depth == value.signal.size * self.layout.time_steps:
                return self.flattened(value, self.producers.get(operator.inputs[0]))
        raise self.mismatch(
            operator, f"takes rows of {depth} from {value.signal}", "want its features as rows"
        )

    # ------------------------------------------------------------------------- moving operators

    def same_scale(self, operator: TfliteOperator, position: int = 0) -> None:
        """Check that an operator that only copies has one scale on both sides."""
        source, output = self.operand(operator, position), self.output(operator)
        assert source is not None
        if (source.scales, source.zero_points) != (output.scales, output.zero_points):
            raise self.refuse(
                operator, "changes the scale", "input and output must have the same one"
            )

    def reshape(self, operator: TfliteOperator) -> None:
        """Axes joined, parted, or of size 1."""
        value, tensor = self.source(operator), self.output(operator)
        if math.prod(tensor.shape) != math.prod(value.shape):
            raise self.damaged(operator, f"makes {list(tensor.shape)} of {list(value.shape)}")
        self.same_scale(operator)
        self.values[operator.outputs[0]] = replace(value, shape=tensor.shape)

    def transpose(self, operator: TfliteOperator) -> None:
        """Axes in another order."""
        value = self.source(operator)
        order = self.indices(operator, 1, "permutation")
        if sorted(order) != list(range(len(value.shape))):
            raise self.damaged(operator, f"permutes {list(value.shape)} by {order}")
        axes = self.layout.file_axes(value, self.label(operator))
        shape = tuple(value.shape[k] for k in order)
        if shape != self.output(operator).shape:
            raise self.damaged(operator, f"gives {list(self.output(operator).shape)}")
        self.same_scale(operator)
        memory = tuple(axis for k in order for axis in axes[k])
        self.values[operator.outputs[0]] = replace(value, order=memory, shape=shape)

    def one_step(self, operator: TfliteOperator) -> None:
        """The first step or the last."""
        value = self.source(operator)
        options = self.options(operator, StridedSliceOptions)
        begin, end, strides = (
            self.indices(operator, k, what)
            for k, what in ((1, "begin"), (2, "end"), (3, "strides"))
        )
        if options.ellipsis_mask or options.new_axis_mask or 0 in strides:
            raise self.refuse(operator, "has an ellipsis or a new axis", "want plain slices")
        if not len(begin) == len(end) == len(strides) <= len(value.shape):
            raise self.damaged(operator, f"has {len(begin)} slices for {list(value.shape)}")
        axes = self.layout.file_axes(value, self.label(operator))
        steps = self.layout.time_steps
        taken: type[LastStepOp] | type[FirstStepOp] | None = None
        for k, (axis, size) in enumerate(zip(axes, value.shape, strict=True)):
            if k >= len(begin):
                continue
            first = None if options.begin_mask >> k & 1 else begin[k]
            stop = None if options.end_mask >> k & 1 else end[k]
            if options.shrink_axis_mask >> k & 1:
                first, stop = begin[k], begin[k] + 1 or None
            kept = range(size)[slice(first, stop, strides[k])]
            shrinks = bool(options.shrink_axis_mask >> k & 1)
            if "time" in axis and kept == range(steps - 1, steps) and (size > 1 or shrinks):
                taken = LastStepOp if size == steps else None
            elif "time" in axis and kept == range(1) and size == steps:
                taken = FirstStepOp
            elif kept != range(size):
                raise self.refuse(
                    operator,
                    f"takes {list(kept[:3])} of {size} on axis {k} of {value.signal}",
                    "want the last step or the first",
                )
        if taken is None or value.signal.kind != "sequence":
            raise self.refuse(operator, "does not take one step", "want the last or the first")
        signal = Signal("vector", value.signal.size)
        order = tuple(axis for axis in value.order if axis != "time")
        self.same_scale(operator)
        self.add(
            operator, signal, order,
            lambda name, index: taken(name, (value.index,), index), taken.type_name,
        )  # fmt: skip

    def reverse(self, operator: TfliteOperator) -> None:
        """The steps last to first."""
        value = self.source(operator)
        if value.signal.kind != "sequence":
            raise self.refuse(operator, f"reverses {value.signal}", "want a sequence")
        rank = len(value.shape)
        found = self.indices(operator, 1, "axes")
        if not all(-rank <= axis < rank for axis in found):
            raise self.damaged(operator, f"reverses axes {found} of {list(value.shape)}")
        axes = self.layout.file_axes(value, self.label(operator))
        sizes = self.layout.sizes(value.signal)
        reversed_axes = [
            axis for k in found for axis in axes[k] if axis == "time" or sizes[axis] > 1
        ]
        if reversed_axes != ["time"]:
            raise self.mismatch(
                operator, f"reverses axes {found} of {value.signal}", "want the time axis"
            )
        # Bytes are copied whatever the label says, and TensorFlow's converter changes the label.
        self.warn(operator, REVERSE_TRAPS, "reverse")
        self.add(
            operator, value.signal, value.order,
            lambda name, index: ReverseOp(name, (value.index,), index), "reverse",
        )  # fmt: skip

    def warn(
        self,
        operator: TfliteOperator,
        traps: tuple[Callable[[TfliteMove], str | None], ...],
        type_name: str,
    ) -> None:
        name = self.name(operator, type_name)
        self.names.discard(name)
        self.notes += notes(traps, TfliteMove(self.model, operator), f"layer {name!r}")

    def concatenation(self, operator: TfliteOperator) -> None:
        """Features joined."""
        options = self.options(operator, ConcatenationOptions)
        if options.fused_activation != 0:
            raise self.refuse(
                operator, f"has fused activation {options.fused_activation}", "want none"
            )
        if self.output(operator).is_variable:
            self.keep(operator)
            return
        values = [self.joinable(operator, k, options.axis) for k in range(len(operator.inputs))]
        if not values:
            raise self.damaged(operator, "has no inputs")
        first = values[0]
        for value in values:
            if (value.signal.kind, value.order) != (first.signal.kind, first.order):
                raise self.mismatch(
                    operator, f"joins {value.signal} to {first.signal}", "want all alike"
                )
        signal = replace(first.signal, size=sum(value.signal.size for value in values))
        inputs = tuple(value.index for value in values)
        self.warn(operator, CONCAT_TRAPS, "concat")
        self.add(
            operator, signal, first.order,
            lambda name, index: ConcatOp(name, inputs, index), "concat",
        )  # fmt: skip

    def joinable(self, operator: TfliteOperator, position: int, axis: int) -> Value:
        """Return an input of CONCATENATION, whose features lie on ``axis``."""
        value = self.source(operator, position)
        self.integer(operator, value)
        self.same_scale(operator, position)
        axes = self.layout.file_axes(value, self.label(operator))
        if not -len(axes) <= axis < len(axes):
            raise self.damaged(operator, f"joins axis {axis} of {list(value.shape)}")
        sizes = self.layout.sizes(value.signal)
        joined = [name for name in axes[axis] if name == "size" or sizes[name] > 1]
        if axis % len(axes) != len(axes) - 1 or joined not in (["size"], ["time", "size"]):
            raise self.mismatch(
                operator, f"joins axis {axis} of {value.signal}", "want the features"
            )
        if joined == ["time", "size"]:
            return self.flattened(value, self.producers.get(operator.inputs[position]))
        return value

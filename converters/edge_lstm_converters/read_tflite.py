"""Full-integer ``.tflite`` to Program.

A Program's values are ``[batch, time, size]`` and ``[batch, size]`` whatever the file's layout,
so beside each of the file's tensors stands which canonical axes lie in its memory, in which
order. Operators that only move axes (RESHAPE, TRANSPOSE, ...) change that note and vanish.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.cells import (
    ActivationOp,
    DenseOp,
    DequantizeOp,
    EmbeddingOp,
    FlattenOp,
    LastStepOp,
    QuantizeOp,
)
from edge_lstm.cells.activation import FIXED_OUTPUT, Kind
from edge_lstm.cells.dense import FusedActivation
from edge_lstm.errors import UnreadableModel, UnsupportedModel
from edge_lstm.files import read_bytes
from edge_lstm.program import DType, Op, Profile, Program, Tensor, check_profile
from edge_lstm.spec import Signal, identifier
from edge_lstm_converters.read_tflite_lstm import read_lstm
from edge_lstm_converters.rules_tflite import TfliteLstm, is_scale
from edge_lstm_converters.tflite_axes import (
    CANONICAL,
    TIME_MAJOR,
    Axis,
    Layout,
    LayoutMismatch,
    Value,
    axes_text,
    possible_layouts,
)
from edge_lstm_converters.tflite_schema import (
    ABSENT,
    TfliteModel,
    TfliteOperator,
    TfliteTensor,
    parse,
)
from edge_lstm_converters.tflite_tables import (
    ACTIVATIONS,
    FullyConnectedOptions,
    GatherOptions,
    SequenceLstmOptions,
    SoftmaxOptions,
    StridedSliceOptions,
)

Options = TypeVar("Options")

_DTYPES: dict[str, DType] = {
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int32",  # token ids; a Program has them as int32
    "float32": "float32",
}
_FUSED: dict[str, FusedActivation] = {
    "none": "none",
    "relu": "relu",
    "relu6": "relu6",
    "relu_n1_to_1": "relu_n1_to_1",
}
_ELEMENTWISE: dict[str, Kind] = {
    "LOGISTIC": "sigmoid",
    "TANH": "tanh",
    "RELU": "relu",
    "RELU6": "relu6",
}


def read_tflite(path: Path | str, profile: str = "tflm") -> Program:
    """Read a full-integer ``.tflite`` file, int8 or 16x8.

    The Program takes any number of steps, unless the file joins them (Flatten): its own number
    is kept in ``source["time_steps"]``.

    Args:
        path: the file.
        profile: whose arithmetic the Program has; see ``edge_lstm.program.PROFILES``.

    Raises:
        UnreadableModel: the file is damaged or of another format.
        UnsupportedModel: it holds something that has no counterpart here, said by name.
    """
    return program_from_bytes(read_bytes(path), str(path), profile)


def program_from_bytes(data: bytes, where: str, profile: str = "tflm") -> Program:
    """Return the Program in the bytes of a ``.tflite`` file; ``where`` is its name."""
    model = parse(data, where)
    first: LayoutMismatch | None = None
    for layout in possible_layouts(model, where):
        try:
            return _Graph(model, where, check_profile(profile), layout).program()
        except LayoutMismatch as mismatch:
            first = first or mismatch
    assert first is not None
    raise UnsupportedModel(str(first)) from first


class _Graph:
    """Builds the Program, operator by operator."""

    def __init__(self, model: TfliteModel, where: str, profile: Profile, layout: Layout) -> None:
        self.model, self.where, self.profile, self.layout = model, where, profile, layout
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []
        self.notes: list[str] = []
        self.time_steps: int | None = None
        self.names: set[str] = set()
        self.values: dict[int, Value] = {}
        self.producers = {o.outputs[0]: o for o in model.operators if o.outputs}
        self.handlers: dict[str, Callable[[TfliteOperator], None]] = {
            "UNIDIRECTIONAL_SEQUENCE_LSTM": self.lstm,
            "FULLY_CONNECTED": self.dense,
            "STRIDED_SLICE": self.last_step,
            "RESHAPE": self.reshape,
            "SQUEEZE": self.reshape,
            "EXPAND_DIMS": self.reshape,
            "TRANSPOSE": self.transpose,
            "GATHER": self.embedding,
            "SOFTMAX": self.softmax,
            "QUANTIZE": self.quantize,
            "DEQUANTIZE": self.dequantize,
            **dict.fromkeys(_ELEMENTWISE, self.elementwise),
        }
        source = model.tensors[model.inputs[0]]
        index = self.add_tensor("input", source, layout.signal)
        self.values[model.inputs[0]] = Value(index, layout.signal, layout.order, source.shape)

    def program(self) -> Program:
        for operator in self.model.operators:
            if operator.code not in self.handlers:
                raise UnsupportedModel(
                    f"{self.where}: operator {operator.code} has no counterpart here; operators"
                    f" must be of {', '.join(sorted(self.handlers))}"
                )
            if len(operator.outputs) != 1 or operator.outputs[0] == ABSENT:
                raise self.damaged(operator, f"has {len(operator.outputs)} outputs")
            self.handlers[operator.code](operator)
        last = self.model.outputs[0]
        if last not in self.values:
            raise UnreadableModel(f"{self.where}: no operator writes the output; get it again")
        result = self.settled(last)
        source = {
            "format": "tflite",
            "description": self.model.description,
            "batch_size": str(self.layout.batch_size),
            "time_steps": str(self.layout.time_steps),
            "input_axes": axes_text(self.layout.order),
            "output_axes": axes_text(result.order),
        }
        return Program(
            name=identifier(Path(self.where).stem),
            profile=self.profile,
            tensors=tuple(self.tensors),
            ops=tuple(self.ops),
            input=0,
            output=result.index,
            time_steps=self.time_steps,
            source=source,
            warnings=tuple(self.notes),
        )

    # ------------------------------------------------------------------------- what all need

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
        if position >= len(operator.inputs) or operator.inputs[position] not in self.values:
            raise self.refuse(
                operator, f"input {position} is not computed from the model's input", "it must be"
            )
        return self.values[operator.inputs[position]]

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
        self, operator: TfliteOperator, source: Value, signal: Signal, order: tuple[Axis, ...],
        make: Callable[[str, int], Op], type_name: str,
    ) -> None:  # fmt: skip
        """Add an op that ``make`` returns for a name and an output tensor."""
        tensor = self.output(operator)
        if math.prod(tensor.shape) != self.layout.count(signal):
            raise self.damaged(operator, f"gives shape {list(tensor.shape)}, which cannot be")
        name = self.name(operator, type_name)
        index = self.add_tensor(f"{name}.output", tensor, signal)
        self.ops.append(make(name, index))
        del source
        self.values[operator.outputs[0]] = Value(index, signal, order, tensor.shape)

    def integer(self, operator: TfliteOperator, value: Value) -> None:
        if not self.tensors[value.index].is_quantized:
            raise self.refuse(
                operator,
                f"is fed {self.tensors[value.index].dtype}",
                "a full-integer model computes in int8; convert float models with --quant int8",
            )

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

    # ------------------------------------------------------------------------- operators

    def lstm(self, operator: TfliteOperator) -> None:
        value = self.source(operator)
        options = self.options(operator, SequenceLstmOptions)
        order = TIME_MAJOR if options.time_major else CANONICAL
        sizes = self.layout.sizes(value.signal)
        fits = value.shape == tuple(sizes.get(axis, 0) for axis in order)
        if value.signal.kind != "sequence" or not fits or not self.layout.lies_as(value, order):
            raise self.mismatch(
                operator,
                f"is fed {value.signal} as {list(value.shape)}",
                f"want a sequence with axes {', '.join(order)}",
            )
        self.integer(operator, value)
        name = self.name(operator, "lstm")
        self.names.discard(name)
        lstm = TfliteLstm(self.model, operator, self.profile)
        read = read_lstm(lstm, self.label(operator), name)
        self.notes += read.notes
        if read.op.input_size != value.signal.size:
            raise self.damaged(operator, f"has weights for {read.op.input_size} features")
        signal = Signal("sequence", read.op.output_size)

        def make(name: str, index: int) -> Op:
            return replace(read.op, name=name, inputs=(value.index,), output=index)

        self.add(operator, value, signal, order, make, "lstm")

    def dense(self, operator: TfliteOperator) -> None:
        options = self.options(operator, FullyConnectedOptions)
        weights = self.constant(operator, 1, "weights")
        activation = ACTIVATIONS.get(options.fused_activation, str(options.fused_activation))
        if activation not in _FUSED:
            raise self.refuse(
                operator, f"has fused activation {activation}", f"want {', '.join(_FUSED)}"
            )
        if options.weights_format != 0:
            raise self.refuse(operator, "has shuffled weights", "want the default format")
        if weights.dtype != "int8" or len(weights.shape) != 2 or 0 in weights.shape:
            raise self.refuse(
                operator,
                f"weights are {weights.dtype} {list(weights.shape)}",
                "want int8 [outputs, inputs]",
            )
        outputs, depth = weights.shape
        value = self.last_axis(operator, self.source(operator), depth)
        scales = self.weight_scales(operator, weights)
        wide = self.tensors[value.index].dtype == "int16"
        bias: Array = np.zeros(outputs, np.int64 if wide else np.int32)
        if self.operand(operator, 2) is not None:
            tensor = self.constant(operator, 2, "bias")
            allowed = ("int32", "int64") if wide else ("int32",)
            if tensor.dtype not in allowed or tensor.shape != (outputs,):
                raise self.refuse(
                    operator,
                    f"bias is {tensor.dtype} {list(tensor.shape)}",
                    f"want {allowed[0]} [{outputs}]",
                )
            bias = tensor.array()
        signal = replace(value.signal, size=outputs)

        def make(name: str, index: int) -> Op:
            return DenseOp(
                name, (value.index,), index, weights.array(), bias, scales, _FUSED[activation]
            )

        self.add(operator, value, signal, value.order, make, "dense")

    def weight_scales(self, operator: TfliteOperator, weights: TfliteTensor) -> Array:
        if any(weights.zero_points):
            raise self.refuse(operator, "weights have a zero point", "it must be 0")
        if len(weights.scales) not in (1, weights.shape[0]) or weights.axis != 0:
            raise self.refuse(
                operator,
                f"weights have {len(weights.scales)} scales on axis {weights.axis}",
                "want one, or one for each output",
            )
        scales = np.array(weights.scales, np.float32)
        if not all(is_scale(scale) for scale in weights.scales):
            raise self.refuse(operator, "weights have a scale out of range", "want 1e-12 to 1e12")
        return scales

    def last_step(self, operator: TfliteOperator) -> None:
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
        taken = False
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
                taken = size == steps
            elif kept != range(size):
                raise self.refuse(
                    operator,
                    f"takes {list(kept[:3])} of {size} on axis {k} of {value.signal}",
                    "want the last step",
                )
        if not taken or value.signal.kind != "sequence":
            raise self.refuse(operator, "does not take the last step", "want that and no other")
        signal = Signal("vector", value.signal.size)
        order = tuple(axis for axis in value.order if axis != "time")
        self.same_scale(operator)
        self.add(
            operator, value, signal, order,
            lambda name, index: LastStepOp(name, (value.index,), index), "last_step",
        )  # fmt: skip

    def same_scale(self, operator: TfliteOperator, position: int = 0) -> None:
        """Check that an operator that only copies has one scale on both sides."""
        source, output = self.operand(operator, position), self.output(operator)
        assert source is not None
        if (source.scales, source.zero_points) != (output.scales, output.zero_points):
            raise self.refuse(
                operator, "changes the scale", "input and output must have the same one"
            )

    def reshape(self, operator: TfliteOperator) -> None:
        value, tensor = self.source(operator), self.output(operator)
        if math.prod(tensor.shape) != math.prod(value.shape):
            raise self.damaged(operator, f"makes {list(tensor.shape)} of {list(value.shape)}")
        self.same_scale(operator)
        self.values[operator.outputs[0]] = replace(value, shape=tensor.shape)

    def transpose(self, operator: TfliteOperator) -> None:
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

    def embedding(self, operator: TfliteOperator) -> None:
        options = self.options(operator, GatherOptions)
        table, output = self.constant(operator, 0, "table"), self.output(operator)
        value = self.source(operator, 1)
        if value.signal.kind != "tokens" or value.signal.size not in (0, len(table.array())):
            raise self.refuse(operator, f"indices are {value.signal}", "want the model's token ids")
        if options.axis != 0 or options.batch_dims != 0 or len(table.shape) != 2:
            raise self.refuse(
                operator,
                f"gathers on axis {options.axis} of {list(table.shape)}",
                "want rows of a table [tokens, features]",
            )
        if table.dtype not in ("int8", "int16") or table.dtype != output.dtype:
            raise self.refuse(operator, f"table is {table.dtype}", "want int8")
        self.same_scale(operator)
        tokens = replace(value.signal, size=table.shape[0])
        self.tensors[value.index] = replace(self.tensors[value.index], signal=tokens)
        before = operator.inputs[1]
        self.values[before] = replace(value, signal=tokens)
        rows = table.array()
        self.add(
            operator, value, Signal("sequence", table.shape[1]), (*value.order, "size"),
            lambda name, index: EmbeddingOp(name, (value.index,), index, rows), "embedding",
        )  # fmt: skip

    def softmax(self, operator: TfliteOperator) -> None:
        options = self.options(operator, SoftmaxOptions)
        source = self.source(operator)
        value = self.last_axis(operator, source, source.shape[-1] if source.shape else 0)
        self.activation(operator, value, "softmax", options.beta)

    def elementwise(self, operator: TfliteOperator) -> None:
        value = self.source(operator)
        self.integer(operator, value)
        self.activation(operator, value, _ELEMENTWISE[operator.code], 1.0)

    def activation(self, operator: TfliteOperator, value: Value, kind: Kind, beta: float) -> None:
        tensor = self.output(operator)
        if tensor.dtype != "int8" or self.tensors[value.index].dtype != "int8":
            raise self.refuse(operator, f"gives {tensor.dtype}", "want int8 activations")
        if not (math.isfinite(beta) and beta > 0):
            raise self.refuse(operator, f"has beta {beta}", "it must be positive")
        found = self.scale(tensor, self.label(operator))
        if kind in FIXED_OUTPUT and found != FIXED_OUTPUT[kind]:
            raise self.refuse(
                operator,
                f"output has scale and zero point {found}",
                f"the kernels take {FIXED_OUTPUT[kind]} for granted",
            )
        self.add(
            operator, value, value.signal, value.order,
            lambda name, index: ActivationOp(name, (value.index,), index, kind, beta), kind,
        )  # fmt: skip

    def quantize(self, operator: TfliteOperator) -> None:
        value, tensor = self.source(operator), self.output(operator)
        source = self.tensors[value.index].dtype
        if source not in ("float32", "int8") or tensor.dtype != "int8":
            raise self.refuse(
                operator, f"makes {tensor.dtype} of {source}", "want int8 of float32 or int8"
            )
        self.add(
            operator, value, value.signal, value.order,
            lambda name, index: QuantizeOp(name, (value.index,), index), "quantize",
        )  # fmt: skip

    def dequantize(self, operator: TfliteOperator) -> None:
        value = self.source(operator)
        self.integer(operator, value)
        if self.output(operator).dtype != "float32":
            raise self.refuse(operator, f"gives {self.output(operator).dtype}", "want float32")
        self.add(
            operator, value, value.signal, value.order,
            lambda name, index: DequantizeOp(name, (value.index,), index), "dequantize",
        )  # fmt: skip

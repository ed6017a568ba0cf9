"""Full-integer ``.tflite`` to Program.

A Program's values are ``[batch, time, size]`` and ``[batch, size]`` whatever the file's layout;
``tflite_graph`` keeps account of that. Here is one method for each operator that computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.cells import (
    ActivationOp,
    AddOp,
    DenseOp,
    DequantizeOp,
    EmbeddingOp,
    MulOp,
    QuantizeOp,
    SubOp,
)
from edge_lstm.cells.activation import Kind, fixed_output
from edge_lstm.cells.dense import FusedActivation
from edge_lstm.errors import UnreadableModel, UnsupportedModel
from edge_lstm.files import read_bytes
from edge_lstm.program import Op, Profile, Program, check_profile
from edge_lstm.spec import Signal, identifier
from edge_lstm_converters.read_tflite_lstm import read_lstm
from edge_lstm_converters.rules_tflite import TfliteLstm, is_scale
from edge_lstm_converters.tflite_axes import (
    Layout,
    LayoutMismatch,
    Value,
    axes_text,
    possible_layouts,
)
from edge_lstm_converters.tflite_graph import TfliteGraph
from edge_lstm_converters.tflite_schema import (
    ABSENT,
    TfliteModel,
    TfliteOperator,
    TfliteTensor,
    parse,
)
from edge_lstm_converters.tflite_tables import (
    ACTIVATIONS,
    AddOptions,
    FullyConnectedOptions,
    GatherOptions,
    MulOptions,
    SequenceLstmOptions,
    SoftmaxOptions,
    SubOptions,
)
from edge_lstm_converters.traps_tflite import LSTM_TRAPS, notes

_FUSED: dict[str, FusedActivation] = {
    "none": "none",
    "relu": "relu",
    "relu6": "relu6",
    "relu_n1_to_1": "relu_n1_to_1",
}
_OF_TWO: dict[str, tuple[type[AddOp | MulOp], type[AddOptions | SubOptions | MulOptions]]] = {
    "ADD": (AddOp, AddOptions),
    "SUB": (SubOp, SubOptions),
    "MUL": (MulOp, MulOptions),
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
            return _Reader(model, where, check_profile(profile), layout).program()
        except LayoutMismatch as mismatch:
            first = first or mismatch
    assert first is not None
    raise UnsupportedModel(str(first)) from first


class _Reader(TfliteGraph):
    """Builds the Program, operator by operator."""

    def __init__(self, model: TfliteModel, where: str, profile: Profile, layout: Layout) -> None:
        super().__init__(model, where, profile, layout)
        self.handlers: dict[str, Callable[[TfliteOperator], None]] = {
            "UNIDIRECTIONAL_SEQUENCE_LSTM": self.lstm,
            "FULLY_CONNECTED": self.dense,
            "ADD": self.sum,
            "SUB": self.sum,
            "MUL": self.sum,
            "STRIDED_SLICE": self.one_step,
            "RESHAPE": self.reshape,
            "SQUEEZE": self.reshape,
            "EXPAND_DIMS": self.reshape,
            "TRANSPOSE": self.transpose,
            "REVERSE_V2": self.reverse,
            "CONCATENATION": self.concatenation,
            "GATHER": self.embedding,
            "SOFTMAX": self.softmax,
            "QUANTIZE": self.quantize,
            "DEQUANTIZE": self.dequantize,
            **dict.fromkeys(_ELEMENTWISE, self.elementwise),
        }

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
        for index in self.states:
            name = self.model.tensors[index].name
            raise UnsupportedModel(
                f"{self.where}: no operator writes the state {name!r}; a CONCATENATION of one must"
            )
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

    # ------------------------------------------------------------------------- operators

    def lstm(self, operator: TfliteOperator) -> None:
        options = self.options(operator, SequenceLstmOptions)
        value, order = self.sequence(operator, time_major=options.time_major)
        name = self.name(operator, "lstm")
        self.names.discard(name)
        lstm = TfliteLstm(self.model, operator, self.profile)
        op = read_lstm(lstm, self.label(operator), name)
        self.notes += notes(LSTM_TRAPS, lstm, f"layer {name!r}")
        if op.input_size != value.signal.size:
            raise self.damaged(operator, f"has weights for {op.input_size} features")
        signal = Signal("sequence", op.output_size)

        def make(name: str, index: int) -> Op:
            return replace(op, name=name, inputs=(value.index,), output=index)

        self.add(operator, signal, order, make, "lstm")

    def dense(self, operator: TfliteOperator) -> None:
        options = self.options(operator, FullyConnectedOptions)
        weights = self.constant(operator, 1, "weights")
        activation = self.fused(operator, options.fused_activation)
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
        elif wide and self.profile == "litert":
            raise self.refuse(
                operator,
                "has int16 values and no bias",
                "LiteRT runs that by a kernel that is not computed here; write zeros, or load with"
                " litert-ref or tflm",
            )
        signal = replace(value.signal, size=outputs)

        def make(name: str, index: int) -> Op:
            return DenseOp(name, (value.index,), index, weights.array(), bias, scales, activation)

        self.add(operator, signal, value.order, make, "dense")

    def sum(self, operator: TfliteOperator) -> None:
        op_type, options_type = _OF_TWO[operator.code]
        options = self.options(operator, options_type)
        activation = self.fused(operator, options.fused_activation)
        if len(operator.inputs) != 2:
            raise self.damaged(operator, f"takes {len(operator.inputs)} values")
        values = [self.source(operator, position) for position in range(2)]
        for value in values:
            self.integer(operator, value)
        first, second = values
        if (first.signal, first.order) != (second.signal, second.order):
            raise self.refuse(
                operator, f"joins {second.signal} to {first.signal}", "want both alike"
            )
        dtypes = {self.tensors[value.index].dtype for value in values}
        if dtypes != {self.output(operator).dtype}:
            raise self.refuse(operator, f"joins {', '.join(sorted(dtypes))}", "want one type")
        if dtypes == {"int16"}:
            self.general_int16(operator, options, [value.index for value in values])
        inputs = (first.index, second.index)
        self.add(
            operator, first.signal, first.order,
            lambda name, index: op_type(name, inputs, index, activation), op_type.type_name,
        )  # fmt: skip

    def general_int16(self, operator: TfliteOperator, options: object, indices: list[int]) -> None:
        """Check that LiteRT takes its general kernel for int16, the only one that TFLM has."""
        scales = [self.tensors[index].scale for index in indices]
        scales.append(self.scale(self.output(operator), self.where)[0])
        powers = all(math.frexp(scale)[0] == 0.5 for scale in scales)
        if getattr(options, "pot_scale_int16", False) and powers:
            raise self.refuse(
                operator,
                "has pot_scale_int16 and scales that are powers of two",
                "LiteRT and TFLM run this differently; write it without pot_scale_int16",
            )
        for index in indices:
            self.around_zero(operator, index)

    def fused(self, operator: TfliteOperator, code: int) -> FusedActivation:
        activation = ACTIVATIONS.get(code, str(code))
        if activation not in _FUSED:
            raise self.refuse(
                operator, f"has fused activation {activation}", f"want {', '.join(_FUSED)}"
            )
        return _FUSED[activation]

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
            operator, Signal("sequence", table.shape[1]), (*value.order, "size"),
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
        fed = self.tensors[value.index].dtype
        if tensor.dtype != fed:
            raise self.refuse(operator, f"makes {tensor.dtype} of {fed}", "want one type")
        if not (math.isfinite(beta) and beta > 0):
            raise self.refuse(operator, f"has beta {beta}", "it must be positive")
        found = self.scale(tensor, self.label(operator))
        wanted = fixed_output(kind, fed)
        if wanted not in (None, found):
            raise self.refuse(
                operator,
                f"output has scale and zero point {found}",
                f"the kernels take {wanted} for granted",
            )
        if fed == "int16":
            self.around_zero(operator, value.index)
        self.add(
            operator, value.signal, value.order,
            lambda name, index: ActivationOp(name, (value.index,), index, kind, beta), kind,
        )  # fmt: skip

    def around_zero(self, operator: TfliteOperator, index: int) -> None:
        if self.tensors[index].zero_point != 0:
            raise self.refuse(operator, "is fed int16 with a zero point", "it must be 0")

    def quantize(self, operator: TfliteOperator) -> None:
        value, tensor = self.source(operator), self.output(operator)
        source = self.tensors[value.index].dtype
        integers = ("int8", "int16")
        if source not in ("float32", *integers) or tensor.dtype not in integers:
            raise self.refuse(
                operator,
                f"makes {tensor.dtype} of {source}",
                "want integers of 8 or 16 bits",
            )
        self.add(
            operator, value.signal, value.order,
            lambda name, index: QuantizeOp(name, (value.index,), index), "quantize",
        )  # fmt: skip

    def dequantize(self, operator: TfliteOperator) -> None:
        value = self.source(operator)
        self.integer(operator, value)
        if self.output(operator).dtype != "float32":
            raise self.refuse(operator, f"gives {self.output(operator).dtype}", "want float32")
        self.add(
            operator, value.signal, value.order,
            lambda name, index: DequantizeOp(name, (value.index,), index), "dequantize",
        )  # fmt: skip

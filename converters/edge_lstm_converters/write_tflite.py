"""Program to full-integer ``.tflite``, and ModelSpec to float ``.tflite``.

The form is the one that alike loads and runs in LiteRT, tflite-runtime and TFLM, and that
ethos-u-vela places on the NPU: 24 inputs to the LSTM, five intermediates of its own, states
that are variable and have no data, operator versions of the official converter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.cells import (
    Activation,
    ActivationOp,
    AddOp,
    ConcatOp,
    Dense,
    DenseOp,
    DequantizeOp,
    Dropout,
    Embedding,
    EmbeddingOp,
    FirstStepOp,
    Flatten,
    FlattenOp,
    LastStep,
    LastStepOp,
    Lstm,
    LstmOp,
    MulOp,
    QuantizeOp,
    ReadStateOp,
    ReverseOp,
    SubOp,
    WriteStateOp,
)
from edge_lstm.errors import UnsupportedModel, UsageError
from edge_lstm.files import write_atomically
from edge_lstm.program import Op, Program
from edge_lstm.quantize import fuse
from edge_lstm.spec import Layer, ModelSpec, Signal
from edge_lstm_converters.tflite_schema import (
    ABSENT,
    TfliteModel,
    TfliteOperator,
    TfliteTensor,
    serialize,
)
from edge_lstm_converters.tflite_tables import (
    ACTIVATIONS,
    TANH,
    AddOptions,
    ConcatenationOptions,
    DequantizeOptions,
    FullyConnectedOptions,
    GatherOptions,
    MulOptions,
    QuantizeOptions,
    ReshapeOptions,
    ReverseV2Options,
    SequenceLstmOptions,
    SoftmaxOptions,
    StridedSliceOptions,
    SubOptions,
)

DESCRIPTION = "edge-lstm"
GATE_WORDS = ("input", "forget", "cell", "output")
PEEPHOLE_WORDS = ("input", "forget", "output")
FUSED_CODES = {name: code for code, name in ACTIVATIONS.items()}
ACTIVATION_OPERATORS = {
    "sigmoid": "LOGISTIC",
    "tanh": "TANH",
    "softmax": "SOFTMAX",
    "relu": "RELU",
    "relu6": "RELU6",
}
# Operator versions as the official converter counts them (tools/versioning/op_version.cc).
INTEGER_VERSIONS = {
    "FULLY_CONNECTED": 4,
    "STRIDED_SLICE": 2,
    "SOFTMAX": 2,
    "LOGISTIC": 2,
    "TANH": 2,
    "RELU": 2,
    "RELU6": 2,
    "GATHER": 2,
    "DEQUANTIZE": 2,
    "CONCATENATION": 2,
    "REVERSE_V2": 3,
    "ADD": 2,
    "SUB": 2,
    "MUL": 2,
}
WIDE_VERSIONS = {
    "FULLY_CONNECTED": 7,
    "STRIDED_SLICE": 4,
    "SOFTMAX": 3,
    "LOGISTIC": 3,
    "TANH": 3,
    "RELU": 3,
    "RELU6": 3,
    "QUANTIZE": 2,
    "DEQUANTIZE": 3,
    "CONCATENATION": 3,
    "ADD": 3,
    "SUB": 5,
    "MUL": 4,
}


def write_tflite(program: Program, path: Path | str, time_steps: int | None = None) -> None:
    """Write a full-integer ``.tflite`` file.

    Args:
        program: the model.
        path: the file, replaced whole or not at all.
        time_steps: that the file takes at once; None: the program's own, or 1 for streaming.

    Raises:
        UnsupportedModel: the program holds something that a ``.tflite`` cannot.
    """
    steps = time_steps if time_steps is not None else program.time_steps or 1
    write_atomically(path, tflite_bytes(program, steps))


def tflite_bytes(program: Program, time_steps: int, batch_size: int = 1) -> bytes:
    """Return the bytes of a full-integer ``.tflite`` file; equal programs, equal bytes.

    Args:
        program: the model. Its profile does not go into the file.
        time_steps: of its input, ``[batch, time, features]``; 1 for streaming, where the
            interpreter carries the state from call to call.
        batch_size: rows of its input.

    Raises:
        UnsupportedModel: the program holds something that a ``.tflite`` cannot.
        UsageError: the model does not take ``time_steps``.
    """
    return serialize(_IntegerWriter(program, time_steps, batch_size).model())


def write_float_tflite(spec: ModelSpec, path: Path | str, time_steps: int | None = None) -> None:
    """Write a float32 ``.tflite`` file with fused LSTMs; arguments as ``write_tflite``."""
    steps = time_steps if time_steps is not None else spec.time_steps or 1
    write_atomically(path, float_tflite_bytes(spec, steps))


def float_tflite_bytes(spec: ModelSpec, time_steps: int, batch_size: int = 1) -> bytes:
    """Return the bytes of a float32 ``.tflite`` file; arguments as ``tflite_bytes``."""
    return serialize(_FloatWriter(spec, time_steps, batch_size).model())


@dataclass(frozen=True)
class _Quantization:
    """Scales and zero points of a tensor; none for float and int32 values."""

    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()


_NONE = _Quantization()


def _symmetric(*scales: float) -> _Quantization:
    return _Quantization(tuple(float(s) for s in scales), (0,) * len(scales))


class _Writer:
    """What both forms share: the tensors and operators written so far.

    Args:
        versions: of the operators, 1 where not named.
    """

    def __init__(self, time_steps: int, batch_size: int) -> None:
        for what, value in (("time_steps", time_steps), ("batch_size", batch_size)):
            if value < 1:
                raise UsageError(f"{what} {value}: must be at least 1")
        self.time_steps, self.batch_size = time_steps, batch_size
        self.versions: dict[str, int] = {}
        self.has_state = False
        self.tensors: list[TfliteTensor] = []
        self.operators: list[TfliteOperator] = []

    def shape(self, signal: Signal) -> tuple[int, ...]:
        """Return the file's shape of a signal."""
        if signal.kind == "tokens":
            return (self.batch_size, self.time_steps)
        if signal.kind == "sequence":
            return (self.batch_size, self.time_steps, signal.size)
        return (self.batch_size, signal.size)

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        quantization: _Quantization = _NONE,
        *,
        is_variable: bool = False,
    ) -> int:
        self.tensors.append(
            TfliteTensor(
                name,
                shape,
                dtype,
                quantization.scales,
                quantization.zero_points,
                is_variable=is_variable,
            )
        )
        return len(self.tensors) - 1

    def constant(self, name: str, values: Array, quantization: _Quantization = _NONE) -> int:
        data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        self.tensors.append(
            TfliteTensor(
                name,
                values.shape,
                values.dtype.name,
                quantization.scales,
                quantization.zero_points,
                data=data,
            )
        )
        return len(self.tensors) - 1

    def operator(
        self,
        code: str,
        inputs: tuple[int, ...],
        output: int,
        options: Any = None,
        intermediates: tuple[int, ...] = (),
    ) -> None:
        version = self.versions.get(code, 1)
        self.operators.append(
            TfliteOperator(code, inputs, (output,), options, intermediates, version)
        )

    def reshape(self, name: str, source: int, output: int) -> None:
        shape = self.tensors[output].shape
        target = self.constant(f"{name}.shape", np.array(shape, np.int32))
        self.operator("RESHAPE", (source, target), output, ReshapeOptions(shape))

    def reshaped(self, name: str, source: int, shape: tuple[int, ...]) -> int:
        """Return a copy of ``source`` in another shape."""
        like = self.tensors[source]
        output = self.tensor(name, shape, like.dtype, _Quantization(like.scales, like.zero_points))
        self.reshape(name, source, output)
        return output

    def one_step(self, name: str, source: int, output: int, step: int) -> None:
        indices = tuple(
            self.constant(f"{name}.{word}", np.array(values, np.int32))
            for word, values in (
                ("begin", [0, step, 0]),
                ("end", [0, step + 1, 0]),
                ("strides", [1, 1, 1]),
            )
        )
        # Axes 0 and 2 whole (mask 0b101); axis 1 at the step, and gone (mask 0b010).
        options = StridedSliceOptions(begin_mask=5, end_mask=5, shrink_axis_mask=2)
        self.operator("STRIDED_SLICE", (source, *indices), output, options)

    def dense(
        self, name: str, source: int, output: int, weights: int, bias: int, activation: str
    ) -> None:
        """Add FULLY_CONNECTED; on a sequence it acts on [batch * time, features].

        Rank 2 on both sides is what every interpreter and Vela take; keep_num_dims is not. Only
        the int16 values inside a graph with a state, which Vela cannot have, keep three axes.
        """
        result = self.tensors[output]
        keeps = self.has_state and len(result.shape) == 3 and result.dtype == "int16"
        options = FullyConnectedOptions(FUSED_CODES[activation], keep_num_dims=keeps)
        if keeps or len(result.shape) == 2:
            self.operator("FULLY_CONNECTED", (source, weights, bias), output, options)
            return
        steps = self.batch_size * self.time_steps
        rows = self.reshaped(f"{name}.rows", source, (steps, self.tensors[source].shape[-1]))
        product = len(self.tensors)
        # The product has the layer's name, by which the file is read back.
        self.tensors.append(replace(result, shape=(steps, result.shape[-1])))
        self.tensors[output] = replace(result, name=f"{name}.steps")
        self.operator("FULLY_CONNECTED", (rows, weights, bias), product, options)
        self.reshape(f"{name}.steps", product, output)

    def activation(self, kind: str, source: int, output: int, beta: float = 1.0) -> None:
        options = SoftmaxOptions(beta) if kind == "softmax" else None
        self.operator(ACTIVATION_OPERATORS[kind], (source,), output, options)

    def finished(self, source: int, output: int) -> TfliteModel:
        return TfliteModel(
            tuple(self.tensors), tuple(self.operators), (source,), (output,), DESCRIPTION
        )


class _IntegerWriter(_Writer):
    """Writes a Program, op by op."""

    def __init__(self, program: Program, time_steps: int, batch_size: int) -> None:
        super().__init__(time_steps, batch_size)
        self.program = program
        self.has_state = program.has_state_ops
        if self.has_state and not (program.streams and time_steps == 1):
            blocking = [op.name for op in program.ops if not op.streams]
            found = f"layer {blocking[0]!r}" if blocking else f"a call of {time_steps} time steps"
            raise UsageError(
                f"{program.name}: {found} needs several steps at once, and a GRU or plain RNN in"
                " .tflite is a graph of one; give time_steps 1, or write .elstm"
            )
        wide = any(t.dtype == "int16" for t in program.tensors)
        self.versions = {**INTEGER_VERSIONS, **(WIDE_VERSIONS if wide else {})}
        self.indices: dict[int, int] = {}
        self.writers: dict[type[Op], Callable[[Any, int, int], None]] = {
            LstmOp: self.lstm,
            DenseOp: self.dense_op,
            ActivationOp: lambda op, x, y: self.activation(op.kind, x, y, op.beta),
            EmbeddingOp: self.embedding,
            LastStepOp: lambda op, x, y: self.one_step(op.name, x, y, -1),
            FirstStepOp: lambda op, x, y: self.one_step(op.name, x, y, 0),
            ReverseOp: self.reverse,
            ConcatOp: self.concat,
            AddOp: self.sum,
            SubOp: self.sum,
            MulOp: self.sum,
            ReadStateOp: self.state,
            WriteStateOp: self.keep,
            FlattenOp: self.flatten,
            QuantizeOp: lambda op, x, y: self.operator("QUANTIZE", (x,), y, QuantizeOptions()),
            DequantizeOp: lambda op, x, y: self.operator(
                "DEQUANTIZE", (x,), y, DequantizeOptions()
            ),
        }

    def model(self) -> TfliteModel:
        program = self.program
        self.indices[program.input] = self.value(program.input)
        for op in program.ops:
            if type(op) not in self.writers:
                raise UnsupportedModel(
                    f"layer {op.name!r} ({op.type_name}): has no counterpart in .tflite; write"
                    " .elstm"
                )
            source = self.indices[op.inputs[0]] if op.inputs else ABSENT
            if op.output not in self.indices:
                self.indices[op.output] = self.value(op.output)
            self.writers[type(op)](op, source, self.indices[op.output])
        return self.finished(self.indices[program.input], self.indices[program.output])

    def quantization(self, index: int) -> _Quantization:
        tensor = self.program.tensors[index]
        if not tensor.is_quantized:
            return _NONE
        return _Quantization((tensor.scale,), (tensor.zero_point,))

    def value(self, index: int) -> int:
        tensor = self.program.tensors[index]
        return self.tensor(
            tensor.name, self.shape(tensor.signal), tensor.dtype, self.quantization(index)
        )

    def flatten(self, op: FlattenOp, source: int, output: int) -> None:
        steps, size = self.tensors[source].shape[1:]
        joined = self.tensors[output].shape[1]
        if steps * size != joined:
            raise UsageError(
                f"time_steps {self.time_steps}: layer {op.name!r} joins exactly"
                f" {joined // size} steps; give time_steps {joined // size}"
            )
        self.reshape(op.name, source, output)

    def reverse(self, op: ReverseOp, source: int, output: int) -> None:
        axes = self.constant(f"{op.name}.axes", np.array([1], np.int32))
        self.operator("REVERSE_V2", (source, axes), output, ReverseV2Options())

    def concat(self, op: ConcatOp, source: int, output: int) -> None:
        del source
        inputs = tuple(self.indices[index] for index in op.inputs)
        axis = len(self.tensors[output].shape) - 1
        self.operator("CONCATENATION", inputs, output, ConcatenationOptions(axis))

    def sum(self, op: AddOp | MulOp, source: int, output: int) -> None:
        del source
        inputs = tuple(self.indices[index] for index in op.inputs)
        fused = FUSED_CODES[op.activation]
        options: AddOptions | SubOptions | MulOptions = MulOptions(fused)
        if isinstance(op, AddOp):
            # By default LiteRT has another kernel for int16 of power-of-two scales; TFLM has one.
            pot_scale = self.tensors[output].dtype != "int16"
            options_type = SubOptions if isinstance(op, SubOp) else AddOptions
            options = options_type(fused, pot_scale_int16=pot_scale)
        self.operator(op.type_name.upper(), inputs, output, options)

    def state(self, op: ReadStateOp, source: int, output: int) -> None:
        """Make the state a variable tensor: it is read where another op has it as input."""
        del source
        if op.initial.any():
            raise UnsupportedModel(
                f"layer {op.name!r}: has an initial state that is not zero, for which .tflite has"
                " no place; write .elstm"
            )
        self.tensors[output] = replace(self.tensors[output], is_variable=True)

    def keep(self, op: WriteStateOp, source: int, output: int) -> None:
        """Copy a value to a variable tensor.

        By CONCATENATION of one: LiteRT gives the output of an ADD the memory of its input, and
        then a variable tensor has none.
        """
        del op
        axis = len(self.tensors[output].shape) - 1
        self.operator("CONCATENATION", (source,), output, ConcatenationOptions(axis))

    def embedding(self, op: EmbeddingOp, source: int, output: int) -> None:
        table = self.constant(f"{op.name}.table", op.table, self.quantization(op.output))
        self.operator("GATHER", (table, source), output, GatherOptions())

    def dense_op(self, op: DenseOp, source: int, output: int) -> None:
        if op.weight_zero_point != 0:
            raise UnsupportedModel(
                f"layer {op.name!r}: weights have zero point {op.weight_zero_point}; want 0"
            )
        scales = op.weight_scales
        in_scale = np.float32(self.program.tensors[op.inputs[0]].scale)
        weights = self.constant(f"{op.name}.weights", op.weights, _symmetric(*scales))
        bias = self.constant(f"{op.name}.bias", op.bias, _symmetric(*(in_scale * scales)))
        self.dense(op.name, source, output, weights, bias, op.activation)

    def lstm(self, op: LstmOp, source: int, output: int) -> None:
        if (op.initial_hidden != op.hidden_zero_point).any() or op.initial_cell.any():
            raise UnsupportedModel(
                f"layer {op.name!r}: has an initial state that is not zero, for which .tflite has"
                " no place; write .elstm, or set the variable tensors after each reset yourself"
            )
        if op.time_major and op.peephole is not None and op.projection_weights is not None:
            raise UnsupportedModel(
                f"layer {op.name!r}: peepholes with a projection depend on the file's time-major"
                " layout; this writer gives batch-major files"
            )
        hidden = _Quantization((op.hidden_scale,), (op.hidden_zero_point,))
        inputs = [source, *[ABSENT] * 23]
        in_scale = np.float32(self.program.tensors[op.inputs[0]].scale)
        for gate, word in enumerate(GATE_WORDS):
            if op.coupled and gate == 0:
                continue
            scale, recurrent_scale = op.input_weight_scales[gate], op.recurrent_weight_scales[gate]
            inputs[1 + gate] = self.constant(
                f"{op.name}.input_weights.{word}", op.input_weights[gate], _symmetric(scale)
            )
            inputs[5 + gate] = self.constant(
                f"{op.name}.recurrent_weights.{word}",
                op.recurrent_weights[gate],
                _symmetric(recurrent_scale),
            )
            # Not read by any kernel; the converter writes it so.
            bias_scale = float(in_scale * scale)
            if op.layer_norm_scales is not None:
                bias_scale = float(op.layer_norm_scales[gate]) * 2.0**-10
            inputs[12 + gate] = self.constant(
                f"{op.name}.bias.{word}", op.bias[gate], _symmetric(bias_scale)
            )
            if op.layer_norm is not None and op.layer_norm_scales is not None:
                inputs[20 + gate] = self.constant(
                    f"{op.name}.layer_norm.{word}",
                    op.layer_norm[gate],
                    _symmetric(op.layer_norm_scales[gate]),
                )
        if op.peephole is not None and op.peephole_scales is not None:
            for row, word in enumerate(PEEPHOLE_WORDS):
                if not (op.coupled and row == 0):
                    inputs[9 + row] = self.constant(
                        f"{op.name}.peephole.{word}",
                        op.peephole[row],
                        _symmetric(op.peephole_scales[row]),
                    )
        if op.projection_weights is not None and op.projection_bias is not None:
            inputs[16] = self.constant(
                f"{op.name}.projection_weights",
                op.projection_weights,
                _symmetric(op.projection_scale),
            )
            inputs[17] = self.constant(
                f"{op.name}.projection_bias",
                op.projection_bias,
                _symmetric(op.projection_scale * op.product_scale),
            )
        dtype = self.tensors[source].dtype
        inputs[18] = self.tensor(
            f"{op.name}.hidden_state",
            (self.batch_size, op.output_size),
            dtype,
            hidden,
            is_variable=True,
        )
        inputs[19] = self.tensor(
            f"{op.name}.cell_state",
            (self.batch_size, op.cell_count),
            "int16",
            _symmetric(op.cell_scale),
            is_variable=True,
        )
        options = SequenceLstmOptions(
            fused_activation=TANH, cell_clip=op.cell_clip, projection_clip=op.projection_clip
        )
        self.operator(
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
            tuple(inputs),
            output,
            options,
            self.intermediates(op, dtype),
        )

    def intermediates(self, op: LstmOp, dtype: str) -> tuple[int, ...]:
        """Add the five tensors that TFLite reads scales from; TFLM wants them to be its own."""
        indices = []
        for gate, word in enumerate(GATE_WORDS):
            name = f"{op.name}.{word}_intermediate"
            if op.gate_scales is None:
                indices.append(self.tensor(name, (0,), "float32"))
            else:
                scale = _symmetric(op.gate_scales[gate])
                indices.append(self.tensor(name, (0,), "int16", scale))
        product = _Quantization((op.product_scale,), (op.product_zero_point,))
        indices.append(self.tensor(f"{op.name}.hidden_intermediate", (0,), dtype, product))
        return tuple(indices)


class _FloatWriter(_Writer):
    """Writes a ModelSpec in float32, layer by layer."""

    def __init__(self, spec: ModelSpec, time_steps: int, batch_size: int) -> None:
        super().__init__(time_steps, batch_size)
        self.spec = spec
        self.writers: dict[type[Layer], Callable[[Any, int, int], None]] = {
            Lstm: self.lstm,
            Dense: self.dense_layer,
            Activation: lambda layer, x, y: self.activation(layer.kind, x, y),
            Embedding: self.embedding,
            LastStep: lambda layer, x, y: self.one_step(layer.name, x, y, -1),
            Flatten: self.flatten,
        }

    def model(self) -> TfliteModel:
        signal = self.spec.input
        dtype = "int32" if signal.kind == "tokens" else "float32"
        start = value = self.tensor("input", self.shape(signal), dtype)
        for layer in fuse(self.spec.layers, {})[0]:
            before, signal = signal, layer.output_signal(signal)
            if isinstance(layer, Dropout) or (isinstance(layer, Flatten) and before == signal):
                continue
            if type(layer) not in self.writers:
                raise UnsupportedModel(
                    f"layer {layer.name!r} ({layer.type_name}): has no counterpart in .tflite;"
                    " write .onnx"
                )
            output = self.tensor(f"{layer.name}.output", self.shape(signal), "float32")
            self.writers[type(layer)](layer, value, output)
            value = output
        return self.finished(start, value)

    def flatten(self, layer: Flatten, source: int, output: int) -> None:
        if layer.time_steps != self.time_steps:
            raise UsageError(
                f"time_steps {self.time_steps}: layer {layer.name!r} joins exactly"
                f" {layer.time_steps} steps; give time_steps {layer.time_steps}"
            )
        self.reshape(layer.name, source, output)

    def embedding(self, layer: Embedding, source: int, output: int) -> None:
        table = self.constant(f"{layer.name}.table", layer.table)
        self.operator("GATHER", (table, source), output, GatherOptions())

    def dense_layer(self, layer: Dense, source: int, output: int) -> None:
        weights = self.constant(f"{layer.name}.weights", layer.weights)
        bias = self.constant(f"{layer.name}.bias", layer.bias)
        self.dense(layer.name, source, output, weights, bias, layer.activation)

    def lstm(self, layer: Lstm, source: int, output: int) -> None:
        variants = replace(layer, cell_clip=None).variants
        if variants:
            raise UnsupportedModel(
                f"layer {layer.name!r}: an LSTM with {' and '.join(variants)} is not written"
                " to a float .tflite; write .onnx"
            )
        for start in (layer.initial_hidden, layer.initial_cell):
            if start is not None and start.any():
                raise UnsupportedModel(
                    f"layer {layer.name!r}: has an initial state that is not zero, for which"
                    " .tflite has no place; write .onnx"
                )
        inputs = [source, *[ABSENT] * 23]
        for gate, (word, values) in enumerate(zip(GATE_WORDS, layer.gates, strict=True)):
            for first, field in ((1, "input_weights"), (5, "recurrent_weights"), (12, "bias")):
                inputs[first + gate] = self.constant(
                    f"{layer.name}.{field}.{word}", getattr(values, field)
                )
        for position, word in ((18, "hidden_state"), (19, "cell_state")):
            inputs[position] = self.tensor(
                f"{layer.name}.{word}",
                (self.batch_size, layer.hidden_size),
                "float32",
                is_variable=True,
            )
        options = SequenceLstmOptions(fused_activation=TANH, cell_clip=layer.cell_clip or 0.0)
        self.operator("UNIDIRECTIONAL_SEQUENCE_LSTM", tuple(inputs), output, options)

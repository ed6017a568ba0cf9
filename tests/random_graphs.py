"""Random programs of many ops: stacked, parallel and bidirectional LSTMs, and their heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.cells import (
    ActivationOp,
    AddOp,
    ConcatOp,
    DenseOp,
    EmbeddingOp,
    FirstStepOp,
    FlattenOp,
    LastStepOp,
    LstmOp,
    QuantizeOp,
    ReverseOp,
)
from edge_lstm.cells.activation import KINDS, fixed_output
from edge_lstm.cells.lstm_integer import TFLITE_PROFILES
from edge_lstm.program import Op, Profile, Program, Tensor
from edge_lstm.spec import Signal
from edge_lstm_converters.tflite_schema import TfliteTensor, parse, serialize
from strategies import FUSED, lstm_op, random_scale

TOKENS = 17


class RandomGraph:
    """Grows a program, op by op.

    Args:
        random: where chance comes from.
        profile: TFLite's get the variants of the LSTM that only they have.
        dtype: of the activations.
        steps: what Flatten binds the program to.
    """

    def __init__(
        self,
        random: np.random.Generator,
        profile: Profile,
        dtype: Literal["int8", "int16"],
        steps: int,
    ) -> None:
        self.random, self.profile, self.dtype, self.steps = random, profile, dtype, steps
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def size(self, most: int = 12) -> int:
        return int(self.random.integers(1, most + 1))

    def tensor(self, name: str, signal: Signal, low: float, high: float) -> int:
        """Add a tensor with a random scale, of int8 as given."""
        scale = random_scale(self.random, low, high)
        zero_point = int(self.random.integers(-128, 128))
        if self.dtype == "int16":
            scale, zero_point = float(np.float32(scale / 256)), 0
        self.tensors.append(Tensor(name, signal, self.dtype, scale, zero_point))
        return len(self.tensors) - 1

    def like(self, name: str, signal: Signal, index: int) -> int:
        self.tensors.append(replace(self.tensors[index], name=name, signal=signal))
        return len(self.tensors) - 1

    def name(self, word: str) -> str:
        return f"{word}_{len(self.ops)}"

    def moved(
        self,
        word: str,
        source: int,
        signal: Signal,
        make: Callable[[str, tuple[int, ...], int], Op],
    ) -> int:
        name = self.name(word)
        output = self.like(f"{name}.output", signal, source)
        self.ops.append(make(name, (source,), output))
        return output

    def input(self) -> int:
        if self.chance(0.15):
            self.tensors.append(Tensor("input", Signal("tokens", TOKENS), "int32"))
            name, rows = self.name("embedding"), self.size()
            table = self.random.integers(-128, 128, (TOKENS, rows)).astype(np.int8)
            output = self.tensor(f"{name}.output", Signal("sequence", rows), 0.003, 0.1)
            if self.dtype == "int16":  # looked up in int8, and widened
                narrow = replace(self.tensors[output], dtype="int8", name=f"{name}.output")
                self.tensors[output] = narrow
                self.ops.append(EmbeddingOp(name, (0,), output, table))
                widened = self.tensor("wide.output", narrow.signal, 0.003, 0.1)
                self.ops.append(QuantizeOp("wide", (output,), widened))
                return widened
            self.ops.append(EmbeddingOp(name, (0,), output, table))
            return output
        return self.tensor("input", Signal("sequence", self.size()), 0.003, 0.1)

    def lstm(self, source: int, like: int | None = None, cells: int | None = None) -> int:
        """Add an LSTM; with the hidden scale of ``like``."""
        name = self.name("lstm")
        signal = Signal("sequence", cells or self.size())
        if like is None:
            output = self.tensor(f"{name}.output", signal, 0.002, 0.009)
        else:
            output = self.like(f"{name}.output", signal, like)
        tensors = self.tensors
        op = lstm_op(self.random, name, tensors[source], tensors[output], (source, output))
        if self.profile in TFLITE_PROFILES and self.chance(0.3):
            op = self.variant(op)
        self.ops.append(op)
        return output

    def variant(self, op: LstmOp) -> LstmOp:
        """Return the LSTM as a CIFG, with peepholes, layer normalization or a projection."""
        random, cells = self.random, op.cell_count
        if self.chance(0.4):
            op = self.projected(op)
            cells = op.cell_count
        elif self.chance(0.5):
            # With a projection, peepholes depend on the layout of the file.
            weights = random.integers(-32767, 32768, (3, cells)).astype(np.int16)
            scales = (random.uniform(0.1, 3, 3) / 32767).astype(np.float32)
            op = replace(op, peephole=weights, peephole_scales=scales)
        if self.chance(0.4):
            scales = (random.uniform(0.3, 3, 4) / 32767).astype(np.float32)
            bias = random.normal(0, 1, (4, cells)) / (scales[:, None] * 2.0**-10)
            op = replace(
                op,
                bias=np.clip(bias, -(2**28), 2**28).astype(np.int32),
                layer_norm=random.integers(-32767, 32768, (4, cells)).astype(np.int16),
                layer_norm_scales=scales,
                gate_scales=(random.uniform(0.5, 4, 4) * 2.0**-12).astype(np.float32),
            )
        return self.coupled(op) if self.chance(0.4) else op

    def projected(self, op: LstmOp) -> LstmOp:
        """Return the LSTM with other cells than outputs."""
        random, outputs, features = self.random, op.output_size, op.input_size
        cells = self.size(20)
        scale = random_scale(random, 0.001, 0.02)
        bias = random.normal(0, 1, (4, cells)) / (op.input_weight_scales[:, None] * 0.03)
        return replace(
            op,
            input_weights=random.integers(-127, 128, (4, cells, features)).astype(np.int8),
            recurrent_weights=random.integers(-127, 128, (4, cells, outputs)).astype(np.int8),
            bias=bias.astype(np.int32),
            initial_cell=np.zeros(cells, np.int16),
            product_scale=random_scale(random, 0.002, 0.009),
            product_zero_point=int(random.integers(-128, 128)),
            projection_weights=random.integers(-127, 128, (outputs, cells)).astype(np.int8),
            projection_bias=random.integers(-3000, 3000, outputs).astype(np.int32),
            projection_scale=scale,
            projection_clip=float(random.choice([0.0, 0.5])),
        )

    @staticmethod
    def coupled(op: LstmOp) -> LstmOp:
        """Return the LSTM as a CIFG; what that lacks is read back as zeros and ones."""
        own = np.array([0, 1, 1, 1], np.int8)
        change: dict[str, Any] = {
            "input_weights": op.input_weights * own[:, None, None],
            "recurrent_weights": op.recurrent_weights * own[:, None, None],
            "bias": op.bias * own[:, None].astype(np.int32),
        }
        for field in ("input_weight_scales", "recurrent_weight_scales", "layer_norm_scales"):
            if getattr(op, field) is not None:
                change[field] = np.append(np.float32(1), getattr(op, field)[1:])
        if op.gate_scales is not None and op.layer_norm is not None:
            change["gate_scales"] = np.append(np.float32(1), op.gate_scales[1:])
            change["layer_norm"] = op.layer_norm * own[:, None].astype(np.int16)
        if op.peephole is not None and op.peephole_scales is not None:
            change["peephole"] = op.peephole * np.array([0, 1, 1], np.int16)[:, None]
            change["peephole_scales"] = np.append(np.float32(1), op.peephole_scales[1:])
        return replace(op, coupled=True, **change)

    def bidirectional(self, source: int, *, last: bool) -> int:
        signal = self.tensors[source].signal
        forward = self.lstm(source)
        turned = self.moved("reverse", source, signal, ReverseOp)
        sums = self.chance(0.3)
        cells = self.tensors[forward].signal.size if sums else None
        backward = self.lstm(turned, like=None if sums else forward, cells=cells)
        join = self.sum if sums else self.concat
        if last:
            return join(self.one_step(forward, LastStepOp), self.one_step(backward, LastStepOp))
        back = self.moved("reverse", backward, self.tensors[backward].signal, ReverseOp)
        return join(forward, back)

    def parallel(self, source: int) -> int:
        """Add two or three LSTMs side by side; some are brought to the scale of the first."""
        branches = [self.lstm(source)]
        for _ in range(int(self.random.integers(1, 3))):
            if self.chance(0.4):
                branch = self.lstm(source)
                name = self.name("quantize")
                output = self.like(f"{name}.output", self.tensors[branch].signal, branches[0])
                self.ops.append(QuantizeOp(name, (branch,), output))
                branches.append(output)
            else:
                branches.append(self.lstm(source, like=branches[0]))
        return self.concat(*branches)

    def concat(self, *sources: int) -> int:
        first = self.tensors[sources[0]].signal
        signal = replace(first, size=sum(self.tensors[k].signal.size for k in sources))
        name = self.name("concat")
        output = self.like(f"{name}.output", signal, sources[0])
        self.ops.append(ConcatOp(name, sources, output))
        return output

    def sum(self, left: int, right: int) -> int:
        """Add two values, whose scales are their own."""
        before, name = self.tensors[left], self.name("add")
        wanted = (before.scale + self.tensors[right].scale) * (256 if self.dtype == "int16" else 1)
        output = self.tensor(f"{name}.output", before.signal, 0.3 * wanted, 2 * wanted)
        fused = FUSED[int(self.random.integers(0, len(FUSED)))]
        self.ops.append(AddOp(name, (left, right), output, fused))
        return output

    def one_step(self, source: int, op: type[LastStepOp] | type[FirstStepOp]) -> int:
        signal = Signal("vector", self.tensors[source].signal.size)
        return self.moved(op.type_name, source, signal, op)

    def dense(self, source: int) -> int:
        """Add a Dense with one scale or one for each output; on a sequence, for every step."""
        random, before = self.random, self.tensors[source]
        wide, outputs, depth = self.dtype == "int16", self.size(), before.signal.size
        count = outputs if self.chance(0.4) and outputs > 1 else 1
        scales = random.uniform(0.001, 0.02, count).astype(np.float32)
        name = self.name("dense")
        reach = (
            float(scales.mean()) * 74 * np.sqrt(depth) * before.scale * (74 * 256 if wide else 74)
        )
        output = self.tensor(
            f"{name}.output", replace(before.signal, size=outputs), reach / 200, reach / 60
        )
        bias = random.integers(-2000, 2000, outputs) * (256 if wide else 1)
        weights = random.integers(-127, 128, (outputs, depth)).astype(np.int8)
        fused = FUSED[int(random.integers(0, len(FUSED)))]
        bias = bias.astype(np.int64 if wide else np.int32)
        self.ops.append(DenseOp(name, (source,), output, weights, bias, scales, fused))
        return output

    def activation(self, source: int) -> int:
        before = self.tensors[source]
        kind = KINDS[int(self.random.integers(0, len(KINDS)))]
        name = self.name(kind)
        fixed = fixed_output(kind, before.dtype)
        output = self.like(f"{name}.output", before.signal, source)
        if fixed is not None:
            self.tensors[output] = replace(
                self.tensors[output], scale=fixed[0], zero_point=fixed[1]
            )
        beta = float(self.random.choice([0.5, 1.0, 2.0])) if kind == "softmax" else 1.0
        self.ops.append(ActivationOp(name, (source,), output, kind, beta))
        return output

    def program(self) -> Program:
        """Return a random program."""
        value = self.input()
        if self.chance(0.2):
            value = self.dense(value)
        for _ in range(int(self.random.integers(1, 3))):
            form = int(self.random.integers(0, 4))
            if form == 0:
                value = self.parallel(value)
            elif form == 1:
                value = self.bidirectional(value, last=False)
            else:
                value = self.lstm(value)
        # A file of one step does not tell the first from the last, nor a sequence from a vector.
        end = int(self.random.integers(0, 6)) if self.steps > 1 else 5
        if end == 0:
            value = self.bidirectional(value, last=True)
        elif end in (1, 2):
            value = self.one_step(value, LastStepOp)
        elif end == 3:
            value = self.one_step(value, FirstStepOp)
        elif end == 4:
            size = self.tensors[value].signal.size * self.steps
            value = self.moved("flatten", value, Signal("vector", size), FlattenOp)
        for _ in range(int(self.random.integers(0, 3))):
            value = self.dense(value)
        if self.chance(0.6):
            value = self.activation(value)
        bound = self.steps if any(isinstance(op, FlattenOp) for op in self.ops) else None
        return Program(
            "random_graph", self.profile, tuple(self.tensors), tuple(self.ops), 0, value, bound
        )

    def inputs(self, program: Program, calls: int, batch: int) -> Array:
        """Return [calls, batch, time, ...]: uniform over the type, small, or all extremes."""
        tensor, shape = program.input_tensor, (calls, batch, self.steps)
        if tensor.signal.kind == "tokens":
            return self.random.integers(0, TOKENS, shape).astype(np.int32)
        info = np.iinfo(tensor.dtype)
        x = self.random.integers(info.min, info.max + 1, (*shape, tensor.signal.size))
        if self.chance(0.3):
            x = np.where(x >= 0, info.max, info.min)
        elif self.chance(0.3):
            x = np.clip(x // 8 + tensor.zero_point, info.min, info.max)
        return x.astype(tensor.dtype)


def turned(data: bytes) -> bytes:
    """Return a batch-major file as a time-major one."""
    model = parse(data, "batch-major")
    tensors = list(model.tensors)
    for index, tensor in enumerate(tensors):
        tokens = index == model.inputs[0] and len(tensor.shape) == 2
        if tensor.data is None and (len(tensor.shape) == 3 or tokens):
            first, second, *rest = tensor.shape
            tensors[index] = replace(tensor, shape=(second, first, *rest))
    operators = []
    for operator in model.operators:
        options = operator.options
        if operator.code == "UNIDIRECTIONAL_SEQUENCE_LSTM":
            options = replace(options, time_major=True)
        elif operator.code == "STRIDED_SLICE":
            for index in operator.inputs[1:]:
                tensors[index] = _swapped(tensors[index])
            options = replace(options, begin_mask=6, end_mask=6, shrink_axis_mask=1)
        elif operator.code == "REVERSE_V2":
            zero = np.zeros(1, "<i4").tobytes()
            tensors[operator.inputs[1]] = replace(tensors[operator.inputs[1]], data=zero)
        elif operator.code == "RESHAPE" and len(tensors[operator.outputs[0]].shape) == 3:
            tensors[operator.inputs[1]] = _swapped(tensors[operator.inputs[1]])
            options = replace(options, new_shape=tensors[operator.outputs[0]].shape)
        operators.append(replace(operator, options=options))
    return serialize(replace(model, tensors=tuple(tensors), operators=tuple(operators)))


def _swapped(tensor: TfliteTensor) -> TfliteTensor:
    values = tensor.array()[[1, 0, 2]]
    return replace(tensor, data=values.astype("<i4").tobytes())


def can_turn(model: Program) -> bool:
    """Whether ``turned`` keeps the meaning: Flatten joins the steps of each row."""
    return not any(isinstance(op, FlattenOp) for op in model.ops)

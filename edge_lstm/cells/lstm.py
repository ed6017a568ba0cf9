"""LSTM in float: its gates, its step, and the scales that it is quantized with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import F32, F64, Array
from edge_lstm.cells.lstm_integer import LstmOp
from edge_lstm.program import ProgramBuilder, symmetric_scale
from edge_lstm.spec import FloatRun, Layer, Signal, check_shape

GATES = ("input", "forget", "cell", "output")

# TFLite's kernel has tanh for 0 to 6 integer bits of the cell state only
# (PortableApplyTanh); outside, it silently computes something else.
CELL_BOUND_LOG2 = (0, 6)


def sigmoid(x: F64) -> F64:
    """Return the logistic function without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


@dataclass(frozen=True, eq=False, repr=False)
class Gate:
    """One gate: ``input_weights [hidden, input]``, ``recurrent_weights``, ``bias [hidden]``.

    Formats with two biases are summed by their reader.
    """

    input_weights: F32
    recurrent_weights: F32
    bias: F32


@dataclass(frozen=True, eq=False, repr=False)
class Lstm(Layer):
    """The textbook LSTM; gives every step: [batch, time, hidden].

    Args:
        gates: input, forget, cell, output.
        initial_hidden: [hidden], or None for zeros.
        initial_cell: [hidden], or None for zeros.
    """

    gates: tuple[Gate, Gate, Gate, Gate]
    initial_hidden: F32 | None = None
    initial_cell: F32 | None = None

    def __post_init__(self) -> None:
        hidden, features = self.hidden_size, self.input_size
        for word, gate in zip(GATES, self.gates, strict=True):
            want = {
                "input_weights": (hidden, features),
                "recurrent_weights": (hidden, hidden),
                "bias": (hidden,),
            }
            for field, shape in want.items():
                check_shape(self.name, f"{word} gate {field}", getattr(gate, field), shape)
        for field in ("initial_hidden", "initial_cell"):
            if getattr(self, field) is not None:
                check_shape(self.name, field, getattr(self, field), (hidden,))

    @property
    def hidden_size(self) -> int:
        """Number of cells."""
        return len(self.gates[0].bias)

    @property
    def input_size(self) -> int:
        """Features of one input step."""
        return int(self.gates[0].input_weights.shape[-1])

    def _arrays(self) -> Iterator[Array]:
        for gate in self.gates:
            yield from (gate.input_weights, gate.recurrent_weights, gate.bias)
        yield from (v for v in (self.initial_hidden, self.initial_cell) if v is not None)

    def output_signal(self, signal: Signal) -> Signal:
        if signal != Signal("sequence", self.input_size):
            raise self._refuse(
                f"is fed {signal}", f"LSTM must be fed a sequence [time, {self.input_size}]"
            )
        return Signal("sequence", self.hidden_size)

    def _first(self, run: FloatRun, what: str, values: F32 | None) -> F64:
        start = np.zeros(self.hidden_size) if values is None else values.astype(np.float64)
        given = run.state.get(f"{self.name}.{what}")
        return np.tile(start, (run.batch_size, 1)) if given is None else given

    def forward(self, x: F64, run: FloatRun) -> F64:
        size = self.hidden_size
        weights = np.concatenate([g.input_weights for g in self.gates]).astype(np.float64)
        recurrent = np.concatenate([g.recurrent_weights for g in self.gates]).astype(np.float64)
        bias = np.concatenate([g.bias for g in self.gates]).astype(np.float64)
        hidden = self._first(run, "hidden", self.initial_hidden)
        cell = self._first(run, "cell", self.initial_cell)
        valid = run.valid(x.shape[1])
        from_input = x @ weights.T + bias
        outputs = np.zeros((*x.shape[:2], size))
        cells, pre_activations = np.empty_like(outputs), np.empty((*x.shape[:2], 4 * size))
        for step in range(x.shape[1]):
            pre = from_input[:, step] + hidden @ recurrent.T
            i, f, o = (sigmoid(pre[:, k * size : (k + 1) * size]) for k in (0, 1, 3))
            g = np.tanh(pre[:, 2 * size : 3 * size])
            keep = valid[:, step, None]
            cell = np.where(keep, f * cell + i * g, cell)
            hidden = np.where(keep, o * np.tanh(cell), hidden)
            outputs[:, step] = np.where(keep, hidden, 0.0)
            cells[:, step], pre_activations[:, step] = cell, pre
        run.state[f"{self.name}.hidden"], run.state[f"{self.name}.cell"] = hidden, cell
        run.note(f"{self.name}.cell_state", cells)
        for k, word in enumerate(GATES):
            run.note(f"{self.name}.{word}_gate", pre_activations[:, :, k * size : (k + 1) * size])
        run.note(f"{self.name}.output", outputs)
        return outputs

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        """Quantize by the TFLite int8 scheme, with scales that every interpreter takes."""
        output = builder.activation(f"{self.name}.output", Signal("sequence", self.hidden_size))
        hidden = builder.tensors[output]
        peak = max(builder.range(f"{self.name}.cell_state").magnitude, 2.0**-20)
        wanted = math.ceil(math.log2(peak))
        log2_bound = min(max(wanted, CELL_BOUND_LOG2[0]), CELL_BOUND_LOG2[1])
        if wanted > log2_bound:
            builder.notes.append(
                f"layer {self.name!r}, cell_state: calibration saw {peak:.1f}; TFLite's kernels"
                f" hold at most {2**log2_bound}, so the cell saturates there"
            )
        cell_scale = 2.0 ** (log2_bound - 15)
        in_scale = builder.tensors[source].scale
        input_weights, input_scales = _quantize_weights(
            [g.input_weights for g in self.gates], f"layer {self.name!r}, input_weights"
        )
        recurrent_weights, recurrent_scales = _quantize_weights(
            [g.recurrent_weights for g in self.gates], f"layer {self.name!r}, recurrent_weights"
        )
        wide = builder.activation_dtype == "int16"
        bias = np.stack(
            [
                quantize_bias(g.bias, in_scale, float(s), wide=wide)
                for g, s in zip(self.gates, input_scales, strict=True)
            ]
        )
        initial_cell = (
            np.zeros(self.hidden_size) if self.initial_cell is None else self.initial_cell
        )
        initial_hidden = (
            np.zeros(self.hidden_size) if self.initial_hidden is None else self.initial_hidden
        )
        return builder.add_op(
            LstmOp(
                name=self.name,
                inputs=(source,),
                output=output,
                input_weights=input_weights,
                recurrent_weights=recurrent_weights,
                bias=bias,
                input_weight_scales=input_scales,
                recurrent_weight_scales=recurrent_scales,
                hidden_scale=hidden.scale,
                hidden_zero_point=hidden.zero_point,
                product_scale=hidden.scale,
                product_zero_point=hidden.zero_point,
                cell_scale=cell_scale,
                initial_hidden=hidden.quantize(initial_hidden),
                initial_cell=np.clip(
                    np.rint(np.asarray(initial_cell, np.float64) / cell_scale), -32768, 32767
                ).astype(np.int16),
            )
        )


def quantize_weights(weights: F32, what: str) -> tuple[Array, float]:
    """Return int8 weights in [-127, 127] and their scale, ties away from zero.

    A matrix of zeros gets the scale 1: it has no range to take one from.
    """
    magnitude = float(np.abs(weights).max(initial=0.0))
    scale = symmetric_scale(magnitude, 127, what) if magnitude else 1.0
    scaled = weights.astype(np.float32) / np.float32(scale)
    rounded = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))
    return np.clip(rounded, -127, 127).astype(np.int8), scale


def quantize_bias(bias: F32, input_scale: float, weight_scale: float, *, wide: bool) -> Array:
    """Return the bias in units of the accumulator: int32, or int64 beside int16 activations."""
    scale = float(np.float32(np.float32(input_scale) * np.float32(weight_scale)))
    exact = bias.astype(np.float64) / scale
    rounded = np.trunc(exact + np.copysign(0.5, exact))
    dtype = np.int64 if wide else np.int32
    info = np.iinfo(dtype)
    return np.clip(rounded, float(info.min) / 2, float(info.max) / 2).astype(dtype)


def _quantize_weights(matrices: list[F32], what: str) -> tuple[Array, F32]:
    pairs = [quantize_weights(m, f"{what} {w}") for m, w in zip(matrices, GATES, strict=True)]
    return np.stack([q for q, _ in pairs]), np.array([s for _, s in pairs], np.float32)

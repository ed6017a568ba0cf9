"""LSTM in float: its gates, its step, and the scales that it is quantized with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edge_lstm.arrays import F32, F64, Array
from edge_lstm.cells.functions import SIGMOID, TANH, Function
from edge_lstm.cells.lstm_integer import LstmOp
from edge_lstm.cells.recurrent import Recurrent, clipped
from edge_lstm.cells.weights import quantize_bias, quantize_weights
from edge_lstm.program import ProgramBuilder
from edge_lstm.spec import FloatRun, Signal, check_shape

GATES = ("input", "forget", "cell", "output")

# TFLite's kernel has tanh for 0 to 6 integer bits of the cell state only
# (PortableApplyTanh); outside, it silently computes something else.
CELL_BOUND_LOG2 = (0, 6)


@dataclass(frozen=True, eq=False, repr=False)
class Gate:
    """One gate: ``input_weights [hidden, input]``, ``recurrent_weights``, ``bias [hidden]``.

    Formats with two biases are summed by their reader.
    """

    input_weights: F32
    recurrent_weights: F32
    bias: F32

    def arrays(self) -> tuple[F32, F32, F32]:
        """Return all three."""
        return self.input_weights, self.recurrent_weights, self.bias

    def check(self, layer: str, what: str, cells: int, features: int, hidden: int) -> None:
        """Raise UnsupportedModel unless the shapes are those of ``cells`` fed with both sizes."""
        check_shape(layer, f"{what} input_weights", self.input_weights, (cells, features))
        check_shape(layer, f"{what} recurrent_weights", self.recurrent_weights, (cells, hidden))
        check_shape(layer, f"{what} bias", self.bias, (cells,))


@dataclass(frozen=True, eq=False, repr=False)
class Lstm(Recurrent):
    """An LSTM; gives every step: [batch, time, hidden]. The defaults are the textbook's.

    Args:
        gates: input, forget, cell, output; hidden is the number of cells, or with a projection
            the size that it gives.
        initial_hidden: [hidden], or None for zeros.
        initial_cell: [cells], or None for zeros.
        peepholes: [3, cells], from the cell to the gates input, forget, output, or None. The
            output gate sees the new cell state, the others the one before.
        projection: [hidden, cells], or None.
        projection_bias: [hidden], or None for zeros.
        functions: of the gates i, f, o; of the gate g; of the cell state in the output. ONNX
            calls them f, g, h.
        coupled: the forget gate is one minus the input gate, as with ONNX's input_forget; the
            second gate's weights are not used.
        clip: bound of the pre-activations of all gates (ONNX), or None.
        cell_clip: bound of the cell state (TFLite), or None.
        projection_clip: bound of the projected output (TFLite), or None.
    """

    gates: tuple[Gate, Gate, Gate, Gate]
    initial_hidden: F32 | None = None
    initial_cell: F32 | None = None
    peepholes: F32 | None = None
    projection: F32 | None = None
    projection_bias: F32 | None = None
    functions: tuple[Function, Function, Function] = (SIGMOID, TANH, TANH)
    coupled: bool = False
    clip: float | None = None
    cell_clip: float | None = None
    projection_clip: float | None = None

    def __post_init__(self) -> None:
        cells, hidden, features = self.cell_count, self.hidden_size, self.input_size
        for word, gate in zip(GATES, self.gates, strict=True):
            gate.check(self.name, f"{word} gate", cells, features, hidden)
        shapes: dict[str, tuple[int, ...]] = {
            "initial_hidden": (hidden,),
            "initial_cell": (cells,),
            "peepholes": (3, cells),
            "projection": (hidden, cells),
            "projection_bias": (hidden,),
        }
        for field, shape in shapes.items():
            if getattr(self, field) is not None:
                check_shape(self.name, field, getattr(self, field), shape)
        if self.projection is None:
            for field in ("projection_bias", "projection_clip"):
                if getattr(self, field) is not None:
                    raise self._refuse(f"has a {field} and no projection", "want both or neither")

    @property
    def cell_count(self) -> int:
        """Number of cells."""
        return len(self.gates[0].bias)

    @property
    def hidden_size(self) -> int:
        """Features of one output step; the number of cells unless there is a projection."""
        return self.cell_count if self.projection is None else len(self.projection)

    @property
    def input_size(self) -> int:
        return int(self.gates[0].input_weights.shape[-1])

    @property
    def output_size(self) -> int:
        return self.hidden_size

    @property
    def variants(self) -> tuple[str, ...]:
        """What sets this LSTM apart from the textbook's, in words; empty for that one."""
        f, g, h = self.functions
        bounds = {n: getattr(self, n) for n in ("clip", "cell_clip", "projection_clip")}
        found = {
            "peepholes": self.peepholes is not None,
            "a projection": self.projection is not None,
            "coupled gates": self.coupled,
            f"the activations {f}, {g}, {h}": (f, g, h) != (SIGMOID, TANH, TANH),
            **{f"{n.replace('_', ' ')} {v}": v is not None for n, v in bounds.items()},
        }
        return tuple(words for words, present in found.items() if present)

    def _arrays(self) -> Iterator[Array]:
        for gate in self.gates:
            yield from gate.arrays()
        given = (
            self.initial_hidden,
            self.initial_cell,
            self.peepholes,
            self.projection,
            self.projection_bias,
        )
        yield from (v for v in given if v is not None)

    def _projected(self, hidden: F64) -> F64:
        if self.projection is None:
            return hidden
        hidden = hidden @ self.projection.astype(np.float64).T
        if self.projection_bias is not None:
            hidden = hidden + self.projection_bias.astype(np.float64)
        return clipped(hidden, self.projection_clip)

    def forward(self, x: F64, run: FloatRun) -> F64:
        size = self.cell_count
        weights = np.concatenate([g.input_weights for g in self.gates]).astype(np.float64)
        recurrent = np.concatenate([g.recurrent_weights for g in self.gates]).astype(np.float64)
        bias = np.concatenate([g.bias for g in self.gates]).astype(np.float64)
        gate, squash, squash_cell = self.functions
        peepholes = np.zeros((3, size)) if self.peepholes is None else self.peepholes
        peep_input, peep_forget, peep_output = peepholes.astype(np.float64)
        hidden = self.first_state(run, "hidden", self.initial_hidden, self.hidden_size)
        cell = self.first_state(run, "cell", self.initial_cell, size)
        valid = run.valid(x.shape[1])
        from_input = x @ weights.T + bias
        outputs = np.zeros((*x.shape[:2], self.hidden_size))
        cells, pre_activations = np.empty((*x.shape[:2], size)), np.empty_like(from_input)
        for step in range(x.shape[1]):
            pre = from_input[:, step] + hidden @ recurrent.T
            pre_i, pre_f, pre_g, pre_o = np.split(pre, 4, axis=1)
            pre_i = clipped(pre_i + peep_input * cell, self.clip)
            pre_f = clipped(pre_f + peep_forget * cell, self.clip)
            pre_g = clipped(pre_g, self.clip)
            i = gate(pre_i)
            f = 1.0 - i if self.coupled else gate(pre_f)
            new_cell = clipped(f * cell + i * squash(pre_g), self.cell_clip)
            pre_o = clipped(pre_o + peep_output * new_cell, self.clip)
            new_hidden = self._projected(gate(pre_o) * squash_cell(new_cell))
            keep = valid[:, step, None]
            cell = np.where(keep, new_cell, cell)
            hidden = np.where(keep, new_hidden, hidden)
            outputs[:, step] = np.where(keep, hidden, 0.0)
            cells[:, step] = cell
            pre_activations[:, step] = np.concatenate([pre_i, pre_f, pre_g, pre_o], axis=1)
        run.state[f"{self.name}.hidden"], run.state[f"{self.name}.cell"] = hidden, cell
        run.note(f"{self.name}.cell_state", cells)
        for k, word in enumerate(GATES):
            run.note(f"{self.name}.{word}_gate", pre_activations[:, :, k * size : (k + 1) * size])
        run.note(f"{self.name}.output", outputs)
        return outputs

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        """Quantize by the TFLite int8 scheme, with scales that every interpreter takes."""
        unknown = replace(self, cell_clip=None).variants
        if unknown:
            raise self.not_in_int8(f"an LSTM with {' and '.join(unknown)}")
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
                cell_clip=self.cell_clip or 0.0,
                initial_hidden=hidden.quantize(initial_hidden),
                initial_cell=np.clip(
                    np.rint(np.asarray(initial_cell, np.float64) / cell_scale), -32768, 32767
                ).astype(np.int16),
            )
        )


def _quantize_weights(matrices: list[F32], what: str) -> tuple[Array, F32]:
    pairs = [quantize_weights(m, f"{what} {w}") for m, w in zip(matrices, GATES, strict=True)]
    return np.stack([q for q, _ in pairs]), np.array([s for _, s in pairs], np.float32)

"""LSTM in integers: what a file holds, what each runtime derives from it, and one step.

Names: pre-activations are Q3.12, gate values Q0.15, the cell state has the scale
``2**cell_power``. This is the plain form, one call for one line of the kernels; it is what
the fast form is held to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_lstm import activations
from edge_lstm.arrays import F32, F64, I8, I16, I64, Array
from edge_lstm.errors import UnsupportedModel
from edge_lstm.fixed_point import (
    Factor,
    quantize_multiplier,
    requantize,
    requantize_s64,
    rounding_divide_by_pot,
    saturate,
    saturate_s16,
    wrap16,
    wrap32,
)
from edge_lstm.program import Kernel, Op, Profile, Program
from edge_lstm.spec import check_shape

INPUT, FORGET, CELL, OUTPUT = range(4)
GATE_SCALE = 2.0**-12

TFLITE_PROFILES: tuple[Profile, ...] = ("litert", "litert-ref", "tflite-runtime")


@dataclass(frozen=True, eq=False, repr=False)
class LstmOp(Op):
    """An integer LSTM as a ``.tflite`` file states it; gates in the order i, f, g, o.

    Args:
        input_weights: int8 [4, cells, input].
        recurrent_weights: int8 [4, cells, output].
        bias: int32 [4, cells]; int64 beside int16 activations.
        input_weight_scales: float32 [4].
        recurrent_weight_scales: float32 [4].
        hidden_scale: of the hidden state (tensor 18).
        hidden_zero_point: of the hidden state.
        product_scale: of output gate times tanh(cell) (intermediate 4), which TFLite's kernels
            use where the micro kernels use ``hidden_scale``.
        product_zero_point: likewise.
        cell_scale: of the cell state; a power of two.
        initial_hidden: int8 [output].
        initial_cell: int16 [cells].
        cell_clip: real bound of the cell state, 0 for none.
        coupled: CIFG: the input gate is one minus the forget gate; the first rows are unused.
        peephole: int16 [3, cells] for input, forget and output gate, or None.
        peephole_scales: float32 [3].
        projection_weights: int8 [output, cells], or None.
        projection_bias: int32 [output].
        projection_scale: of the projection weights.
        projection_clip: real bound of the projected output, 0 for none.
        layer_norm: int16 [4, cells], or None.
        layer_norm_scales: float32 [4].
        gate_scales: float32 [4], of the pre-activations under layer norm.
        time_major: how the file lays out its sequences; matters for one quirk only.
    """

    type_name: ClassVar[str] = "lstm"

    input_weights: I8
    recurrent_weights: I8
    bias: Array
    input_weight_scales: F32
    recurrent_weight_scales: F32
    hidden_scale: float
    hidden_zero_point: int
    product_scale: float
    product_zero_point: int
    cell_scale: float
    initial_hidden: Array
    initial_cell: I16
    cell_clip: float = 0.0
    coupled: bool = False
    peephole: I16 | None = None
    peephole_scales: F32 | None = None
    projection_weights: I8 | None = None
    projection_bias: Array | None = None
    projection_scale: float = 0.0
    projection_clip: float = 0.0
    layer_norm: I16 | None = None
    layer_norm_scales: F32 | None = None
    gate_scales: F32 | None = None
    time_major: bool = False

    def __post_init__(self) -> None:
        cells, output = self.cell_count, self.output_size
        check_shape(self.name, "input weights", self.input_weights, (4, cells, self.input_size))
        check_shape(self.name, "recurrent weights", self.recurrent_weights, (4, cells, output))
        check_shape(self.name, "bias", self.bias, (4, cells))
        check_shape(self.name, "initial hidden state", self.initial_hidden, (output,))
        check_shape(self.name, "initial cell state", self.initial_cell, (cells,))

    @property
    def cell_count(self) -> int:
        """Number of cells."""
        return int(self.input_weights.shape[1])

    @property
    def input_size(self) -> int:
        """Features of one input step."""
        return int(self.input_weights.shape[2])

    @property
    def output_size(self) -> int:
        """Features of the hidden state."""
        return int(self.recurrent_weights.shape[2])

    @property
    def cell_power(self) -> int:
        """log2 of the cell state's scale."""
        return round(math.log2(np.float32(self.cell_scale)))

    @property
    def variants(self) -> tuple[str, ...]:
        """The forms beyond the plain cell, which only TFLite's own kernels have."""
        found = {
            "CIFG": self.coupled,
            "peephole": self.peephole is not None,
            "projection": self.projection_weights is not None,
            "layer normalization": self.layer_norm is not None,
        }
        return tuple(name for name, present in found.items() if present)

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        from edge_lstm.cells.lstm_fast import FastLstmKernel
        from edge_lstm.cells.lstm_tables import shared_tables

        tables = shared_tables(self, program)
        if tables is None:
            return LstmKernel(self, program, batch_size)
        return FastLstmKernel(self, tables, batch_size)

    def derived(self, program: Program) -> dict[str, object]:
        """Return every number that a port of this layer needs besides the weights.

        A factor is ``[multiplier, shift]``: ``multiplier * 2**(shift - 31)``.
        """
        parameters = lstm_parameters(self, program)
        source, power = program.tensors[self.inputs[0]], parameters.cell_power
        tflite = program.profile in TFLITE_PROFILES
        family = "gemmlowp" if tflite else "interpolated"
        found: dict[str, object] = {
            "gate_order": ["input", "forget", "cell", "output"],
            "input_zero_point": source.zero_point,
            "input_multipliers": [f.multiplier for f in parameters.input_factors],
            "input_shifts": [f.shift for f in parameters.input_factors],
            "recurrent_multipliers": [f.multiplier for f in parameters.recurrent_factors],
            "recurrent_shifts": [f.shift for f in parameters.recurrent_factors],
            "effective_input_bias": parameters.input_bias,
            "effective_recurrent_bias": parameters.recurrent_bias,
            "accumulator_rounding": (
                "multiplier cut to 16 bits, one rounding, ties up"
                if source.dtype == "int16"
                else "high 32 bits of twice the product, ties up; then the shift, ties away"
            ),
            "recurrent_term": (
                "saturated by itself, then added"
                if program.profile.startswith("tflm")
                else "added, then saturated"
            ),
            "cell_products": (
                f"f * c >> 15 and i * g >> {30 + power}, one rounding each, ties away"
                if tflite
                else "by the two factors below, two roundings each"
            ),
            "hidden_factor": list(parameters.hidden_factor),
            "hidden_factor_zero_point": (
                self.product_zero_point if tflite else self.hidden_zero_point
            ),
            "cell_power": power,
            "cell_clip_quantized": parameters.cell_clip,
            "gate_format": "pre-activation Q3.12 int16, gate value Q0.15 int16",
            "cell_format": f"Q{15 + power}.{-power} int16",
            "sigmoid_table": f"{family}, Q3.12 -> Q0.15",
            "sigmoid_table_sha256": table_digest(parameters.sigmoid),
            "gate_tanh_table": f"{family}, Q3.12 -> Q0.15",
            "gate_tanh_table_sha256": table_digest(parameters.gate_tanh),
            "cell_tanh_table": "none: skipped for this cell scale",
        }
        if parameters.cell_tanh is not None:
            found["cell_tanh_table"] = f"{family}, Q{15 + power}.{-power} -> Q0.15"
            found["cell_tanh_table_sha256"] = table_digest(parameters.cell_tanh)
        if not tflite:
            found["forget_cell_factor"] = list(parameters.forget_cell_factor)
            found["input_cell_factor"] = list(parameters.input_cell_factor)
            found["table_knots"] = activations.interpolation_knots()
        return found | self._derived_variants(power)

    def _derived_variants(self, cell_power: int) -> dict[str, object]:
        found: dict[str, object] = {}
        if self.coupled:
            found["coupled_input_gate"] = "i = 32767 - f"
        if self.peephole is not None:
            factors = {
                word: list(peephole_factor(self, gate, cell_power))
                for gate, word in ((INPUT, "input"), (FORGET, "forget"), (OUTPUT, "output"))
                if not (self.coupled and gate == INPUT)
            }
            found["peephole_factors"] = factors
        if self.layer_norm_scales is not None:
            factors_ = [layer_norm_factor(self, gate) for gate in range(4)]
            found["layer_norm_multipliers"] = [f.multiplier for f in factors_]
            found["layer_norm_shifts"] = [f.shift for f in factors_]
        if self.projection_weights is not None:
            found["projection_factor"] = list(projection_factor(self))
            found["effective_projection_bias"] = effective_projection_bias(self)
            found["projection_clip_quantized"] = projection_bound(self)
        return found


def table_digest(table: I16) -> str:
    """Return the SHA-256 of a table of 65536 int16, little-endian, indexed by ``x & 0xFFFF``."""
    import hashlib

    return hashlib.sha256(table.astype("<i2").tobytes()).hexdigest()


def peephole_factor(op: LstmOp, gate: int, cell_power: int) -> Factor:
    """Return what a gate's peephole product is scaled by, to its pre-activation."""
    assert op.peephole_scales is not None
    row = {INPUT: 0, FORGET: 1, OUTPUT: 2}[gate]
    gate_scale = GATE_SCALE if op.gate_scales is None else float(op.gate_scales[gate])
    real = 2.0**cell_power * float(op.peephole_scales[row]) / gate_scale
    return quantize_multiplier(float(np.float32(real)))


def layer_norm_factor(op: LstmOp, gate: int) -> Factor:
    """Return what a normalized gate is scaled by, to Q3.12."""
    assert op.layer_norm_scales is not None
    factor = quantize_multiplier(float(op.layer_norm_scales[gate]))
    return Factor(factor.multiplier, factor.shift + 12)


def projection_factor(op: LstmOp) -> Factor:
    """Return what the projection's accumulator is scaled by."""
    product_scale = np.float32(op.projection_scale) * np.float32(op.product_scale)
    return quantize_multiplier(float(product_scale / np.float32(op.hidden_scale)))


def effective_projection_bias(op: LstmOp) -> I64:
    """Return the projection's bias with the product's zero point folded in, [output].

    With a plus: the sign of the kernel, which differs from the gates'.
    """
    assert op.projection_weights is not None
    assert op.projection_bias is not None
    sums = op.projection_weights.astype(np.int64).sum(axis=1)
    bias: I64 = op.projection_bias + op.product_zero_point * sums
    return bias


def projection_bound(op: LstmOp) -> int:
    """Return the bound of the projected output in its own units; 0: none."""
    if op.projection_clip <= 0:
        return 0
    bound = int(np.float32(op.projection_clip) / np.float32(op.hidden_scale))
    return min(max(bound, -128), 127)


@dataclass(frozen=True, eq=False, repr=False)
class LstmParameters:
    """What a runtime derives from the file when it loads it; gates in the order i, f, g, o."""

    input_factors: tuple[Factor, ...]
    recurrent_factors: tuple[Factor, ...]
    input_bias: I64
    """Effective bias: ``bias - input_zero_point * row sums``, [4, cells]."""
    recurrent_bias: I64
    """Effective bias: ``-hidden_zero_point * row sums``, [4, cells]."""
    forget_cell_factor: Factor
    input_cell_factor: Factor
    hidden_factor: Factor
    cell_power: int
    cell_clip: int
    """In units of the cell state; 0: none."""
    sigmoid: I16
    gate_tanh: I16
    cell_tanh: I16 | None
    """None: the kernel has no tanh for this cell scale and leaves its buffer as it was."""


def scale_product(left: float, right: float, *, double: bool) -> float:
    """Return the product of two float32 scales, rounded to float32 unless ``double``."""
    if double:
        return float(np.float32(left)) * float(np.float32(right))
    return float(np.float32(left) * np.float32(right))


def lstm_parameters(op: LstmOp, program: Program) -> LstmParameters:
    """Derive multipliers, effective biases and tables as the profile's runtime does.

    Mirrors: PopulateQuantizedLstmParams8x8_16 (TFLite lstm.cc), CreateGateParams (TFLM).
    """
    tflite = program.profile in TFLITE_PROFILES
    double = program.profile == "tflm"
    source = program.tensors[op.inputs[0]]
    power = op.cell_power

    def factor(weight_scale: float, value_scale: float, gate: int) -> Factor:
        product = scale_product(weight_scale, value_scale, double=double)
        if op.gate_scales is not None:
            return quantize_multiplier(float(np.float32(product) / op.gate_scales[gate]))
        return quantize_multiplier(product / GATE_SCALE)

    row_sums = op.input_weights.astype(np.int64).sum(axis=2)
    recurrent_sums = op.recurrent_weights.astype(np.int64).sum(axis=2)
    bias = op.bias.astype(np.int64) * (op.layer_norm is None)
    hidden = 2.0**-15 / (op.product_scale if tflite else op.hidden_scale) * 2.0**-15
    if op.cell_clip <= 0:
        clip = 0
    elif tflite:
        clip = int(np.clip(np.float32(op.cell_clip) / np.float32(op.cell_scale), -32768, 32767))
    else:
        clip = int(min(max(op.cell_clip / op.cell_scale, -32768.0), 32767.0))
    cell_tanh: I16 | None
    if tflite:
        integer_bits = 15 + power
        cell_tanh = activations.gemmlowp_tanh(integer_bits) if 0 <= integer_bits <= 6 else None
    else:
        cell_tanh = activations.interpolated_tanh(12 + power)
    return LstmParameters(
        input_factors=tuple(
            factor(s, source.scale, k) for k, s in enumerate(op.input_weight_scales)
        ),
        recurrent_factors=tuple(
            factor(s, op.hidden_scale, k) for k, s in enumerate(op.recurrent_weight_scales)
        ),
        input_bias=bias - source.zero_point * row_sums,
        recurrent_bias=-op.hidden_zero_point * recurrent_sums,
        forget_cell_factor=quantize_multiplier(2.0**-15),
        input_cell_factor=quantize_multiplier(2.0**-30 / op.cell_scale),
        # TFLite computes this one in double, then stores it in a float.
        hidden_factor=quantize_multiplier(float(np.float32(hidden)) if tflite else hidden),
        cell_power=power,
        cell_clip=clip,
        sigmoid=(activations.gemmlowp_sigmoid() if tflite else activations.interpolated_sigmoid()),
        gate_tanh=activations.gemmlowp_tanh(3) if tflite else activations.interpolated_tanh(0),
        cell_tanh=cell_tanh,
    )


def dot(values: Array, weights: F64) -> I64:
    """Return the exact integer product ``values @ weights.T``.

    float64 holds every partial sum exactly, and BLAS has no integers.
    """
    product: I64 = (values.astype(np.float64) @ weights.T).astype(np.int64)
    return product


class LstmKernel:
    """The plain integer LSTM: one profile, ``batch_size`` rows.

    Args:
        trace: called with ``(name, values)`` for every intermediate of every step.
    """

    def __init__(
        self,
        op: LstmOp,
        program: Program,
        batch_size: int,
        trace: Callable[[str, Array], None] | None = None,
    ) -> None:
        profile = program.profile
        wide = program.tensors[op.inputs[0]].dtype == "int16"
        if op.variants and profile not in TFLITE_PROFILES:
            raise UnsupportedModel(
                f"layer {op.name!r}: {op.variants[0]} is not in the kernels of profile {profile};"
                f" load with one of {', '.join(TFLITE_PROFILES)}"
            )
        if wide and profile in TFLITE_PROFILES:
            raise UnsupportedModel(
                f"layer {op.name!r}: int16 activations are not in the kernels of profile"
                f" {profile}; load with tflm or cmsis-nn"
            )
        self.op, self.profile, self.batch_size, self.trace = op, profile, batch_size, trace
        self.parameters = lstm_parameters(op, program)
        self.wide = wide
        self.input_weights = op.input_weights.astype(np.float64)
        self.recurrent_weights = op.recurrent_weights.astype(np.float64)
        dtype = np.int16 if wide else np.int8
        self.low, self.high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        self.hidden = np.empty((batch_size, op.output_size), dtype)
        self.cell = np.empty((batch_size, op.cell_count), np.int16)
        if profile in TFLITE_PROFILES:
            self._cell_update = self._cell_update_tflite
        elif profile == "cmsis-nn":
            self._cell_update = self._cell_update_cmsis
        else:
            self._cell_update = self._cell_update_tflm

    def reset(self) -> None:
        """Set hidden and cell state to their first values."""
        self.hidden[...] = self.op.initial_hidden
        self.cell[...] = self.op.initial_cell

    @property
    def state(self) -> dict[str, Array]:
        """Hidden state int8 (or int16) and cell state int16, ``[batch, size]``; a copy."""
        return {"hidden": self.hidden.copy(), "cell": self.cell.copy()}

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Set the state."""
        self.hidden[...] = state["hidden"]
        self.cell[...] = state["cell"]

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return every step's hidden state, [batch, time, output]."""
        del lengths  # a row's state past its end is never read
        (x,) = inputs
        outputs = np.empty((*x.shape[:2], self.op.output_size), self.hidden.dtype)
        for step in range(x.shape[1]):
            outputs[:, step] = self.step(x[:, step])
        return outputs

    def step(self, x: Array) -> Array:
        """Run one step: ``x`` [batch, input] to the hidden state [batch, output]."""
        hidden, cell = self.hidden, self.cell.astype(np.int64)
        parameters, op = self.parameters, self.op
        forget = self._lookup(parameters.sigmoid, self._gate(FORGET, x, hidden, cell))
        candidate = self._lookup(parameters.gate_tanh, self._gate(CELL, x, hidden, cell))
        if op.coupled:
            entrance = 32767 - forget
        else:
            entrance = self._lookup(parameters.sigmoid, self._gate(INPUT, x, hidden, cell))
        cell = self._cell_update(forget, cell, entrance, candidate)
        # The output gate's peephole reads the new cell state.
        exit_ = self._lookup(parameters.sigmoid, self._gate(OUTPUT, x, hidden, cell))
        if parameters.cell_tanh is None:
            squashed = entrance  # the scratch buffer that tanh was meant to overwrite
        else:
            squashed = self._lookup(parameters.cell_tanh, cell)
        product = requantize(exit_ * squashed, parameters.hidden_factor)
        self.cell[...] = cell
        self.hidden[...] = self._hidden(product)
        self._show("cell_state", cell)
        self._show("hidden_state", self.hidden)
        return self.hidden

    def _show(self, name: str, values: Array) -> None:
        if self.trace is not None:
            self.trace(name, values)

    @staticmethod
    def _lookup(table: I16, x: I64) -> I64:
        values: I64 = table[x & 0xFFFF].astype(np.int64)
        return values

    def _gate(self, gate: int, x: Array, hidden: Array, cell: I64) -> I64:
        """Return one gate's pre-activation, Q3.12 in int16."""
        op, parameters = self.op, self.parameters
        from_input = dot(x, self.input_weights[gate]) + parameters.input_bias[gate]
        recurrent = dot(hidden, self.recurrent_weights[gate]) + parameters.recurrent_bias[gate]
        if self.wide:
            total = saturate_s16(requantize_s64(from_input, parameters.input_factors[gate]))
            term = requantize_s64(recurrent, parameters.recurrent_factors[gate])
        else:
            total = saturate_s16(requantize(wrap32(from_input), parameters.input_factors[gate]))
            term = requantize(wrap32(recurrent), parameters.recurrent_factors[gate])
        if self.profile.startswith("tflm"):
            term = saturate_s16(term)  # a FullyConnected of its own there
        total = saturate_s16(total + term)
        if op.peephole is not None:
            total = self._peephole(gate, total, cell)
        if op.layer_norm is not None:
            total = self._layer_norm(gate, total)
        self._show(f"{('input', 'forget', 'cell', 'output')[gate]}_gate", total)
        return total

    def _peephole(self, gate: int, total: I64, cell: I64) -> I64:
        row = {INPUT: 0, FORGET: 1, OUTPUT: 2}.get(gate)
        op = self.op
        assert op.peephole is not None
        if row is None:
            return total
        factor = peephole_factor(op, gate, self.parameters.cell_power)
        # The kernel passes the output size as the vector length, so with a projection only
        # the first values, counted over the flattened batch, get the term.
        width = op.output_size
        out, flat_cell = total.copy(), cell.reshape(-1)
        flat = out.reshape(-1)
        rows = self.batch_size if op.time_major else 1
        for first in range(0, flat.size, op.cell_count * rows):
            count = width * rows
            there = slice(first, first + count)
            weights = np.tile(op.peephole[row][:width].astype(np.int64), rows)
            flat[there] = saturate_s16(flat[there] + requantize(weights * flat_cell[there], factor))
        return out

    def _layer_norm(self, gate: int, total: I64) -> I64:
        """Mirrors: PortableApplyLayerNorm (TFLite portable_tensor_utils.cc)."""
        op = self.op
        assert op.layer_norm is not None
        assert op.layer_norm_scales is not None
        n = op.cell_count
        sums, squares = total.sum(axis=1), (total * total).sum(axis=1)
        mean = wrap32(_truncated_divide(sums * 1024, n))
        variance = wrap32(_truncated_divide(squares * (2**20 // n) - mean * mean, 2**20))
        scale = float(op.layer_norm_scales[gate])
        least = max(1, int(np.float32(10000 * scale)))
        out = np.empty_like(total)
        factor = layer_norm_factor(op, gate)
        for row in range(len(total)):
            spread = int(variance[row])
            inverse = _inverse_square_root(spread if spread >= 1 else least)
            shifted = wrap32(1024 * total[row] - mean[row])
            value = requantize(shifted, inverse)
            value = wrap32(wrap32(value * op.layer_norm[gate]) + op.bias[gate])
            value = _truncated_divide(value + np.where(value > 0, 512, -512), 1024)
            out[row] = saturate_s16(requantize(value, factor))
        return out

    def _cell_update_tflite(self, forget: I64, cell: I64, entrance: I64, candidate: I64) -> I64:
        kept = wrap16(rounding_divide_by_pot(forget * cell, 15))
        added = wrap16(
            rounding_divide_by_pot(entrance * candidate, 30 + self.parameters.cell_power)
        )
        return self._clip(saturate_s16(kept + added))

    def _cell_update_tflm(self, forget: I64, cell: I64, entrance: I64, candidate: I64) -> I64:
        kept = saturate_s16(requantize(forget * cell, self.parameters.forget_cell_factor))
        added = saturate_s16(requantize(entrance * candidate, self.parameters.input_cell_factor))
        return self._clip(saturate_s16(kept + added))

    def _cell_update_cmsis(self, forget: I64, cell: I64, entrance: I64, candidate: I64) -> I64:
        kept = saturate_s16(requantize(forget * cell, self.parameters.forget_cell_factor))
        added = requantize(entrance * candidate, self.parameters.input_cell_factor)
        return self._clip(saturate_s16(kept + added))

    def _clip(self, cell: I64) -> I64:
        bound = self.parameters.cell_clip
        return saturate(cell, -bound, bound) if bound > 0 else cell

    def _hidden(self, product: I64) -> I64:
        """Return the hidden state from output gate times tanh(cell), projected if asked."""
        op = self.op
        if op.projection_weights is None:
            tflite = self.profile in TFLITE_PROFILES
            zero_point = op.product_zero_point if tflite else op.hidden_zero_point
            return saturate(product + zero_point, self.low, self.high)
        # Minus here, and plus in the effective bias: the signs of the kernel.
        values = saturate(product - op.product_zero_point, self.low, self.high)
        acc = dot(values, op.projection_weights.astype(np.float64))
        acc = wrap32(acc + effective_projection_bias(op))
        hidden = requantize(acc, projection_factor(op)) + op.hidden_zero_point
        hidden = saturate(hidden, self.low, self.high)
        bound = projection_bound(op)
        return saturate(hidden, -bound, bound) if op.projection_clip > 0 else hidden


def _truncated_divide(value: I64, divisor: int) -> I64:
    """Divide as C does, towards zero; NumPy's ``//`` floors."""
    quotient: I64 = np.sign(value) * (np.abs(value) // divisor)
    return quotient


def _inverse_square_root(value: int) -> Factor:
    """Return ``1 / sqrt(value)`` as a factor.

    Mirrors: GetInvSqrtQuantizedMultiplierExp (TFLite common.h).
    """
    if value <= 1:
        return Factor(2**31 - 1, 0)
    shift = 11
    while value >= 2**29:
        value, shift = value // 4, shift + 1
    pairs = (32 - value.bit_length() - 1) // 2 - 1
    shift -= pairs
    value <<= 2 * pairs

    def multiply(a: int, b: int) -> int:
        return (a * b + (1 << 30)) >> 31

    def shift_left(a: int, bits: int) -> int:
        return min(max(a << bits, -(2**31)), 2**31 - 1)

    start = value >> 1
    half = int(rounding_divide_by_pot(np.int64(start), 1))
    x = 2**28
    for _ in range(5):
        cube = shift_left(multiply(multiply(x, x), x), 6)
        x = shift_left(int(wrap32(np.int64(multiply(3 * 2**27, x) - multiply(half, cube)))), 3)
    x = multiply(x, 1518500250)  # sqrt(1/2), Q0.31
    if shift < 0:
        x, shift = x << -shift, 0
    return Factor(x, -shift)

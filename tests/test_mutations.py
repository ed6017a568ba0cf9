"""The power of the suite: each plausible mistake in the arithmetic is seen by a named detector.

A mutation is planted in the plain arithmetic, and in the fast form where the mistake could be made
there. A detector is a golden vector (what a real interpreter gave), or a definition in exact
integers where no interpreter is at hand. Each detector is silent without a mutation.

One long file: the table, and the wrong functions that it plants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edge_lstm import activations
from edge_lstm.arrays import I64, Array
from edge_lstm.cells import LstmOp, dense, lstm_fast, lstm_integer, lstm_tables, quantize_op
from edge_lstm.cells.lstm_integer import TFLITE_PROFILES, LstmKernel, LstmParameters
from edge_lstm.fixed_point import (
    Factor,
    quantize_multiplier,
    requantize,
    requantize_ties_up,
    round_half_away,
    rounding_divide_by_pot,
    saturate_s16,
    wrap16,
    wrap32,
)
from edge_lstm.program import Program
from edge_lstm.runtime import Session
from edge_lstm_converters.read_tflite import read_tflite

GOLDEN = Path(__file__).parent / "golden"
PROFILES = {
    "y_litert": "litert",
    "y_litert_ref": "litert-ref",
    "y_tfr": "tflite-runtime",
    "y_tflm_2026_08": "tflm-2026-08",
    "y_tflm_2026_10": "tflm",
    "lstm0_cmsis_stateless": "cmsis-nn",
}

Plant = Callable[[pytest.MonkeyPatch], None]
Detector = Callable[[], bool]
"""Returns whether something is wrong."""


# Detectors


@cache
def vectors(folder: str) -> dict[str, Array]:
    with np.load(GOLDEN / folder / "vectors.npz") as archive:
        return dict(archive)


def golden(folder: str, key: str) -> Detector:
    """Return a detector: the golden model's outputs are not those of the real interpreter."""

    def is_wrong() -> bool:
        program = read_tflite(GOLDEN / folder / "model.tflite", PROFILES[key])
        given = vectors(folder)
        x, want = given["x"], given[key]
        if key.startswith("lstm0"):
            lstm = next(op for op in program.ops if isinstance(op, LstmOp))
            program = replace(program, ops=(lstm,), output=lstm.output, time_steps=None)
        if any(isinstance(op, LstmOp) and op.time_major for op in program.ops):
            x, want = x.swapaxes(1, 2), want.swapaxes(1, 2)
        session = program.session(x.shape[1])
        got = []
        for values, starts in zip(x, given["reset"], strict=True):
            if starts or key.endswith("stateless"):
                session.reset()
            got.append(np.array(session.run(values)))
        return not np.array_equal(np.stack(got), want)

    return is_wrong


def half_up(value: Fraction) -> int:
    return int((value + Fraction(1, 2)).__floor__())


def half_away(value: Fraction) -> int:
    return half_up(value) if value >= 0 else -half_up(-value)


def twice_rounded(acc: int, factor: Factor) -> int:
    """Return MultiplyByQuantizedMultiplier by its definition."""
    shifted = acc << max(factor.shift, 0)
    high = half_up(Fraction(shifted * factor.multiplier, 2**31))
    return half_away(Fraction(high, 2 ** max(-factor.shift, 0)))


def clamped(value: int) -> int:
    return min(max(value, -32768), 32767)


@cache
def loud_lstm() -> tuple[Program, LstmOp]:
    """Return the golden LSTM whose recurrent term alone leaves int16."""
    path = GOLDEN / "crafted_recurrent_saturation" / "model.tflite"
    program = read_tflite(path, "cmsis-nn")
    (op,) = program.ops
    assert isinstance(op, LstmOp)
    return program, op


def cmsis_gate_is_wrong() -> bool:
    """Return whether CMSIS-NN's pre-activations are not those of its definition.

    No CMSIS-NN is installed anywhere; ``arm_nn_lstm_calculate_gate_s8_s16`` accumulates the
    requantized recurrent product onto the saturated input product, and saturates the sum.
    """
    program, op = loud_lstm()
    kernel = LstmKernel(op, program, 1)
    random = np.random.default_rng(0)
    for _ in range(10):
        x = random.integers(-128, 128, (1, op.input_size))
        hidden = random.integers(-128, 128, (1, op.output_size))
        for gate in range(4):
            got = kernel._gate(gate, x, hidden, np.zeros((1, op.cell_count), np.int64))[0]
            centred = x[0] - program.input_tensor.zero_point
            for cell in range(op.cell_count):
                weights, recurrent = op.input_weights[gate, cell], op.recurrent_weights[gate, cell]
                first = int(weights.astype(int) @ centred) + int(op.bias[gate, cell])
                second = int(recurrent.astype(int) @ (hidden[0] - op.hidden_zero_point))
                total = clamped(twice_rounded(first, kernel.parameters.input_factors[gate]))
                total += twice_rounded(second, kernel.parameters.recurrent_factors[gate])
                if int(got[cell]) != clamped(total):
                    return True
    return False


def cmsis_cell_is_wrong() -> bool:
    """Return whether CMSIS-NN's cell update is not that of its definition, at cell scale 2^-17.

    There i * g leaves int16, and only f * c is saturated before the sum
    (``arm_elementwise_mul_acc_s16``).
    """
    program, op = loud_lstm()
    fine = replace(op, cell_scale=2.0**-17)
    kernel = LstmKernel(fine, replace(program, ops=(fine,)), 1)
    random = np.random.default_rng(0)
    gates = random.integers(0, 32768, (2, 1, 500))
    states = random.integers(-32768, 32768, (2, 1, 500))
    got = kernel._cell_update(gates[0], states[0], gates[1], states[1])[0]
    for k in range(500):
        f, i = (int(gate[0, k]) for gate in gates)
        c, g = (int(state[0, k]) for state in states)
        kept = clamped(twice_rounded(f * c, kernel.parameters.forget_cell_factor))
        added = twice_rounded(i * g, kernel.parameters.input_cell_factor)
        if int(got[k]) != clamped(kept + added):
            return True
    return False


# Mutations


def patch(target: object, name: str, value: object) -> Plant:
    return lambda monkeypatch: monkeypatch.setattr(target, name, value)


def patches(*plants: Plant) -> Plant:
    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        for one in plants:
            one(monkeypatch)

    return plant


def parameters(change: Callable[[LstmParameters, LstmOp, Program], LstmParameters]) -> Plant:
    """Return a mutation of what a runtime derives from the file."""
    right = lstm_integer.lstm_parameters

    def wrong(op: LstmOp, program: Program) -> LstmParameters:
        return change(right(op, program), op, program)

    return patches(
        patch(lstm_integer, "lstm_parameters", wrong), patch(lstm_tables, "lstm_parameters", wrong)
    )


def single_rounding(acc: Array, factor: Factor) -> I64:
    shift = 31 - factor.shift
    rounded: I64 = (np.asarray(acc, np.int64) * factor.multiplier + (1 << (shift - 1))) >> shift
    return rounded


def first_rounding_truncated(acc: Array, factor: Factor) -> I64:
    shifted = wrap32(np.asarray(acc, np.int64) << max(factor.shift, 0))
    return rounding_divide_by_pot((shifted * factor.multiplier) >> 31, max(-factor.shift, 0))


def divide_ties_up(value: Array, exponent: int) -> I64:
    value = np.asarray(value, np.int64)
    return value if exponent == 0 else (value + (1 << (exponent - 1))) >> exponent


def divide_ties_even(value: Array, exponent: int) -> I64:
    return np.rint(np.asarray(value, np.int64) / 2.0**exponent).astype(np.int64)


def gate(
    *,
    saturates_input: bool = True,
    saturates_recurrent: tuple[str, ...] = ("tflm", "tflm-2026-08"),
    saturates_sum: bool = True,
    wraps: bool = True,
) -> Plant:
    """Return a mutation of one gate's pre-activation; without arguments it is none."""

    def wrong(self: LstmKernel, k: int, x: Array, hidden: Array, cell: I64) -> I64:
        given = self.parameters
        first = lstm_integer.dot(x, self.input_weights[k]) + given.input_bias[k]
        second = lstm_integer.dot(hidden, self.recurrent_weights[k]) + given.recurrent_bias[k]
        if wraps:
            first, second = wrap32(first), wrap32(second)
        total = requantize(first, given.input_factors[k])
        term = requantize(second, given.recurrent_factors[k])
        if saturates_input:
            total = saturate_s16(total)
        if self.profile in saturates_recurrent:
            term = saturate_s16(term)
        total = total + term
        return saturate_s16(total) if saturates_sum else total

    return patch(LstmKernel, "_gate", wrong)


def fast_tables(change: Callable[[lstm_tables.FastTables], lstm_tables.FastTables]) -> Plant:
    """Return a mutation of what the fast form computes once."""
    right = lstm_tables.fast_tables

    def wrong(op: LstmOp, program: Program) -> lstm_tables.FastTables | None:
        tables = right(op, program)
        return None if tables is None else change(tables)

    return patch(lstm_tables, "fast_tables", wrong)


def cell_update(profile: str, kept_exact: bool, sum_saturates: bool) -> Plant:
    """Return a mutation of the cell update: saturation is missing."""

    def wrong(self: LstmKernel, f: I64, c: I64, i: I64, g: I64) -> I64:
        given = self.parameters
        if profile == "tflite":
            kept = wrap16(rounding_divide_by_pot(f * c, 15))
            added = wrap16(rounding_divide_by_pot(i * g, 30 + given.cell_power))
        else:
            kept = saturate_s16(requantize(f * c, given.forget_cell_factor))
            added = requantize(i * g, given.input_cell_factor)
            if profile == "tflm" or not kept_exact:
                added = saturate_s16(added)
        total = kept + added
        return self._clip(saturate_s16(total) if sum_saturates else wrap16(total))

    return patch(LstmKernel, f"_cell_update_{profile}", wrong)


def unsaturated_hidden(self: LstmKernel, product: I64) -> I64:
    tflite = self.profile in TFLITE_PROFILES
    zero_point = self.op.product_zero_point if tflite else self.op.hidden_zero_point
    return (product + zero_point + 128) % 256 - 128


def product_in_float(*, double: bool) -> Plant:
    """Return a mutation: the product of two scales is rounded to float32, or is not."""
    right = lstm_integer.scale_product

    def wrong(left: float, scale: float, **_: bool) -> float:
        return right(left, scale, double=double)

    return patches(
        patch(lstm_integer, "scale_product", wrong), patch(dense, "scale_product", wrong)
    )


def swapped(what: str) -> Plant:
    """Return a mutation: one table of the other family of kernels."""

    def change(given: LstmParameters, op: LstmOp, program: Program) -> LstmParameters:
        tflite, power = program.profile in TFLITE_PROFILES, given.cell_power
        if what == "sigmoid":
            ours, theirs = activations.interpolated_sigmoid, activations.gemmlowp_sigmoid
            return replace(given, sigmoid=ours() if tflite else theirs())
        bits, shift = (3, 0) if what == "gate_tanh" else (15 + power, 12 + power)
        other = activations.interpolated_tanh(shift) if tflite else activations.gemmlowp_tanh(bits)
        if what == "gate_tanh":
            return replace(given, gate_tanh=other)
        return replace(given, cell_tanh=other)

    return parameters(change)


def hidden_real(op: LstmOp, program: Program) -> float:
    tflite = program.profile in TFLITE_PROFILES
    return 2.0**-15 / (op.product_scale if tflite else op.hidden_scale) * 2.0**-15


def never_reset() -> Plant:
    """Return a mutation: only the first reset of a session does anything."""
    right = Session.reset

    def wrong(self: Session) -> None:
        if not hasattr(self, "_started"):
            right(self)
            self._started = True  # type: ignore[attr-defined]

    return patch(Session, "reset", wrong)


def always_reset() -> Plant:
    """Return a mutation: every call of a session starts from the first state."""
    right = Session.run

    def wrong(self: Session, x: Array, lengths: Array | None = None) -> Array:
        self.reset()
        return right(self, x, lengths)

    return patch(Session, "run", wrong)


def dense_rounding(profile: str, rounder: Callable[[dense.DenseKernel, I64], Array]) -> Plant:
    """Return a mutation: one profile's Dense rounds in another way, step by step too."""
    right = dense.DenseKernel._round

    def wrong(self: dense.DenseKernel, acc: I64) -> I64:
        if self.rounding != profile:
            return right(self, acc)
        return np.asarray(rounder(self, acc)).astype(np.int64)

    return patch(dense.DenseKernel, "_round", wrong)


def xnnpack_product(kernel: dense.DenseKernel, acc: I64) -> Array:
    return acc.astype(np.float32) * kernel.float_scales


def quantize_away(self: quantize_op.QuantizeKernel, inputs: list[Array], lengths: object) -> Array:
    whole = round_half_away(inputs[0] / np.float32(self.output.scale))
    q: Array = np.clip(whole + self.output.zero_point, -128, 127).astype(np.int8)
    return q


@dataclass(frozen=True)
class Mutation:
    """A mistake, who sees it, and whether the fast form could make it too.

    ``fast``: False: it could not, or it shares the code; True: the same plant reaches it; or a
    plant of its own.
    """

    plant: Plant
    detector: Detector
    fast: Plant | bool = False


LSTM_TFLITE = golden("seq_T14_I13_H33_O0", "y_litert")
LSTM_TFLM = golden("seq_T14_I13_H33_O0", "y_tflm_2026_10")
TIES_TFLITE = golden("crafted_cell_ties", "y_litert")
TIES_TFLM = golden("crafted_cell_ties", "y_tflm_2026_10")
LOUD_TFLM = golden("crafted_recurrent_saturation", "y_tflm_2026_10")
LOUD_TFLITE = golden("crafted_recurrent_saturation", "y_litert")


def without_bounds(tables: lstm_tables.FastTables, half: str) -> lstm_tables.FastTables:
    return replace(tables, **{half: replace(getattr(tables, half), bounds=None)})


MUTATIONS: dict[str, Mutation] = {
    # Rounding
    "single rounding in requantize, TFLite": Mutation(
        patch(lstm_integer, "requantize", single_rounding), LSTM_TFLITE
    ),
    "single rounding in requantize, TFLM": Mutation(
        patch(lstm_integer, "requantize", single_rounding), LSTM_TFLM
    ),
    "first rounding of requantize truncates": Mutation(
        patch(lstm_integer, "requantize", first_rounding_truncated), LSTM_TFLM
    ),
    "ties up in requantize, TFLite": Mutation(
        patch(lstm_integer, "requantize", requantize_ties_up),
        LSTM_TFLITE,
        patch(lstm_tables, "NUDGE", 1.0 - 2.0**-40),
    ),
    "ties up in requantize, TFLM": Mutation(
        patch(lstm_integer, "requantize", requantize_ties_up), LSTM_TFLM
    ),
    "ties to even in the second rounding of the fast form": Mutation(
        patch(lstm_tables, "NUDGE", 1.0), TIES_TFLM, patch(lstm_tables, "NUDGE", 1.0)
    ),
    "ties up in the cell's products, TFLite": Mutation(
        patch(lstm_integer, "rounding_divide_by_pot", divide_ties_up), TIES_TFLITE
    ),
    "ties to even in the cell's products, TFLite": Mutation(
        patch(lstm_integer, "rounding_divide_by_pot", divide_ties_even),
        TIES_TFLITE,
        patch(lstm_tables, "NUDGE", 1.0),
    ),
    "one rounding of the cell's products, TFLM": Mutation(
        patch(LstmKernel, "_cell_update_tflm", LstmKernel._cell_update_tflite),
        golden("crafted_cell_double_rounding", "y_tflm_2026_10"),
    ),
    "a tie of o * tanh(c) falls the wrong way": Mutation(
        patch(lstm_integer, "requantize", single_rounding),
        golden("crafted_hidden_ties", "y_tflm_2026_10"),
        patch(lstm_tables, "TIE_NUDGE", -(2.0**-41)),
    ),
    "int16 accumulators: multiplier not cut to 16 bits": Mutation(
        patch(lstm_integer, "requantize_s64", lambda acc, f: wrap32(single_rounding(acc, f))),
        golden("tflmonly_16x8", "y_tflm_2026_10"),
    ),
    # Saturation and wrapping
    "input term not saturated, TFLite": Mutation(
        gate(saturates_input=False),
        LOUD_TFLITE,
        fast_tables(lambda tables: without_bounds(tables, "from_input")),
    ),
    "input term not saturated, TFLM": Mutation(
        gate(saturates_input=False),
        LOUD_TFLM,
        fast_tables(lambda tables: without_bounds(tables, "from_input")),
    ),
    "recurrent term not saturated by itself, TFLM": Mutation(
        gate(saturates_recurrent=()),
        LOUD_TFLM,
        fast_tables(lambda tables: without_bounds(tables, "recurrent")),
    ),
    "recurrent term saturated by itself, TFLite": Mutation(
        gate(saturates_recurrent=("litert",)), LOUD_TFLITE
    ),
    "recurrent term saturated by itself, CMSIS-NN": Mutation(
        gate(saturates_recurrent=("cmsis-nn",)), cmsis_gate_is_wrong
    ),
    "sum of both terms not saturated": Mutation(gate(saturates_sum=False), LOUD_TFLITE),
    "accumulator does not wrap": Mutation(
        gate(wraps=False), golden("crafted_overflow", "y_litert")
    ),
    "cell state not saturated, TFLite": Mutation(
        cell_update("tflite", True, False), golden("batch3_T6_I5_H9_O0", "y_litert")
    ),
    "cell state not saturated, TFLM": Mutation(
        cell_update("tflm", True, False), golden("batch3_T6_I5_H9_O0", "y_tflm_2026_10")
    ),
    "cell state not saturated, CMSIS-NN": Mutation(
        cell_update("cmsis", True, False), golden("batch3_T6_I5_H9_O0", "lstm0_cmsis_stateless")
    ),
    "i * g saturated before the sum, CMSIS-NN": Mutation(
        cell_update("cmsis", False, True), cmsis_cell_is_wrong
    ),
    "hidden state not saturated": Mutation(
        patch(LstmKernel, "_hidden", unsaturated_hidden), golden("crafted_cell_ties", "y_litert")
    ),
    "cell clip ignored": Mutation(
        parameters(lambda given, op, program: replace(given, cell_clip=0)),
        golden("crafted_cell_clip", "y_litert"),
        True,
    ),
    "cell clip off by one": Mutation(
        parameters(lambda given, op, program: replace(given, cell_clip=given.cell_clip + 1)),
        golden("crafted_cell_clip", "y_tflm_2026_10"),
        True,
    ),
    # Tables
    **{
        f"{what} table of the other family, {family}": Mutation(
            swapped(what), golden("last_T12_I6_H16_O5", key), True
        )
        for what in ("sigmoid", "gate_tanh", "cell_tanh")
        for family, key in (("TFLite", "y_litert"), ("TFLM", "y_tflm_2026_10"))
    },
    "TFLite's missing tanh is computed": Mutation(
        parameters(
            lambda given, op, program: replace(
                given, cell_tanh=activations.interpolated_tanh(12 + given.cell_power)
            )
        ),
        golden("hand_quirk_cell16", "y_litert"),
    ),
    # Scales
    "float product of scales, TFLM since 2026-10": Mutation(
        product_in_float(double=False), golden("hand_straddle", "y_tflm_2026_10")
    ),
    "double product of scales, TFLM before": Mutation(
        product_in_float(double=True), golden("hand_straddle", "y_tflm_2026_08")
    ),
    "double product of scales, TFLite": Mutation(
        product_in_float(double=True), golden("hand_straddle", "y_litert")
    ),
    "double product of scales, CMSIS-NN through an old TFLM": Mutation(
        product_in_float(double=True), golden("hand_straddle", "lstm0_cmsis_stateless")
    ),
    "float product of scales in Dense, TFLM since 2026-10": Mutation(
        product_in_float(double=False), golden("hand_straddle_fc", "y_tflm_2026_10")
    ),
    "double product of scales in Dense, TFLM before": Mutation(
        product_in_float(double=True), golden("hand_straddle_fc", "y_tflm_2026_08")
    ),
    "double product of scales in Dense, tflite-runtime": Mutation(
        product_in_float(double=True), golden("hand_straddle_fc", "y_tfr")
    ),
    "hidden factor not rounded to float32, TFLite": Mutation(
        parameters(
            lambda given, op, program: replace(
                given, hidden_factor=quantize_multiplier(hidden_real(op, program))
            )
        ),
        golden("crafted_hidden_factor", "y_litert"),
        True,
    ),
    "hidden factor rounded to float32, TFLM": Mutation(
        parameters(
            lambda given, op, program: replace(
                given,
                hidden_factor=quantize_multiplier(float(np.float32(hidden_real(op, program)))),
            )
        ),
        golden("crafted_hidden_factor", "y_tflm_2026_10"),
        True,
    ),
    "hidden factor from tensor 18, TFLite": Mutation(
        parameters(
            lambda given, op, program: replace(
                given, hidden_factor=quantize_multiplier(2.0**-30 / op.hidden_scale)
            )
        ),
        golden("crafted_intermediate", "y_litert"),
        True,
    ),
    "hidden factor from intermediate 4, TFLM": Mutation(
        parameters(
            lambda given, op, program: replace(
                given, hidden_factor=quantize_multiplier(2.0**-30 / op.product_scale)
            )
        ),
        golden("crafted_intermediate", "y_tflm_2026_10"),
        True,
    ),
    # Biases
    "input zero point not folded into the bias": Mutation(
        parameters(lambda given, op, program: replace(given, input_bias=op.bias.astype(np.int64))),
        LSTM_TFLITE,
        True,
    ),
    "hidden zero point not folded into the bias": Mutation(
        parameters(
            lambda given, op, program: replace(given, recurrent_bias=0 * given.recurrent_bias)
        ),
        golden("last_T12_I6_H16_O5", "y_litert"),
        True,
    ),
    "input zero point folded with the wrong sign": Mutation(
        parameters(
            lambda given, op, program: replace(given, input_bias=2 * op.bias - given.input_bias)
        ),
        LSTM_TFLM,
        True,
    ),
    # State
    "state not reset": Mutation(never_reset(), LSTM_TFLITE, True),
    "state not carried between calls": Mutation(always_reset(), LSTM_TFLM, True),
    # Variants
    "CIFG: input gate is 32768 - f": Mutation(
        patch(LstmKernel, "step", None), golden("tfliteonly_crafted_cifg", "y_litert")
    ),
    "peephole: none": Mutation(
        patch(LstmKernel, "_peephole", lambda self, gate, total, cell: total),
        golden("tfliteonly_peephole", "y_litert"),
    ),
    "layer norm: none": Mutation(
        patch(LstmKernel, "_layer_norm", lambda self, gate, total: total),
        golden("tfliteonly_layernorm", "y_litert"),
    ),
    "projection: none": Mutation(
        patch(
            LstmKernel,
            "_hidden",
            lambda self, product: unsaturated_hidden(self, product)[:, : self.op.output_size],
        ),
        golden("tfliteonly_projection", "y_litert"),
    ),
    # Dense and QUANTIZE
    "Dense of LiteRT rounds half away": Mutation(
        dense_rounding("litert", lambda k, acc: round_half_away(xnnpack_product(k, acc))),
        golden("crafted_dense_ties", "y_litert"),
    ),
    "Dense of LiteRT's reference rounds half to even": Mutation(
        dense_rounding("litert-ref", lambda k, acc: np.rint(acc * k.real_scales)),
        golden("crafted_dense_ties", "y_litert_ref"),
    ),
    "Dense of tflite-runtime rounds ties away": Mutation(
        dense_rounding("tflite-runtime", lambda k, acc: requantize(acc, k.factors[0])),
        golden("crafted_dense_ties", "y_tfr"),
    ),
    "Dense of TFLM rounds ties up": Mutation(
        dense_rounding("tflm", lambda k, acc: requantize_ties_up(acc, k.factors[0])),
        golden("crafted_dense_ties", "y_tflm_2026_10"),
    ),
    "QUANTIZE of LiteRT rounds half away": Mutation(
        patch(quantize_op.QuantizeKernel, "run", quantize_away),
        golden("crafted_quantize_ties", "y_litert"),
    ),
}


def cifg_step(self: LstmKernel, x: Array) -> Array:
    """Return a step whose input gate is 32768 - f."""
    given, hidden, cell = self.parameters, self.hidden, self.cell.astype(np.int64)
    forget = self._lookup(given.sigmoid, self._gate(1, x, hidden, cell))
    candidate = self._lookup(given.gate_tanh, self._gate(2, x, hidden, cell))
    cell = self._cell_update(forget, cell, 32768 - forget, candidate)
    exit_ = self._lookup(given.sigmoid, self._gate(3, x, hidden, cell))
    assert given.cell_tanh is not None
    product = exit_ * self._lookup(given.cell_tanh, cell)
    self.cell[...] = cell
    self.hidden[...] = self._hidden(requantize(product, given.hidden_factor))
    return self.hidden


MUTATIONS["CIFG: input gate is 32768 - f"] = replace(
    MUTATIONS["CIFG: input gate is 32768 - f"], plant=patch(LstmKernel, "step", cifg_step)
)


@pytest.fixture
def plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every LSTM and Dense run in its plain form."""
    monkeypatch.setattr(lstm_tables, "shared_tables", lambda op, program: None)
    monkeypatch.setattr(dense.DenseKernel, "_step_tape", lambda self, *_: None)


@pytest.mark.usefixtures("plain_form")
@pytest.mark.parametrize("name", [name for name in MUTATIONS if "fast form" not in name])
def test_every_mistake_in_the_plain_form_is_detected(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation = MUTATIONS[name]
    assert not mutation.detector(), "the detector is wrong: nothing is planted"
    mutation.plant(monkeypatch)
    assert mutation.detector(), "no detector sees this mistake"


@pytest.mark.parametrize("name", [name for name, one in MUTATIONS.items() if one.fast])
def test_every_mistake_in_the_fast_form_is_detected(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation = MUTATIONS[name]
    ran = count_fast_lstms(monkeypatch)
    assert not mutation.detector(), "the detector is wrong: nothing is planted"
    # A Dense alone, or a model whose form is the plain one, would prove nothing here.
    assert ran or "Dense" in name
    assert mutation.fast is not False
    plant = mutation.plant if mutation.fast is True else mutation.fast
    plant(monkeypatch)
    assert mutation.detector(), "no detector sees this mistake"


def count_fast_lstms(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with each LSTM that runs in the fast form."""
    ran: list[str] = []
    right = lstm_fast.FastLstmKernel.__init__

    def counted(self: lstm_fast.FastLstmKernel, op: LstmOp, *rest: object) -> None:
        ran.append(op.name)
        right(self, op, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(lstm_fast.FastLstmKernel, "__init__", counted)
    return ran


@pytest.mark.usefixtures("plain_form")
@pytest.mark.parametrize(
    "folder", ["crafted_recurrent_saturation", "crafted_overflow", "last_T12_I6_H16_O5"]
)
def test_the_copies_that_mutations_start_from_are_right(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without their mistake, the functions that are planted here change nothing."""
    for plant in (gate(), cell_update("tflite", True, True), cell_update("tflm", True, True)):
        plant(monkeypatch)
    for key in ("y_litert", "y_tflm_2026_10"):
        assert not golden(folder, key)()


def test_random_vectors_alone_would_miss_what_the_crafted_ones_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Why the crafted models are there: no other golden model sees these mistakes."""
    monkeypatch.setattr(lstm_tables, "shared_tables", lambda op, program: None)
    others = [
        golden(path.parent.name, "y_litert")
        for path in GOLDEN.glob("*/model.tflite")
        if "crafted" not in path.parent.name and "y_litert" in vectors(path.parent.name)
    ]
    assert len(others) > 10
    for name in (
        "ties up in the cell's products, TFLite",
        "cell clip ignored",
        "hidden factor not rounded to float32, TFLite",
    ):
        with monkeypatch.context() as inner:
            MUTATIONS[name].plant(inner)
            assert not any(is_wrong() for is_wrong in others), name


def test_definitions_agree_with_the_primitives() -> None:
    random = np.random.default_rng(1)
    for _ in range(300):
        factor = Factor(int(random.integers(2**30, 2**31)), int(random.integers(-20, 1)))
        acc = int(random.integers(-(2**24), 2**24))
        assert int(requantize(np.array(acc), factor)) == twice_rounded(acc, factor)

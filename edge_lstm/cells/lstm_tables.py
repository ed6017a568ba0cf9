"""What the fast integer LSTM computes once: folded weights, bounds and tables.

The numbers in comments are those of ``lstm_fast``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import numpy as np

from edge_lstm.arrays import F32, F64, I8, I64, Array
from edge_lstm.cells.lstm_integer import (
    CELL,
    FORGET,
    INPUT,
    OUTPUT,
    TFLITE_PROFILES,
    LstmOp,
    lstm_parameters,
)
from edge_lstm.fixed_point import Factor
from edge_lstm.program import Program

GATE_ORDER = (INPUT, FORGET, OUTPUT, CELL)  # i and f face g and c in one product
MAGIC = 1.5 * 2.0**52
NUDGE = 1.0 + 2.0**-40
EXACT = 2.0**53
FLOAT_ERROR = 2.0**-51
"""Relative error of the narrow half: a product, a sum and the factor, each rounded once."""
HIDDEN_REACH = 300
"""Results beyond are saturated in every case: bytes and zero points are within +-128."""
MOST_BYTES = 1 << 18
"""An output range this far below the products' would make the table of bytes too long."""
TIE_NUDGE = 2.0**-41
OUTPUT_ERROR = 2.0**-43
"""Absolute error of o * tanh(c) * scale + rounding, a number below 1024."""
NARROW_VALUES = 20_000
"""From this size on, float32 weights save more than their extra call costs."""

Form = Literal["folded", "rounded", "displaced"]
FORMS: tuple[Form, ...] = get_args(Form)
"""How a sum is requantized: with ``multiplier / 2**31`` folded into float64 weights; from float32
weights in two roundings; or in one, moved away from zero, where only that is proven exact."""


@dataclass(frozen=True, eq=False, repr=False)
class Half:
    """The input or the recurrent half of all gates' pre-activations, rows in ``GATE_ORDER``."""

    form: Form
    weights: F32 | F64
    """[4 * cells, columns + 1], the last column the bias; float64 where they are folded."""
    factor: F64
    """[4 * cells]: what a float32 sum is multiplied by; for ``displaced`` with the shift."""
    scale: F64
    """[4 * cells]: the shift, behind the first rounding; negative for the recurrent half."""
    shift: F64
    """[4 * cells]: half a unit of the first rounding, for ``displaced``."""
    ties: bool
    """Whether a product can end in a half, which ``rint`` would round to even."""
    bounds: tuple[float, float] | None
    """What the half is clipped to, where the weights do not exclude it."""
    reach: int
    """No value behind the clip is greater."""


def _row_bound(weights: Array, bias: I64, low: int, high: int) -> F64:
    """Return the greatest magnitude that each row's accumulator can reach."""
    positive = np.maximum(weights, 0).astype(np.float64).sum(axis=1)
    negative = np.minimum(weights, 0).astype(np.float64).sum(axis=1)
    top = positive * high + negative * low + bias
    bottom = positive * low + negative * high + bias
    bound: F64 = np.maximum(np.abs(top), np.abs(bottom))
    return bound


def _half(
    weights: Sequence[Array],
    biases: Sequence[I64],
    factors: Sequence[Factor],
    *,
    sign: int,
    limit: int,
    form: Form,
) -> Half | None:
    """Prepare one half, or return None where floats would not be exact.

    Args:
        weights: int8, by gate.
        biases: effective biases, by gate.
        factors: to Q3.12, by gate.
        sign: -1 carries the half negated.
        limit: values are clipped to [-limit, limit - 1].
        form: how to requantize.
    """
    rows: list[Array] = []
    firsts, scales, shifts, worst, ties = [], [], [], 0.0, False
    for matrix, bias, factor in zip(weights, biases, factors, strict=True):
        multiplier, shift = factor
        left, right = max(shift, 0), max(-shift, 0)
        sums = float(_row_bound(matrix, bias, -128, 127).max())
        bound = sums * 2.0**left
        real = multiplier * 2.0 ** (left - 31)
        zeros = _trailing_zeros(multiplier)
        # In units of the last bit that the products have.
        exact = bound < 2.0**31 and (bound + 2) * (multiplier >> zeros) < EXACT
        columns = np.column_stack([matrix, bias])
        if form == "folded":
            if not exact:
                return None
            folded = columns * real
            folded[:, -1] += 0.5
            rows.append(folded)
        else:
            if sums >= 2.0**24:
                return None
            rows.append(columns.astype(np.float32))
        if form == "rounded" and not exact:
            return None
        # A product that ends in a half has the factor 2**30, and not 2**31.
        ties = ties or 2.0 ** (30 - zeros - left) <= max(sums, 1.0)
        if form == "displaced" and (left or not _gate_is_decided(factor, limit)):
            return None
        shifted = sign * real * 2.0**-right if form == "displaced" else real
        firsts.append(np.full(len(bias), shifted))
        scales.append(np.full(len(bias), sign * 2.0**-right * NUDGE))
        shifts.append(np.full(len(bias), 2.0 ** (-right - 1) if right else 0.0))
        worst = max(worst, (bound * real + 1) * 2.0**-right + 1)
    clips = worst > limit - 2
    low, high = (-limit, limit - 1) if sign > 0 else (1 - limit, limit)
    return Half(
        form=form,
        # Column order makes a product with one vector 1.2 to 1.5 times as fast.
        weights=np.asfortranarray(np.concatenate(rows)),
        factor=np.concatenate(firsts),
        scale=np.concatenate(scales),
        shift=np.concatenate(shifts),
        ties=ties,
        bounds=(float(low), float(high)) if clips else None,
        reach=limit if clips else int(worst) + 1,
    )


def _trailing_zeros(value: int) -> int:
    return (value & -value).bit_length() - 1 if value else 31


def _gate_is_decided(factor: Factor, limit: int) -> bool:
    """Return whether float64 rounds every sum below 2**24 times ``factor`` as the integers do.

    As in ``output_is_decided``; there is no nudge here, so equality is refused too.
    """
    multiplier, right = factor.multiplier, -factor.shift
    if multiplier == 0:
        return False
    top = min(limit + 1, ((multiplier << 24) >> (31 + right)) + 1)
    k = np.arange(1, top + 1, dtype=np.int64)
    # The first sum that is rounded to k: half a unit below it where nothing is shifted.
    start = (k << right) - (1 << (right - 1)) if right else k
    threshold = (start << 31) - (1 << 30)
    rest = threshold % multiplier
    distance = np.minimum(rest, multiplier - rest)
    return bool((distance > threshold * FLOAT_ERROR).all())


@dataclass(frozen=True, eq=False, repr=False)
class FastTables:
    """What a Program's LSTM shares among its sessions; float64, rows in ``GATE_ORDER``."""

    from_input: Half
    recurrent: Half
    input_magic: F64
    gates: F64
    """Sigmoid for rows i, f, o, then tanh for g: each over all sums that can occur."""
    product_scale: F64 | None
    """[2 * cells]: the power of two behind ceil; None: one rounding, folded into the tables."""
    cell: F64
    """[3, 65536], for all sums from -32768: the cell state, its tanh, the output's rounding."""
    cell_unit: float
    hidden: Array
    """For all results from -HIDDEN_REACH: the byte, in the type of the recurrent weights."""

    hidden_bytes: I8
    """The same as int8, for every index that can occur; negative ones count from the end."""

    @cached_property
    def both_factors(self) -> F64:
        """``factor`` of the input half, then of the recurrent half."""
        return np.concatenate([self.from_input.factor, self.recurrent.factor])

    @cached_property
    def both_scales(self) -> F64:
        """``scale`` of the input half, then of the recurrent half."""
        return np.concatenate([self.from_input.scale, self.recurrent.scale])

    @cached_property
    def both_shifts(self) -> F64:
        """``shift`` of the input half, then of the recurrent half."""
        return np.concatenate([self.from_input.shift, self.recurrent.shift])

    @cached_property
    def recurrent_magic(self) -> F64:
        """MAGIC for each row of the recurrent half."""
        return np.full_like(self.input_magic, MAGIC)

    @cached_property
    def both_magics(self) -> F64:
        """What is added to round and to offset: the input half, then the recurrent half."""
        return np.concatenate([self.input_magic, self.recurrent_magic])

    @cached_property
    def cell_magic(self) -> F64:
        """What is added to round both products: for i * g with the offset of ``cell``."""
        cells = len(self.input_magic) // 4
        return MAGIC + np.repeat([32768.0, 0.0], cells)

    @cached_property
    def block_diagonal(self) -> Array:
        """Both halves as one matrix for [x, 1, hidden, 1], in column order."""
        top, bottom = self.from_input.weights, self.recurrent.weights
        rows, columns = len(top), top.shape[1]
        both = np.zeros((2 * rows, columns + bottom.shape[1]), top.dtype, order="F")
        both[:rows, :columns], both[rows:, columns:] = top, bottom
        return both


def output_is_decided(factor: Factor) -> bool:
    """Return whether float64 rounds every product o * tanh(c) to the same byte as the integers.

    The hidden state is ``rdp(srdhm(p, multiplier), right)`` of an integer p. It reaches k > 0
    where ``p * multiplier >= threshold``, and -k where ``-p * multiplier > threshold``. The
    float64 form is off by less than ``OUTPUT_ERROR`` and is nudged upwards by ``TIE_NUDGE`` for
    the case of equality, so no other product may come that close.
    """
    multiplier, right = factor.multiplier, -factor.shift
    if multiplier == 0 or right < 1:
        return False
    least = (TIE_NUDGE + OUTPUT_ERROR) * 2.0 ** (31 + right)
    for k in range(1, 257):
        threshold = (((k << right) - (1 << (right - 1))) << 31) - (1 << 30)
        below, rest = divmod(threshold, multiplier)
        if below > 1 << 30:
            break
        if min(rest or multiplier, multiplier - rest) <= least:
            return False
    return True


def fast_tables(
    op: LstmOp, program: Program, forms: Sequence[Form] | None = None
) -> FastTables | None:
    """Prepare the fast form, or return None where only the plain one is exact.

    Args:
        op: a plain int8 LSTM.
        program: its tensors and profile.
        forms: the first that is exact is taken; None: in order of speed.
    """
    if op.variants or program.tensors[op.inputs[0]].dtype != "int8":
        return None
    parameters = lstm_parameters(op, program)
    if parameters.cell_tanh is None or parameters.cell_power < -15:
        return None
    if not output_is_decided(parameters.hidden_factor):
        return None
    tflite = program.profile in TFLITE_PROFILES
    zero_point = op.product_zero_point if tflite else op.hidden_zero_point
    order = list(GATE_ORDER)
    saturates_alone = program.profile.startswith("tflm")
    weight_count = op.input_weights.size + op.recurrent_weights.size

    def halves(form: Form) -> tuple[Half, Half] | None:
        from_input = _half(
            [op.input_weights[k] for k in order],
            [parameters.input_bias[k] for k in order],
            [parameters.input_factors[k] for k in order],
            sign=1,
            limit=32768,
            form=form,
        )
        recurrent = _half(
            [op.recurrent_weights[k] for k in order],
            [parameters.recurrent_bias[k] for k in order],
            [parameters.recurrent_factors[k] for k in order],
            sign=-1,
            # A sum beyond this saturates whatever the input half adds.
            limit=32768 if saturates_alone else 65536,
            form=form,
        )
        return None if from_input is None or recurrent is None else (from_input, recurrent)

    if forms is None:
        forms = FORMS if weight_count < NARROW_VALUES else (*FORMS[1:], FORMS[0])
    both = next((pair for form in forms if (pair := halves(form)) is not None), None)
    if both is None:
        return None
    from_input, recurrent = both
    cells = op.cell_count
    # How far the sum of both halves can go decides the size of the table.
    reach = from_input.reach + recurrent.reach + 2
    sums = np.clip(np.arange(-reach, reach + 1), -32768, 32767) & 0xFFFF
    segment = len(sums)
    offsets = np.repeat([reach, reach, reach, segment + reach], cells)
    kept_exponent = 15 if tflite else -parameters.forget_cell_factor.shift
    added_exponent = 30 + parameters.cell_power if tflite else -parameters.input_cell_factor.shift
    if tflite:
        product_scale = None
        kept_unit, added_unit = 2.0**-kept_exponent * NUDGE, 2.0**-added_exponent * NUDGE
    else:
        if (
            parameters.forget_cell_factor.multiplier != 2**30
            or parameters.input_cell_factor.multiplier != 2**30
            or added_exponent < 0
        ):
            return None
        # The multiplier 2**30 of 2**31 halves; ceil rounds; the shift comes after.
        kept_unit = added_unit = 0.5
        product_scale = np.repeat(
            [2.0**-added_exponent * NUDGE, -(2.0**-kept_exponent) * NUDGE], cells
        )
    gates = np.concatenate(
        [
            parameters.sigmoid[sums].astype(np.float64),
            parameters.gate_tanh[sums] * added_unit,
        ]
    )
    cell_values = np.arange(-32768, 32768)
    if parameters.cell_clip > 0:
        cell_values = np.clip(cell_values, -parameters.cell_clip, parameters.cell_clip)
    # The products of f and c are negated so that the sum of both is a difference.
    cell_unit = -kept_unit if tflite else kept_unit
    multiplier, shift = parameters.hidden_factor
    squashed = parameters.cell_tanh[cell_values & 0xFFFF].astype(np.float64)
    rounding = HIDDEN_REACH + 0.5 + TIE_NUDGE + np.sign(squashed) * 2.0 ** (shift - 1)
    hidden_values = np.clip(np.arange(-HIDDEN_REACH, HIDDEN_REACH + 1) + zero_point, -128, 127)
    worst = int(2.0**30 * multiplier * 2.0 ** (shift - 31)) + 2
    if worst > MOST_BYTES:
        return None
    above = np.full(worst, hidden_values[-1])
    below = np.full(worst, hidden_values[0])
    return FastTables(
        from_input=from_input,
        recurrent=recurrent,
        input_magic=MAGIC + offsets,
        gates=gates,
        product_scale=product_scale,
        cell=np.stack(
            [cell_values * cell_unit, squashed * (multiplier * 2.0 ** (shift - 31)), rounding]
        ),
        cell_unit=cell_unit,
        hidden=hidden_values.astype(recurrent.weights.dtype),
        hidden_bytes=np.concatenate([hidden_values, above, below]).astype(np.int8),
    )


_TABLES: WeakKeyDictionary[LstmOp, dict[object, FastTables | None]] = WeakKeyDictionary()


def shared_tables(op: LstmOp, program: Program) -> FastTables | None:
    """Return ``fast_tables``, made once for all sessions of a program."""
    source = program.tensors[op.inputs[0]]
    key = (program.profile, source.dtype, source.scale, source.zero_point)
    known = _TABLES.setdefault(op, {})
    if key not in known:
        known[key] = fast_tables(op, program)
    return known[key]

"""Sigmoid and tanh on integers, exactly as each kernel family computes them.

Both families are functions of one int16 word, so each is kept as a table of 65536 entries,
int16, indexed by ``x & 0xFFFF`` and built on first use.

* gemmlowp: TFLite, LiteRT and tflite-runtime. Fixed-point exp and Newton division.
* interpolated: TensorFlow Lite Micro and CMSIS-NN. 256 entries and linear interpolation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from edge_lstm.arrays import F32, I16, I64, Array
from edge_lstm.fixed_point import (
    round_half_away,
    rounding_divide_by_pot,
    saturate,
    saturating_rounding_doubling_high_mul,
    saturating_rounding_doubling_high_mul_s16,
    wrap16,
    wrap32,
)

# exp(-2**k) for k = -2..4 in Q0.31, gemmlowp fixedpoint.h, exp_on_negative_values.
_EXP_FACTORS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)
_EXP_MINUS_1_8 = 1895147668  # exp(-1/8), Q0.31
_ONE_THIRD = 715827883  # Q0.31
_48_17 = 1515870810  # 48/17 in Q2.29, start of Newton's division
_32_17 = 1010580540  # 32/17 in Q2.29


@dataclass(frozen=True)
class _Word:
    """The word width that gemmlowp's templates are instantiated with."""

    bits: int

    def multiply(self, left: Array, right: Array | int) -> I64:
        if self.bits == 16:
            return saturating_rounding_doubling_high_mul_s16(left, right)
        return saturating_rounding_doubling_high_mul(left, right)

    def constant(self, value: int) -> int:
        """Return a Q0.31 (or Q2.29) constant reduced to the word."""
        return int(rounding_divide_by_pot(np.int64(value), 32 - self.bits))

    def shift_left(self, value: Array, exponent: int) -> I64:
        """Mirrors: SaturatingRoundingMultiplyByPOT (gemmlowp), positive exponent."""
        top = (1 << (self.bits - 1 - exponent)) - 1
        low, high = -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        shifted = np.asarray(value, np.int64) << exponent
        return np.where(value > top, high, np.where(value < -top, low, shifted))

    def wrap(self, value: Array) -> I64:
        return wrap16(value) if self.bits == 16 else wrap32(value)

    @property
    def one(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def exp_on_interval(self, a: Array) -> I64:
        """Return exp(a) for a in [-1/4, 0), Q0.(bits-1)."""
        x = a + (1 << (self.bits - 4))
        x2 = self.multiply(x, x)
        x3 = self.multiply(x2, x)
        x4 = self.multiply(x2, x2)
        third = self.constant(_ONE_THIRD)
        cubic = self.multiply(self.wrap(rounding_divide_by_pot(x4, 2) + x3), third)
        series = rounding_divide_by_pot(self.wrap(cubic + x2), 1)
        factor = self.constant(_EXP_MINUS_1_8)
        total = factor + self.multiply(self.wrap(x + series), factor)
        return saturate(total, -self.one - 1, self.one)

    def exp_of_negative(self, a: Array, integer_bits: int) -> I64:
        """Return exp(a) in Q0.(bits-1) for a <= 0 in Q(integer_bits)."""
        fraction_bits = self.bits - 1 - integer_bits
        quarter = 1 << (fraction_bits - 2)
        in_quarter = (a & (quarter - 1)) - quarter
        result = self.exp_on_interval(self.shift_left(in_quarter, integer_bits))
        remainder = in_quarter - a
        for exponent, factor in _EXP_FACTORS:
            if integer_bits > exponent:
                bit = 1 << (fraction_bits + exponent)
                scaled = self.multiply(result, self.constant(factor))
                result = np.where((remainder & bit) != 0, scaled, result)
        if integer_bits > 5:
            clamp = -(1 << (36 - integer_bits))
            result = np.where(a < self.constant(clamp), 0, result)
        return np.where(a == 0, self.one, result)

    def one_over_one_plus(self, a: Array) -> I64:
        """Return 1 / (1 + a) / 2 in Q0.(bits-1), for a in [0, 1], by Newton's method.

        Mirrors: one_over_one_plus_x_for_x_in_0_1 (gemmlowp) before its last rescale.
        """
        denominator = (a + self.one + 1) >> 1
        x = self.constant(_48_17) + self.multiply(denominator, self.constant(-_32_17))
        one = 1 << (self.bits - 3)
        for _ in range(3):
            error = one - self.multiply(denominator, x)
            x = self.wrap(x + self.shift_left(self.multiply(x, error), 2))
        return x


_S16, _S32 = _Word(16), _Word(32)


def _logistic(word: _Word, x: Array, integer_bits: int) -> I64:
    x = np.asarray(x, np.int64)
    half = word.one_over_one_plus(word.exp_of_negative(-np.abs(x), integer_bits))
    y = word.shift_left(half, 1)
    return np.where(x == 0, (word.one + 1) >> 1, np.where(x > 0, y, word.one - y))


def _tanh(word: _Word, x: Array, integer_bits: int) -> I64:
    x = np.asarray(x, np.int64)
    half = word.one_over_one_plus(word.exp_of_negative(-np.abs(x), integer_bits + 1))
    y = word.shift_left(half - (1 << (word.bits - 3)), 2)
    return np.where(x == 0, 0, np.sign(x) * y)


def logistic_s32(x: Array, integer_bits: int) -> I64:
    """Return sigmoid in Q0.31 of int32 values in Q(integer_bits).

    Mirrors: gemmlowp::logistic<FixedPoint<int32_t, integer_bits>>.
    """
    return _logistic(_S32, x, integer_bits)


def tanh_s32(x: Array, integer_bits: int) -> I64:
    """Return tanh in Q0.31 of int32 values in Q(integer_bits).

    Mirrors: gemmlowp::tanh<FixedPoint<int32_t, integer_bits>>.
    """
    return _tanh(_S32, x, integer_bits)


def exp_of_negative_s32(x: Array, integer_bits: int) -> I64:
    """Return exp in Q0.31 of int32 values <= 0 in Q(integer_bits).

    Mirrors: gemmlowp::exp_on_negative_values.
    """
    return _S32.exp_of_negative(np.asarray(x, np.int64), integer_bits)


def one_over_one_plus_s32(x: Array | np.integer[Any]) -> I64:
    """Return 1 / (1 + x) in Q0.31 of x in Q0.31.

    Mirrors: gemmlowp::one_over_one_plus_x_for_x_in_0_1.
    """
    return _S32.shift_left(_S32.one_over_one_plus(np.asarray(x, np.int64)), 1)


_WORDS = np.arange(65536, dtype=np.int64)
_ALL_S16 = np.where(_WORDS < 32768, _WORDS, _WORDS - 65536)


def _table(values: Array) -> I16:
    table = values.astype(np.int16)
    table.setflags(write=False)
    return table


@cache
def gemmlowp_sigmoid() -> I16:
    """Return sigmoid of Q3.12 in Q0.15, int16 [65536], TFLite's.

    -|x| of -32768 stays -32768 there, as here in int64.
    """
    return _table(_logistic(_S16, _ALL_S16, 3))


@cache
def gemmlowp_tanh(integer_bits: int) -> I16:
    """Return tanh of Q(integer_bits) in Q0.15, int16 [65536], TFLite's; integer_bits 0..6."""
    return _table(_tanh(_S16, _ALL_S16, integer_bits))


@cache
def interpolation_knots() -> I64:
    """Return the 256 knots that TFLM and CMSIS-NN interpolate, uint16.

    sigmoid(j/24) plus half its interpolation error.
    """
    j = np.arange(256)
    s = 1 / (1 + np.exp(-j / 24))
    knots = np.floor(65536 * (s + s * (1 - s) * (2 * s - 1) / 9216) + 0.5).astype(np.int64)
    knots[255] = 65535
    return knots


def _interpolation_index(left_shift: int) -> I64:
    """Return x * 3 * 2**left_shift for all int16 x, the table's argument."""
    if left_shift >= 0:
        return (_ALL_S16 * 3) << left_shift
    right = -left_shift
    return (_ALL_S16 * 3 + (1 << (right - 1))) >> right


def interpolate_sigmoid(v: I64) -> I64:
    """Return sigmoid in Q0.15 of v in units of 1 / (3 * 4096).

    Mirrors: reference_integer_ops::Logistic, int16 (TFLM).
    """
    knots = interpolation_knots()
    a = np.abs(v)
    j = np.minimum(a >> 9, 254)
    r = np.where(
        a >> 9 >= 255, 32767 << 10, (knots[j] << 9) + (a & 511) * (knots[j + 1] - knots[j])
    )
    return np.where(v >= 0, (r + 512) >> 10, ((1 << 25) - r + 511) >> 10)


def interpolate_tanh(v: I64) -> I64:
    """Return tanh in Q0.15 of v in units of 1 / (3 * 4096).

    Mirrors: reference_integer_ops::Tanh, int16 (TFLM).
    """
    knots = interpolation_knots()
    a = np.abs(v)
    j = np.minimum(a >> 8, 254)
    r = np.where(a >> 8 >= 255, 65535 << 8, (knots[j] << 8) + (a & 255) * (knots[j + 1] - knots[j]))
    return np.where(v >= 0, (r - (1 << 23) + 128) >> 8, (-r + (1 << 23) + 127) >> 8)


@cache
def interpolated_sigmoid() -> I16:
    """Return sigmoid of Q3.12 in Q0.15, int16 [65536].

    Mirrors: Sigmoid, int16 (TFLM lstm_eval), arm_nn_activation_s16 (CMSIS-NN).
    """
    return _table(interpolate_sigmoid(_interpolation_index(0)))


@cache
def interpolated_tanh(left_shift: int) -> I16:
    """Return tanh of Q(3 + left_shift) in Q0.15, int16 [65536].

    Mirrors: Tanh, int16 (TFLM lstm_eval), arm_nn_activation_s16 (CMSIS-NN).
    """
    return _table(interpolate_tanh(_interpolation_index(left_shift)))


def _knots_s16(function: Callable[[F32], F32], low: float, high: float) -> I64:
    """Return 513 knots of a function on [low, high] in Q0.15, int16.

    Half of each interpolation's error in the middle goes to the knot before it.

    Mirrors: LUTPopulateInt16 (TFLite kernels/internal/common.h), float32.
    """
    unit, half = np.float32(32768), np.float32(2)
    step = (np.float32(high) - np.float32(low)) / np.float32(512)
    at = np.float32(low) + np.arange(513, dtype=np.float32) * step
    knots, middle = function(at), function(at[:-1] + step / half)
    sample = round_half_away(knots[:-1] * unit)
    between = round_half_away((knots[1:] * unit + sample) / half)
    bias = round_half_away((between - round_half_away(middle * unit)) / half)
    values = np.append(sample - bias, round_half_away(knots[-1:] * unit))
    table: I64 = np.clip(values, -32768, 32767).astype(np.int64)
    return table


@cache
def exp_s16() -> I64:
    """Return the knots of exp on [-10, 0] that softmax of int16 interpolates."""
    return _knots_s16(lambda x: np.exp(x).astype(np.float32), -10.0, 0.0)


@cache
def one_over_one_plus_s16() -> I64:
    """Return the knots of 1 / (1 + x) on [0, 1] that softmax of int16 interpolates."""
    return _knots_s16(lambda x: np.float32(1) / (np.float32(1) + x), 0.0, 1.0)


def interpolate_s16(knots: I64, x: Array) -> I64:
    """Return a function of int16 words by its 513 knots.

    Mirrors: LUTLookup, int16 (TFLite kernels/internal/common.h).
    """
    x = np.asarray(x, np.int64)
    index = 256 + (x >> 7)
    slope = knots[index + 1] - knots[index]
    return wrap16(knots[index] + ((slope * (x & 0x7F) + 64) >> 7))

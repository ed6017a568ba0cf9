"""The integer arithmetic of the C kernels, once.

Values are held in int64 and narrowed where C narrows, by ``wrap32``, ``saturate_s16`` and
friends. A real factor is a ``multiplier`` in Q0.31 and a power of two ``shift``:
``factor = multiplier * 2**(shift - 31)``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from edge_lstm.arrays import I64, Array

I8_MIN, I8_MAX = -128, 127
I16_MIN, I16_MAX = -32768, 32767
I32_MIN, I32_MAX = -(2**31), 2**31 - 1


class Factor(NamedTuple):
    """A real factor as integers: ``multiplier`` (Q0.31) times ``2**(shift - 31)``."""

    multiplier: int
    shift: int


def quantize_multiplier(real: float) -> Factor:
    """Return the nearest ``Factor`` of a non-negative real number.

    Mirrors: QuantizeMultiplier (TFLite kernels/internal/quantization_util.cc).
    """
    if real == 0.0:
        return Factor(0, 0)
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * 2.0**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    if shift < -31:
        return Factor(0, 0)
    return Factor(multiplier, shift)


def wrap32(value: Array | np.integer[Any]) -> I64:
    """Keep the low 32 bits as two's complement, as a C cast to int32_t does."""
    return ((value + 2**31) & 0xFFFFFFFF) - 2**31


def wrap16(value: Array) -> I64:
    """Keep the low 16 bits as two's complement, as a C cast to int16_t does."""
    return ((value + 2**15) & 0xFFFF) - 2**15


def saturate(value: Array, low: int, high: int) -> I64:
    """Clamp to ``[low, high]``."""
    return np.minimum(np.maximum(value, low), high)


def saturate_s8(value: Array) -> I64:
    """Clamp to the range of int8."""
    return saturate(value, I8_MIN, I8_MAX)


def saturate_s16(value: Array) -> I64:
    """Clamp to the range of int16."""
    return saturate(value, I16_MIN, I16_MAX)


def rounding_divide_by_pot(value: Array | np.integer[Any], exponent: int) -> I64:
    """Return ``value / 2**exponent`` to nearest, ties away from zero.

    Mirrors: RoundingDivideByPOT (gemmlowp fixedpoint.h), arm_nn_divide_by_power_of_two (CMSIS-NN).
    """
    value = np.asarray(value, np.int64)
    if exponent == 0:
        return value
    # >> floors, so a negative tie must lose one to go away from zero.
    rounded: I64 = (value + (1 << (exponent - 1)) - (value < 0)) >> exponent
    return rounded


def saturating_rounding_doubling_high_mul(value: Array, multiplier: int | Array) -> I64:
    """Return the high 32 bits of ``2 * value * multiplier``, ties up.

    Mirrors: SaturatingRoundingDoublingHighMul (gemmlowp), int32.
    """
    product = np.asarray(value, np.int64) * multiplier
    high: I64 = np.minimum((product + (1 << 30)) >> 31, I32_MAX)
    return high


def saturating_rounding_doubling_high_mul_s16(left: Array, right: Array | int) -> I64:
    """Return the high 16 bits of ``2 * left * right``, ties up.

    Mirrors: SaturatingRoundingDoublingHighMul (gemmlowp), int16.
    """
    product = np.asarray(left, np.int64) * right
    high: I64 = np.minimum((product + (1 << 14)) >> 15, I16_MAX)
    return high


def requantize(acc: Array, factor: Factor) -> I64:
    """Return ``acc * factor``, rounded twice as the C kernels round.

    Args:
        acc: int32 values, any shape; ``acc << shift`` wraps at 32 bits when ``shift > 0``.
        factor: multiplier in [2**30, 2**31) or 0, shift in [-31, 30].

    Mirrors: MultiplyByQuantizedMultiplier (TFLite, double rounding), arm_nn_requantize (CMSIS-NN).
    """
    multiplier, shift = factor
    acc = np.asarray(acc, np.int64)
    if shift > 0:
        acc = wrap32(acc << shift)
    high = saturating_rounding_doubling_high_mul(acc, multiplier)
    return rounding_divide_by_pot(high, max(-shift, 0))


def requantize_ties_up(acc: Array, factor: Factor) -> I64:
    """Return ``acc * factor`` with the second rounding's ties up.

    Mirrors: ruy's x86 kernels (LiteRT without delegates, tflite-runtime 2.14).
    """
    multiplier, shift = factor
    acc = np.asarray(acc, np.int64)
    if shift > 0:
        acc = wrap32(acc << shift)
    high = saturating_rounding_doubling_high_mul(acc, multiplier)
    return shift_right_ties_up(high, max(-shift, 0))


def shift_right_ties_up(value: Array | np.integer[Any], right: int) -> I64:
    """Return ``value / 2**right`` to nearest, ties up."""
    value = np.asarray(value, np.int64)
    return value if right == 0 else (value + (1 << (right - 1))) >> right


def multiply_and_shift(value: Array, factor: Factor) -> I64:
    """Return ``value * factor``, rounded once, ties up; the product must fit 64 bits.

    Mirrors: xnn_qs8_vcvt_ukernel (XNNPACK).
    """
    return shift_right_ties_up(np.asarray(value, np.int64) * factor.multiplier, 31 - factor.shift)


def requantize_s64(acc: Array, factor: Factor) -> I64:
    """Return an int64 accumulator times ``factor``, whose multiplier is first cut to 16 bits.

    Mirrors: MultiplyByQuantizedMultiplier for int64_t (TFLM), arm_nn_requantize_s64 (CMSIS-NN).
    """
    multiplier, shift = factor
    reduced = 0x7FFF if multiplier >= 0x7FFF0000 else (multiplier + (1 << 15)) >> 16
    total = np.asarray(acc, np.int64) * reduced
    return wrap32((total + (1 << (14 - shift))) >> (15 - shift))


def round_half_away(value: Array | np.floating[Any]) -> Array:
    """Round floats to nearest, ties away from zero, as C's ``round``.

    Computed in the precision of the argument; ``np.round`` ties to even.
    """
    value = np.asarray(value)
    whole = np.trunc(value)
    rounded: Array = whole + np.sign(value) * (np.abs(value - whole) >= 0.5)
    return rounded

"""LOGISTIC, TANH, SOFTMAX, RELU and RELU6 on int16, as TensorFlow Lite Micro has them.

TFLite has other kernels for these, but none for an LSTM of int16 activations.
"""

from __future__ import annotations

import math

import numpy as np

from edge_lstm import activations
from edge_lstm.arrays import I16, Array
from edge_lstm.fixed_point import (
    I16_MAX,
    Factor,
    quantize_multiplier,
    requantize,
    round_half_away,
    saturate,
    saturate_s16,
    shift_right_ties_up,
)
from edge_lstm.program import Tensor

OUTPUT_SCALE = 2.0**-15
"""Of sigmoid, tanh and softmax; their zero point is 0."""
TABLE_SCALE = 4096.0 * 3.0
EXP_RANGE = 10.0  # exp(-10) and less is nothing beside exp(0)
WORDS = np.arange(-32768, 32768)


def table_s16(kind: str, source: Tensor, output: Tensor, *, double: bool) -> I16:
    """Return an elementwise activation of all int16 words, from -32768 on.

    Args:
        kind: any but softmax.
        source: what is fed.
        output: what comes out.
        double: the kernel divides the two scales in double precision.
    """
    if kind == "relu":
        factor = quantize_multiplier(scale_quotient(source, output, double=double))
        y = requantize(WORDS - source.zero_point, factor) + output.zero_point
        return saturate(y, output.zero_point, I16_MAX).astype(np.int16)
    if kind == "relu6":
        six = source.zero_point + int(round_half_away(np.float32(6) / np.float32(source.scale)))
        return saturate(WORDS, source.zero_point, min(I16_MAX, six)).astype(np.int16)
    multiplier, shift = table_factor(kind, source.scale)
    argument = shift_right_ties_up(WORDS * multiplier, shift)
    if kind == "tanh":
        return activations.interpolate_tanh(argument).astype(np.int16)
    return activations.interpolate_sigmoid(argument).astype(np.int16)


def scale_quotient(source: Tensor, output: Tensor, *, double: bool) -> float:
    """Return the quotient of two float32 scales, rounded to float32 unless ``double``."""
    if double:
        return source.scale / output.scale
    return float(np.float32(source.scale) / np.float32(output.scale))


def table_factor(kind: str, scale: float) -> tuple[int, int]:
    """Return what brings int16 words to the interpolation table's scale, 1 / (3 * 4096).

    Args:
        kind: sigmoid or tanh.
        scale: of the words.

    Returns:
        A multiplier, and a shift to the right behind it, ties up.

    Mirrors: TanhPrepare, CalculateArithmeticOpDataLogistic (TFLM).
    """
    power = math.log2(np.float32(scale))
    # Left shifts from 2**-12 that the kernels take as they are.
    if power == round(power) and 12 + round(power) in ((0, 1) if kind == "tanh" else (0,)):
        return 3 << (12 + round(power)), 0
    real, shift = float(np.float32(scale)) * TABLE_SCALE, 0
    while real <= 32767.0 / 2.0 and shift <= 30:
        real, shift = 2 * real, shift + 1
    return int(real), shift


def softmax_factor_s16(scale: float, beta: float) -> Factor:
    """Return what brings differences of int16 words to the table of exp."""
    return quantize_multiplier(float(np.float32(scale)) * beta / (EXP_RANGE / 65535.0))


def softmax_s16(rows: Array, scale: float, beta: float) -> I16:
    """Return softmax of int16 rows in units of 2**-15.

    Mirrors: SoftmaxInt16 (TFLite reference_ops).
    """
    exp_table, inverse_table = activations.exp_s16(), activations.one_over_one_plus_s16()
    factor = softmax_factor_s16(scale, beta)
    below = rows.astype(np.int64) - rows.max(axis=1, keepdims=True)
    argument = saturate_s16(requantize(below, factor) + 32767)
    exponentials = activations.interpolate_s16(exp_table, argument)
    out = np.empty(rows.shape, np.int16)
    for row, total in enumerate(exponentials.sum(axis=1).tolist()):
        # The sum is at least exp(0), so it has a leading bit.
        zeros = 32 - int(total).bit_length()
        shifted = int(shift_right_ties_up(np.int64(total << (zeros - 1)), 14))
        word = saturate_s16(np.array(shifted - (1 << 15) - (1 << 16)))
        inverse = activations.interpolate_s16(inverse_table, word)
        y = shift_right_ties_up(exponentials[row] * inverse, 31 - zeros)
        out[row] = saturate(y, 0, I16_MAX)
    return out

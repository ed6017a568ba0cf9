"""The `edge` arithmetic: what its cells share.

Every pre-activation is one sum over the input and the hidden state together, with a scale for
each row, one rounding, and one table for every nonlinearity:

    acc = bias + sum(weight * activation)             int32
    u   = clamp(acc * multiplier >> shift, 0, 2**18 - 1)
    y   = (word[u >> 11] + slope[u >> 11] * (u & 2047)) >> 16

``u`` is the argument of a sigmoid in [-8, 8), in steps of 2**-14 from -8; ``y`` its value in
Q0.15. tanh(z) is 2 * sigmoid(2z) - 1, the factor in the argument folded into the weights.
A multiplier is a small integer, since the row's scale is chosen to make it one.

Rows can be packed in pairs for two products an instruction: a 16-bit word 256 * high + low is
multiplied as it is for the high row, and its low byte for the low row. The high row's weight is
then 256 * high + low, which its quantization takes into account.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from edge_lstm.arrays import F64, I8, I16, I32, I64, Array
from edge_lstm.errors import UnsupportedModel
from edge_lstm.fixed_point import saturate

ARGUMENT_BITS = 18
ARGUMENT_ONE = 2.0**14
"""Steps of ``u`` in 1.0 of a sigmoid's argument."""
ARGUMENT_ZERO = 1 << 17
SEGMENT_BITS = 11
MULTIPLIER_MAX = 32767
ACCUMULATOR_LIMIT = 2.0**31


@cache
def sigmoid_segments() -> tuple[I32, I16]:
    """Return ``word`` int32 and ``slope`` int16 of the table's 128 segments.

    ``word`` is the value at the segment's start times 2**16, plus the slope: that is how C keeps
    both in one word, and the slope is worth less than half a unit there. The knots are moved by
    half of the largest interpolation error of their segments, so that the error has both signs.
    """
    knots = np.linspace(-8.0, 8.0, 129)
    middle = (knots[:-1] + knots[1:]) / 2
    exact = 1 / (1 + np.exp(-knots))
    sag = 1 / (1 + np.exp(-middle)) - (exact[:-1] + exact[1:]) / 2
    lift = np.zeros(129)
    lift[:-1] += sag / 4
    lift[1:] += sag / 4
    values = (exact + lift) * 32768
    slope = np.minimum(np.rint(np.diff(values) * 32), 32767)
    # The final shift floors; the slope in the low half is part of the rounding.
    start = np.clip(np.floor(values[:-1] + 0.5 - slope / 65536), 0, 32767)
    word = start * 65536 + slope
    return word.astype(np.int32), slope.astype(np.int16)


@cache
def sigmoid_table() -> I16:
    """Return ``y`` for every ``u``, int16 [2**18]."""
    word, slope = sigmoid_segments()
    u = np.arange(1 << ARGUMENT_BITS)
    segment, fraction = u >> SEGMENT_BITS, u & ((1 << SEGMENT_BITS) - 1)
    y = (word[segment].astype(np.int64) + slope[segment].astype(np.int64) * fraction) >> 16
    table = saturate(y, 0, 32767).astype(np.int16)
    table.setflags(write=False)
    return table


def sigmoid_of(argument: Array) -> I64:
    """Return sigmoid in Q0.15 of ``u`` before its clamp."""
    index = saturate(argument, 0, (1 << ARGUMENT_BITS) - 1)
    y: I64 = sigmoid_table()[index].astype(np.int64)
    return y


def tanh_of(argument: Array) -> I64:
    """Return tanh in Q0.15 of ``u``, the sigmoid's argument for twice the value."""
    return 2 * sigmoid_of(argument) - 32768


@dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """A matrix of rows with a scale each, as the edge kernels take it.

    Args:
        weights: int8 [rows, columns].
        bias: int32 [rows], in units of the accumulator; holds the offset and the rounding too.
        multipliers: int16 [rows].
        shift: behind the multiplication; 8 more for the high row of a pair.
        paired: rows 0, 2, 4 ... are the high rows of a pair, the ones behind them the low.
    """

    weights: I8
    bias: I32
    multipliers: I16
    shift: int
    paired: bool

    def effective_weights(self) -> I64:
        """Return the integers that multiply the activations, [rows, columns]."""
        weights = self.weights.astype(np.int64)
        if self.paired:
            weights[0::2] = 256 * weights[0::2] + weights[1::2]
        return weights

    def shifts(self) -> I64:
        """Return the shift of each row."""
        shifts = np.full(len(self.bias), self.shift, np.int64)
        if self.paired:
            shifts[0::2] += 8
        return shifts

    def requantize(self, acc: I64) -> I64:
        """Return ``acc * multiplier >> shift``, [batch, rows]."""
        value: I64 = (acc * self.multipliers.astype(np.int64)) >> self.shifts()
        return value


def quantize_rows(
    weights: F64,
    bias: F64,
    units: F64,
    reach: F64,
    gain: F64,
    offset: float,
    where: str,
    *,
    paired: bool,
) -> Rows:
    """Quantize rows so that ``requantize`` gives ``round(real * gain) + offset``.

    Args:
        weights: real, [rows, columns].
        bias: real, [rows].
        units: what one integer of each column's activation is worth, [columns].
        reach: the greatest magnitude of each column's activation, [columns].
        gain: steps of the result in 1.0, [rows].
        offset: added to the result; the rounding's half is added here.
        where: for messages.
        paired: pack the rows in pairs if the sums allow it.

    Raises:
        UnsupportedModel: no shift keeps the sums within 32 bits.
    """
    scaled = weights * units
    magnitude = np.abs(scaled).max(axis=1, initial=0.0)
    # A row of zeros needs some scale; its bias decides nothing finer than one step.
    magnitude = np.maximum(magnitude, np.maximum(np.abs(bias) * 2.0**-20, 2.0**-30))
    if paired:
        packed = _pack(scaled, magnitude, bias, reach, gain, offset, paired=True)
        if packed is not None:
            return packed
    rows = _pack(scaled, magnitude, bias, reach, gain, offset, paired=False)
    if rows is None:
        raise UnsupportedModel(
            f"{where}: {scaled.shape[1]} columns of these weights can leave 32 bits;"
            " split the layer or choose another profile"
        )
    return rows


def _pack(
    scaled: F64,
    magnitude: F64,
    bias: F64,
    reach: F64,
    gain: F64,
    offset: float,
    *,
    paired: bool,
) -> Rows | None:
    """Return the rows with the finest common shift whose sums and products fit, or None."""
    finest = magnitude / 127 * gain
    for shift in range(30, -1, -1):
        exact = finest * 2.0**shift
        multipliers = np.ceil(exact)
        if multipliers.max() > MULTIPLIER_MAX:
            continue
        scales = multipliers / (gain * 2.0**shift)
        grid = scaled / scales[:, None]
        weights = np.clip(np.rint(grid), -127, 127)
        high = np.zeros(len(bias))
        if paired:
            weights[0::2] = np.clip(np.rint(grid[0::2] - weights[1::2] / 256), -127, 127)
            high[0::2] = 8
        bias_acc = np.rint((bias * gain + offset + 0.5) * 2.0 ** (shift + high) / multipliers)
        rows = Rows(
            weights.astype(np.int8),
            np.clip(bias_acc, -(2.0**31), 2.0**31 - 1).astype(np.int32),
            multipliers.astype(np.int16),
            shift,
            paired,
        )
        sums = np.abs(rows.effective_weights()) @ reach + np.abs(bias_acc)
        # The high row's product is taken by a 32 x 16 bit multiplication that drops 16 bits.
        products = sums * multipliers / np.where(high > 0, 65536, 1)
        if sums.max() < ACCUMULATOR_LIMIT and products.max() < ACCUMULATOR_LIMIT:
            return rows
    return None


def accumulate(rows: Rows, activations: Array) -> I64:
    """Return ``bias + weights @ activations``, [batch, rows]; exact, within int32 by the bound."""
    weights = rows.effective_weights().astype(np.float64)
    acc: I64 = (activations.astype(np.float64) @ weights.T).astype(np.int64) + rows.bias
    return acc

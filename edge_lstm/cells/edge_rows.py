"""The `edge` arithmetic: what its cells share.

Every pre-activation is one sum over the input and the hidden state together, with a scale for
each row, one rounding, and one table for every nonlinearity:

    acc = bias + sum(weight * activation)             int32
    u   = clamp(acc * multiplier >> shift, -2**17, 2**17 - 1)
    y   = (word[u >> 11] + slope[u >> 11] * (u & 2047)) >> 16

``u`` is the argument of a sigmoid in [-8, 8), in steps of 2**-14; ``y`` its value in Q0.15.
tanh(z) is 2 * sigmoid(2z) - 1, the factor in the argument folded into the weights. A multiplier
is a small integer, since the row's scale is chosen to make it one.

Rows can be packed in pairs for two products an instruction: a 16-bit word 256 * high + low is
multiplied as it is for the high row, and its low byte for the low row. The high row's weight is
then 256 * high + low, which its quantization takes into account.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from edge_lstm.arrays import F64, I8, I16, I32, I64, Array
from edge_lstm.cells.edge_columns import Columns
from edge_lstm.errors import UnsupportedModel
from edge_lstm.fixed_point import saturate

ARGUMENT_BITS = 18
ARGUMENT_ONE = 2.0**14
"""Steps of ``u`` in 1.0 of a sigmoid's argument."""
ARGUMENT_MIN, ARGUMENT_MAX = -(1 << 17), (1 << 17) - 1
SEGMENT_BITS = 11
SEGMENTS = 1 << (ARGUMENT_BITS - SEGMENT_BITS)
MULTIPLIER_MAX = 32767
ACCUMULATOR_LIMIT = 2.0**31


@cache
def sigmoid_segments() -> tuple[I32, I16]:
    """Return ``word`` int32 and ``slope`` int16 of the table's 128 segments, from u = -2**17 on.

    ``word`` is the value at the segment's start times 2**16, plus the slope: that is how C keeps
    both in one word, and the slope is worth less than half a unit there. The knots are moved by
    half of the largest interpolation error of their segments, so that the error has both signs.
    They are whole numbers, so that a slope is a multiple of 32: then ``slope`` times a multiple
    of 2**11 leaves the low half of ``word`` alone, and C may count ``u`` from anywhere.
    """
    knots = np.linspace(-8.0, 8.0, SEGMENTS + 1)
    middle = (knots[:-1] + knots[1:]) / 2
    exact = 1 / (1 + np.exp(-knots))
    sag = 1 / (1 + np.exp(-middle)) - (exact[:-1] + exact[1:]) / 2
    lift = np.zeros(SEGMENTS + 1)
    lift[:-1] += sag / 4
    lift[1:] += sag / 4
    values = np.rint((exact + lift) * 32768)
    slope = np.diff(values) * 32
    word = values[:-1] * 65536 + slope
    return word.astype(np.int32), slope.astype(np.int16)


@cache
def sigmoid_table() -> I16:
    """Return ``y`` for every ``u`` from -2**17 on, int16 [2**18]."""
    word, slope = sigmoid_segments()
    index = np.arange(1 << ARGUMENT_BITS)
    segment, fraction = index >> SEGMENT_BITS, index & ((1 << SEGMENT_BITS) - 1)
    y = (word[segment].astype(np.int64) + slope[segment].astype(np.int64) * fraction) >> 16
    table: I16 = y.astype(np.int16)
    table.setflags(write=False)
    return table


def sigmoid_of(argument: Array) -> I64:
    """Return sigmoid in Q0.15 of ``u`` before its clamp."""
    index = saturate(argument, ARGUMENT_MIN, ARGUMENT_MAX) - ARGUMENT_MIN
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
        shift: behind the multiplication.
        high_shift: where rows are packed in pairs, that of rows 0, 2, 4 ..., the high ones; the
            rows behind them are the low ones. At least 16, so that C may take the upper 32 of the
            product's 48 bits. 0: the rows are not packed.
    """

    weights: I8
    bias: I32
    multipliers: I16
    shift: int
    high_shift: int = 0

    @property
    def paired(self) -> bool:
        """Whether the rows are packed in pairs."""
        return self.high_shift > 0

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
            shifts[0::2] = self.high_shift
        return shifts

    def error(self, weights: F64, columns: Columns, gain: F64) -> float:
        """Return the mean square, over all rows, of what the weights' rounding adds, in steps."""
        steps = self.effective_weights() * (self.multipliers / 2.0 ** self.shifts())[:, None]
        off = steps - weights * columns.units * gain[:, None]
        return float(np.mean(np.square(off) @ np.diag(columns.covariance)))

    def requantize(self, acc: I64) -> I64:
        """Return ``acc * multiplier >> shift``, [batch, rows]."""
        value: I64 = (acc * self.multipliers.astype(np.int64)) >> self.shifts()
        return value


@dataclass(frozen=True, eq=False, repr=False)
class RealRows:
    """Rows before they are quantized; ``requantize`` shall give ``round(real * gain) + offset``.

    Args:
        weights: [rows, columns], times what one integer of each column's activation is worth.
        bias: [rows].
        columns: the activations.
        gain: steps of the result in 1.0, [rows].
        offset: added to the result; the rounding's half is added here.
    """

    weights: F64
    bias: F64
    columns: Columns
    gain: F64
    offset: float

    def part(self, rows: slice) -> RealRows:
        """Return some of the rows."""
        return RealRows(
            self.weights[rows], self.bias[rows], self.columns, self.gain[rows], self.offset
        )

    def quantized(self, noise: Array | None = None, greatest: int = 127) -> Rows | None:
        """Return the rows at the finest common shift whose sums and products fit, or None.

        Args:
            noise: int8 [rows, columns], for the high rows of pairs: the low ones, which come
                along in what multiplies the activations.
            greatest: what a row's largest weight becomes.
        """
        high = 0 if noise is None else 8
        magnitude = np.abs(self.weights).max(axis=1, initial=0.0)
        # A row of zeros needs some scale; its bias decides nothing finer than one step.
        magnitude = np.maximum(magnitude, np.maximum(np.abs(self.bias) * 2.0**-20, 2.0**-30))
        finest = magnitude / greatest * self.gain
        for shift in range(30 - high, 7 if high else -1, -1):
            multipliers = np.ceil(finest * 2.0**shift)
            if multipliers.max() > MULTIPLIER_MAX:
                continue
            grid = self.weights * (self.gain * 2.0**shift / multipliers)[:, None]
            if noise is not None:
                grid -= noise / 256
            weights = self.columns.rounded(grid)
            total = (self.bias * self.gain + self.offset + 0.5) * 2.0 ** (shift + high)
            made_up = (grid - weights) @ self.columns.mean * 2.0**high
            bias = np.rint(total / multipliers + made_up)
            effective = weights if noise is None else 256 * weights + noise
            sums = np.abs(effective) @ self.columns.reach + np.abs(bias)
            products = sums * multipliers / (65536 if high else 1)
            if max(sums.max(), products.max()) < ACCUMULATOR_LIMIT:
                return Rows(
                    weights.astype(np.int8),
                    bias.astype(np.int32),
                    multipliers.astype(np.int16),
                    shift + high,
                )
        return None

    def paired(self) -> Rows | None:
        """Return the rows packed in pairs, or None where a sum of them can leave 32 bits."""
        low = self.part(slice(1, None, 2)).quantized()
        high = None if low is None else self.part(slice(0, None, 2)).quantized(low.weights)
        if low is None or high is None:
            return None

        def zipped(high: Array, low: Array) -> Array:
            return np.stack([high, low], axis=1).reshape(-1, *high.shape[1:])

        return Rows(
            zipped(high.weights, low.weights),
            zipped(high.bias, low.bias),
            zipped(high.multipliers, low.multipliers),
            low.shift,
            high.shift,
        )


def quantize_rows(
    weights: Array,
    bias: Array,
    columns: Columns,
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
        columns: the activations.
        gain: steps of the result in 1.0, [rows].
        offset: added to the result; the rounding's half is added here.
        where: for messages.
        paired: pack the rows in pairs if the sums allow it.

    Raises:
        UnsupportedModel: no scale keeps the sums within 32 bits.
    """
    scaled = weights * columns.units
    # What stands for 0 is a constant part of every sum.
    real = RealRows(scaled, bias - scaled @ columns.zero, columns, gain, offset)
    rows = real.paired() if paired else None
    # Over very many columns sums keep to 32 bits with smaller integers for the weights.
    for greatest in (127, 63, 31, 15, 7):
        if rows is None:
            rows = real.quantized(greatest=greatest)
    if rows is None:
        peak = float((np.abs(real.weights) @ columns.reach + np.abs(bias)).max())
        raise UnsupportedModel(
            f"{where}: a sum of {weights.shape[1]} columns can reach {peak:.3g}, which has no form"
            " of 32 bits; scale the weights down or choose another profile"
        )
    return rows


def accumulate(rows: Rows, activations: Array) -> I64:
    """Return ``bias + weights @ activations``, [batch, rows]; exact, within int32 by the bound."""
    weights = rows.effective_weights().astype(np.float64)
    acc: I64 = (activations.astype(np.float64) @ weights.T).astype(np.int64) + rows.bias
    return acc

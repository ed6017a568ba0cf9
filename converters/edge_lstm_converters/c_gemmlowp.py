"""TFLite's sigmoid and tanh as a table for C: lines, and what is above them.

All of them are ``R(t) = 1 / (1 + exp(-t))`` in Q1.14, for ``t`` in units of 2**-12, as gemmlowp's
16-bit arithmetic makes it: with a roughness of a few units that a line cannot have.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from edge_lstm.activations import gemmlowp_sigmoid, gemmlowp_tanh
from edge_lstm.arrays import I64
from edge_lstm_converters.c_parts import array

TABLE = "table of el_gemmlowp_s16.h"
SEGMENT = 256
END = 148 * SEGMENT
"""Where R is 1, and stays so."""
LINE_BITS = 15
"""Of the fraction of a line."""
GREATEST_REST = 15


def reciprocals() -> I64:
    """Return R for t from 0 to ``END``, which is not reached by the sigmoid of an int16."""
    sigmoid, tanh = gemmlowp_sigmoid().astype(np.int64), gemmlowp_tanh(3).astype(np.int64)
    found = np.empty(END, np.int64)
    found[: 2**15] = sigmoid[: 2**15] // 2
    # tanh(x) = 4 * R(2x) - 2, saturated; of the odd t between, only 8 is ever asked for.
    behind = np.arange(2**15, END)
    found[behind] = 2**13 + (tanh[behind // 2] + 3) // 4
    assert (32767 - sigmoid[2**15]) // 2 == found[2**15]
    return found


def lines(values: I64) -> tuple[I64, I64]:
    """Return a word for each segment, and what is left: ``values - (word + slope * t >> 15)``.

    The slope is the lower half of the word; it is of no weight in the upper one.
    """
    words, rests = [], []
    for start in range(0, len(values), SEGMENT):
        t = np.arange(start, start + SEGMENT)
        here = values[t]
        middle = int(np.polyfit(t, here, 1)[0] * 2**LINE_BITS)
        fits = [_line(t, here, min(max(middle + d, 0), 2**15 - 1)) for d in range(-64, 65, 8)]
        word, rest = min(fits, key=lambda fit: int(fit[1].max()))
        words.append(word)
        rests.append(rest)
    return np.array(words), np.concatenate(rests)


def _line(t: I64, values: I64, slope: int) -> tuple[int, I64]:
    """Return the highest line of a slope that is under the values, and their distances."""
    rising = slope * t + slope
    base = int((((values + 1) << LINE_BITS) - 1 - rising).min()) >> 16
    return (base << 16) + slope, values - (((base << 16) + rising) >> LINE_BITS)


@cache
def gemmlowp_table() -> str:
    """Return the definitions that ``el_gemmlowp_s16.h`` looks R up in."""
    words, rests = lines(reciprocals())
    assert min(words.min(), rests.min()) >= 0
    assert rests.max() <= GREATEST_REST
    pairs = rests[0::2] + 16 * rests[1::2]
    return f"""\
/* 1 / (1 + exp(-t)) of TFLite, for t in units of 2^-12: lines, and what is above them in four bits
 * each. 19 kB, for a gate in a fifth of the time; built for size, there is none of it. */
#if !defined(__OPTIMIZE_SIZE__)
#define EL_GEMMLOWP_TABLE
{array("uint32_t", "el_reciprocal_lines", words)}
{array("uint8_t", "el_reciprocal_rests", pairs)}\
#endif
"""

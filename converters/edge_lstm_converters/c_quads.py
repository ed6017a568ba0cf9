"""Rows of int8 weights as ``el_quad_rows`` reads them: four at a time, two in a word."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_lstm.arrays import I8, I64, Array
from edge_lstm_converters.c_parts import array

LIMIT = 2**31


def reach(weights: Array, low: int, high: int) -> int:
    """Return the greatest magnitude that a row's sum has at any of its columns.

    Args:
        weights: [..., columns].
        low: the least value that is multiplied.
        high: the greatest.
    """
    sums = np.abs(weights.astype(np.int64)).sum(axis=-1)
    return int(sums.max(initial=0)) * max(abs(low), abs(high))


@dataclass(frozen=True, eq=False)
class Quads:
    """Rows, four by four.

    Args:
        weights: [quads, 4, columns].
    """

    weights: I8

    @cached_property
    def words(self) -> I64:
        """Row 0 above row 1, and row 2 above row 3, [quads, 2, columns]."""
        wide = self.weights.astype(np.int64)
        words: I64 = 256 * wide[:, 0::2] + wide[:, 1::2]
        return words

    @property
    def columns(self) -> int:
        """Columns of the words; an even number."""
        count = int(self.weights.shape[2])
        return count + count % 2

    def fit(self, low: int, high: int) -> bool:
        """Whether the words fit 16 bits and no sum over values in [low, high] leaves 32."""
        if self.words.min() < -32768 or self.words.max() > 32767:
            return False
        upper = 256 * self.weights[:, 0::2].astype(np.int64)
        return max(reach(self.words, low, high), reach(upper, low, high)) < LIMIT

    def array(self, name: str) -> str:
        """Return the definition of the words; they are read as words of 32 bits."""
        count = len(self.words)
        even = np.zeros((count, 2, self.columns), np.int16)
        even[..., : self.words.shape[2]] = self.words
        # Two columns of the first pair, then two of the second.
        order = even.reshape(count, 2, -1, 2).swapaxes(1, 2)
        return array("EL_ALIGNED int16_t", name, order)

    def sums(self, name: str, number: str, values: str, target: str) -> str:
        """Return the call that sets ``target`` to the sums of quad ``number``.

        Those of rows 0 and 2 are still hidden in them: see ``row``.
        """
        return (
            f"el_quad_rows({name} + {number} * 2 * {self.columns}, {values}, {self.columns},"
            f" {target});"
        )


def row(target: str, number: int, places: int = 0) -> str:
    """Return the expression for one of the four rows' sums, shifted to the left by ``places``."""
    if number % 2:
        return f"{target}[{number}] * {1 << places}" if places else f"{target}[{number}]"
    # The sum of the words less that of the low rows is 256 times that of the high.
    return f"(({target}[{number}] - {target}[{number + 1}]) >> {8 - places})"

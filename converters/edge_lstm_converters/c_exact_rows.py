"""Matrices of the interchange profiles in C: their layout, their sums and what brings them down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import I8, I16, I64, Array
from edge_lstm.fixed_point import Factor, wrap32
from edge_lstm_converters.c_parts import ACTIVATION, Place, array

LIMIT = 2**31


def requantized(value: str, factor: Factor) -> str:
    """Return the expression for ``value * factor``, rounded twice."""
    return f"el_requantize({value}, {factor.multiplier}, {factor.shift})"


def loop(variable: str, count: int | str, lines: str) -> str:
    """Return a loop over ``lines``."""
    inner = "\n".join(f"    {line}" if line else "" for line in lines.splitlines())
    return f"for (int32_t {variable} = 0; {variable} < {count}; {variable}++) {{\n{inner}\n}}"


def reach(weights: Array, least: int, greatest: int) -> int:
    """Return the greatest magnitude of a row's sum at any of its columns, in any order."""
    largest = max(abs(least), abs(greatest))
    return int(np.abs(weights.astype(np.int64)).sum(axis=-1).max(initial=0)) * largest


def check_sums(weights: Array, dtype: str, place: Place) -> None:
    """Raise UnsupportedModel where a sum of int8 products may leave 32 bits."""
    info = np.iinfo(dtype)
    if reach(weights, int(info.min), int(info.max)) >= LIMIT:
        found = f"a sum of {weights.shape[-1]} products may leave 32 bits"
        raise place.refuse(found, "C holds no such model; run it with the NumPy runtime")


def bias_array(name: str, bias: I64, *, wide: bool) -> str:
    """Return the definition of effective biases; those beside int8 values wrap at 32 bits."""
    if wide and np.abs(bias).max(initial=0) >= LIMIT:
        return array("int64_t", name, bias)
    return array("int32_t", name, wrap32(bias))


def _pairs(high: I8, low: I8) -> I64:
    """Return ``256 * high + low``."""
    words: I64 = 256 * high.astype(np.int64) + low
    return words


@dataclass(frozen=True, eq=False)
class GateRows:
    """The input or the recurrent half of an LSTM's gates in C.

    Args:
        name: begins the names of its constants.
            weights: [4, cells, columns].
        bias: effective, [4, cells].
        factors: to the pre-activations.
        dtype: of the values in the Program.
    """

    name: str
    weights: I8
    bias: I64
    factors: Sequence[Factor]
    dtype: str

    @property
    def wide(self) -> bool:
        """Whether the accumulator has 64 bits."""
        return self.dtype == "int16"

    @property
    def paired(self) -> bool:
        """Whether two rows share a word: where every word and every sum of words fits."""
        if self.wide:
            return False
        words = self._words()
        fits = words.min() >= -32768 and words.max() <= 32767
        return bool(fits) and reach(words, -128, 127) < LIMIT

    @property
    def columns(self) -> int:
        """Columns of the matrix; of a paired one even."""
        count = int(self.weights.shape[2])
        return count + count % 2 if self.paired else count

    @property
    def value_type(self) -> str:
        """The C type of what is multiplied."""
        if self.paired:
            return ACTIVATION
        return "int16_t" if self.wide else "int8_t"

    @property
    def kernels(self) -> tuple[str, ...]:
        """The kernels that make the sums."""
        return ("el_activation.h", "el_quad_rows.h") if self.paired else ("el_rows.h",)

    def _words(self) -> I64:
        """Return the words of two rows, [cells, 2, columns]."""
        input_, forget, cell, output = self.weights
        return np.stack([_pairs(input_, forget), _pairs(cell, output)], axis=1)

    def constants(self) -> str:
        """Return the definitions of weights and biases, unit by unit."""
        if self.paired:
            words = self._words()
            even = np.zeros((*words.shape[:2], self.columns), np.int16)
            even[..., : words.shape[2]] = words
            # Two columns of the first word, then two of the second.
            order: I16 = even.reshape(*words.shape[:2], -1, 2).swapaxes(1, 2)
            # Read in words of 32 bits.
            weights = array("EL_ALIGNED int16_t", f"{self.name}_weights", order)
        else:
            weights = array("int8_t", f"{self.name}_weights", self.weights.swapaxes(0, 1))
        bias = bias_array(f"{self.name}_bias", self.bias.T, wide=self.wide)
        return weights + (bias if self.bias.any() else "")

    def sums(self, values: str) -> str:
        """Return the statements that give the four sums of unit ``u``, without their biases."""
        stride = f"{self.name}_weights + u * {2 if self.paired else 4} * {self.columns}"
        if self.paired:
            return (
                f"int32_t {self.name}[4];\n"
                f"el_quad_rows({stride}, {values}, {self.columns}, {self.name});\n"
                f"{self.name}[0] = ({self.name}[0] - {self.name}[1]) >> 8;\n"
                f"{self.name}[2] = ({self.name}[2] - {self.name}[3]) >> 8;"
            )
        ctype = "int64_t" if self.wide else "int32_t"
        dot = f"el_{'wide_' if self.wide else ''}row({stride} + k * {self.columns}, {values}, "
        return f"{ctype} {self.name}[4];\n" + loop(
            "k", 4, f"{self.name}[k] = {dot}{self.columns});"
        )

    def term(self, gate: int) -> str:
        """Return the expression for a gate's sum of unit ``u`` in the pre-activation's scale."""
        acc = f"{self.name}[{gate}]"
        bias = f"{self.name}_bias[4 * u + {gate}]"
        factor = self.factors[gate]
        if self.wide:
            total = f"{acc} + {bias}" if self.bias.any() else acc
            multiplier, right = wide_factor(factor)
            return f"el_requantize_s64({total}, {multiplier}, {right})"
        return requantized(f"el_wrap_add({acc}, {bias})" if self.bias.any() else acc, factor)

    def term_is_small(self, gate: int) -> bool:
        """Whether a gate's term stays below 2**30, so that more can be added."""
        low, high = (-32768, 32767) if self.wide else (-128, 127)
        bound = reach(self.weights[gate], low, high) + int(np.abs(self.bias[gate]).max())
        multiplier, shift = self.factors[gate]
        if self.wide:
            return bound * multiplier < 1 << (61 - shift)
        return bound << max(shift, 0) < 2**30


def wide_factor(factor: Factor) -> tuple[int, int]:
    """Return a factor of a 64-bit accumulator: the multiplier cut to 15 bits, and the shift."""
    multiplier, shift = factor
    reduced = 0x7FFF if multiplier >= 0x7FFF0000 else (multiplier + (1 << 15)) >> 16
    return reduced, 15 - shift

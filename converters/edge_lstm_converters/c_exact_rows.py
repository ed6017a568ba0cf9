"""Matrices of the interchange profiles in C: their layout, their sums and what brings them down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_lstm.arrays import I8, I64, Array
from edge_lstm.fixed_point import Factor, wrap32
from edge_lstm_converters.c_parts import ACTIVATION, Place, array
from edge_lstm_converters.c_quads import LIMIT, Quads, reach, row


def requantized(value: str, factor: Factor, bound: int = LIMIT) -> str:
    """Return the expression for ``value * factor``, rounded twice.

    Args:
        value: an int32 expression.
        factor: what it is multiplied by.
        bound: its greatest magnitude; twice that fits int32 in the common case, which is faster.
    """
    multiplier, shift = factor
    if multiplier == 2**30 and bound <= 2**30 and -29 <= shift < 0:
        return f"el_requantize_half({value}, {-shift})"
    if bound << max(shift, 0) < 2**30 and shift >= -30:
        doubled = f"({value}) * {2 << max(shift, 0)}"
        return f"el_requantize_doubled({doubled}, {multiplier}, {max(-shift, 0)})"
    return f"el_requantize({value}, {multiplier}, {shift})"


def loop(variable: str, count: int | str, lines: str, start: int = 0) -> str:
    """Return a loop over ``lines``."""
    inner = "\n".join(f"    {line}" if line else "" for line in lines.splitlines())
    head = f"for (int32_t {variable} = {start}; {variable} < {count}; {variable}++)"
    return f"{head} {{\n{inner}\n}}"


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


@dataclass(frozen=True, eq=False)
class GateRows:
    """The input or the recurrent half of an LSTM's gates in C.

    Args:
        name: begins the names of its constants.
        weights: [4, cells, columns].
        effective_bias: [4, cells].
        factors: to the pre-activations.
        dtype: of the values in the Program.
        zero_point: of the values, where they can be kept without it.
    """

    name: str
    weights: I8
    effective_bias: I64
    factors: Sequence[Factor]
    dtype: str
    zero_point: int = 0

    @property
    def wide(self) -> bool:
        """Whether the accumulator has 64 bits."""
        return self.dtype == "int16"

    @cached_property
    def quads(self) -> Quads:
        """The four gates of each unit."""
        return Quads(self.weights.swapaxes(0, 1))

    @cached_property
    def paired(self) -> bool:
        """Whether two rows share a word."""
        return not self.wide and self.quads.fit(-128, 127)

    @cached_property
    def offset(self) -> int:
        """What is taken from the values before they are multiplied, and so is in no bias."""
        low, high = -128 - self.zero_point, 127 - self.zero_point
        return self.zero_point if self.paired and self.quads.fit(low, high) else 0

    @cached_property
    def bias(self) -> I64:
        """Biases of the sums, [4, cells]."""
        bias: I64 = self.effective_bias + self.offset * self.weights.astype(np.int64).sum(axis=2)
        return bias

    @property
    def columns(self) -> int:
        """Columns of the matrix; of a paired one even."""
        return self.quads.columns if self.paired else int(self.weights.shape[2])

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

    def constants(self) -> str:
        """Return the definitions of weights and biases, unit by unit."""
        name = f"{self.name}_weights"
        if self.paired:
            weights = self.quads.array(name)
        else:
            weights = array("int8_t", name, self.weights.swapaxes(0, 1))
        if not self.bias.any():
            return weights
        scaled = self.bias << np.array([self._places(gate) for gate in range(4)])[:, None]
        return weights + bias_array(f"{self.name}_bias", scaled.T, wide=self.wide)

    def sums(self, values: str) -> str:
        """Return the statements that give the four sums of unit ``u``, without their biases."""
        name = f"{self.name}_weights"
        if self.paired:
            call = self.quads.sums(name, "u", values, self.name)
            return f"int32_t {self.name}[4];\n{call}"
        ctype, dot = ("int64_t", "el_wide_row") if self.wide else ("int32_t", "el_row")
        weights = f"{name} + (4 * u + k) * {self.columns}"
        call = f"{self.name}[k] = {dot}({weights}, {values}, {self.columns});"
        return f"{ctype} {self.name}[4];\n" + loop("k", 4, call)

    def term(self, gate: int) -> str:
        """Return the expression for a gate's sum of unit ``u`` in the pre-activation's scale."""
        factor, bias = self.factors[gate], f"{self.name}_bias[4 * u + {gate}]"
        places, biased = self._places(gate), bool(self.bias.any())
        acc = self._sum(gate, places)
        if self.wide:
            multiplier, right = wide_factor(factor)
            total = f"{acc} + {bias}" if biased else acc
            return f"el_requantize_s64({total}, {multiplier}, {right})"
        if places:
            total = f"{acc} + {bias}" if biased else acc
            right = max(-factor.shift, 0)
            return f"el_requantize_doubled({total}, {factor.multiplier}, {right})"
        return requantized(f"el_wrap_add({acc}, {bias})" if biased else acc, factor)

    def term_is_small(self, gate: int) -> bool:
        """Whether a gate's term stays below 2**30, so that more can be added."""
        multiplier, shift = self.factors[gate]
        if self.wide:
            return self._bound(gate) * multiplier < 1 << (61 - shift)
        return self._bound(gate) << max(shift, 0) < 2**30

    def _bound(self, gate: int) -> int:
        """Return the greatest magnitude of a gate's accumulator."""
        low, high = (-32768, 32767) if self.wide else (-128 - self.offset, 127 - self.offset)
        return reach(self.weights[gate], low, high) + int(np.abs(self.bias[gate]).max())

    def _places(self, gate: int) -> int:
        """Return how far a gate's accumulator is shifted to the left, doubled, where it fits."""
        shift = self.factors[gate].shift
        fits = self.term_is_small(gate) and -30 <= shift <= 6
        return max(shift, 0) + 1 if fits and not self.wide else 0

    def _sum(self, gate: int, places: int) -> str:
        """Return the expression for a gate's sum, shifted to the left."""
        if self.paired:
            return row(self.name, gate, places)
        return f"{self.name}[{gate}] * {1 << places}" if places else f"{self.name}[{gate}]"


def wide_factor(factor: Factor) -> tuple[int, int]:
    """Return a factor of a 64-bit accumulator: the multiplier cut to 15 bits, and the shift."""
    multiplier, shift = factor
    reduced = 0x7FFF if multiplier >= 0x7FFF0000 else (multiplier + (1 << 15)) >> 16
    return reduced, 15 - shift

"""The fixed-point primitives against their definitions in exact rational numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import assume, example, given
from hypothesis import strategies as st

from edge_lstm import fixed_point
from edge_lstm.fixed_point import Factor

i32s = st.integers(-(2**31), 2**31 - 1)
multipliers = st.integers(2**30, 2**31 - 1)
shifts = st.integers(-31, 7)


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def half_away(value: Fraction) -> int:
    return half_up(value) if value >= 0 else -half_up(-value)


def wrapped(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


@given(real=st.floats(1e-9, 1e4))
@example(real=1 - 2**-53)  # rounds up to 2**31, which must become 2**30 and one more shift
@example(real=2.0**-32)
@example(real=0.5)
def test_quantize_multiplier_is_the_nearest_factor(real: float) -> None:
    multiplier, shift = fixed_point.quantize_multiplier(real)
    if multiplier == 0:
        assert real < 2.0**-32
        return
    assert 2**30 <= multiplier < 2**31
    exact = Fraction(real) * 2 ** (31 - shift) if shift <= 31 else Fraction(real)
    assert abs(exact - multiplier) <= Fraction(1, 2)


def test_quantize_multiplier_of_zero_is_zero() -> None:
    assert fixed_point.quantize_multiplier(0.0) == Factor(0, 0)


@given(acc=i32s, multiplier=multipliers, shift=shifts)
@example(acc=-3, multiplier=2**30, shift=-1)  # a tie below zero
@example(acc=3, multiplier=2**30, shift=-1)
@example(acc=2**31 - 1, multiplier=2**31 - 1, shift=3)  # wraps as C's shift does
def test_requantize_rounds_twice_up_then_away_from_zero(
    acc: int, multiplier: int, shift: int
) -> None:
    shifted = wrapped(acc << max(shift, 0))
    high = half_up(Fraction(shifted * multiplier, 2**31))
    want = half_away(Fraction(high, 2 ** max(-shift, 0)))
    got = fixed_point.requantize(np.array([acc]), Factor(multiplier, shift))
    assert got.tolist() == [want]


@given(acc=i32s, multiplier=multipliers, shift=shifts)
@example(acc=-3, multiplier=2**30, shift=-1)
def test_requantize_ties_up_rounds_twice_up(acc: int, multiplier: int, shift: int) -> None:
    shifted = wrapped(acc << max(shift, 0))
    high = half_up(Fraction(shifted * multiplier, 2**31))
    want = half_up(Fraction(high, 2 ** max(-shift, 0)))
    got = fixed_point.requantize_ties_up(np.array([acc]), Factor(multiplier, shift))
    assert got.tolist() == [want]


@given(acc=st.integers(-(2**40), 2**40), multiplier=multipliers, shift=st.integers(-31, 0))
@example(acc=1, multiplier=0x7FFF0000, shift=0)
def test_requantize_s64_cuts_the_multiplier_to_16_bits(
    acc: int, multiplier: int, shift: int
) -> None:
    reduced = 0x7FFF if multiplier >= 0x7FFF0000 else half_up(Fraction(multiplier, 2**16))
    want = wrapped(half_up(Fraction(acc * reduced, 2 ** (15 - shift))))
    got = fixed_point.requantize_s64(np.array([acc]), Factor(multiplier, shift))
    assert got.tolist() == [want]


@given(value=i32s, exponent=st.integers(0, 31))
@example(value=-1, exponent=1)
@example(value=1, exponent=1)
def test_rounding_divide_by_pot_ties_away_from_zero(value: int, exponent: int) -> None:
    want = half_away(Fraction(value, 2**exponent))
    assert int(fixed_point.rounding_divide_by_pot(np.array(value), exponent)) == want


@given(value=st.floats(-1e6, 1e6, width=32))
@example(value=0.49999997)  # floor(x + 0.5) would give 1
@example(value=-2.5)
@example(value=2.5)
def test_round_half_away_equals_its_definition(value: float) -> None:
    got = fixed_point.round_half_away(np.array(value, np.float32))
    assert int(got) == half_away(Fraction(float(np.float32(value))))


@given(left=st.integers(-32768, 32767), right=st.integers(-32768, 32767))
@example(left=-32768, right=-32768)
def test_high_mul_s16_saturates(left: int, right: int) -> None:
    want = min(32767, half_up(Fraction(left * right, 2**15)))
    got = fixed_point.saturating_rounding_doubling_high_mul_s16(np.array(left), right)
    assert int(got) == want


@given(value=st.integers(-(2**40), 2**40))
def test_wraps_equal_c_casts(value: int) -> None:
    assume(abs(value) < 2**39)
    array = np.array([value], np.int64)
    assert fixed_point.wrap32(array).tolist() == array.astype(np.int32).tolist()
    assert fixed_point.wrap16(array).tolist() == array.astype(np.int16).tolist()

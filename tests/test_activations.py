"""The activation tables: known points, error bounds, and how far the two families differ."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm import activations
from edge_lstm.arrays import F64, I16

X = np.where(np.arange(65536) < 32768, np.arange(65536), np.arange(65536) - 65536)


def sigmoid(x: F64) -> F64:
    return 1 / (1 + np.exp(-x))


def worst(table: I16, exact: F64) -> float:
    return float(np.abs(table - 32768 * exact).max())


# The bounds are those measured on the real functions (TFLite 2.15, TFLM 2026-10).
def test_gemmlowp_sigmoid_is_within_6_4_units() -> None:
    assert 6 < worst(activations.gemmlowp_sigmoid(), sigmoid(X / 4096)) < 6.5


def test_interpolated_sigmoid_is_within_one_unit() -> None:
    assert worst(activations.interpolated_sigmoid(), sigmoid(X / 4096)) < 1.05


@pytest.mark.parametrize("bits", range(7))
def test_gemmlowp_tanh_is_within_12_units(bits: int) -> None:
    assert 11 < worst(activations.gemmlowp_tanh(bits), np.tanh(X / 2.0 ** (15 - bits))) < 12.1


@pytest.mark.parametrize("shift", range(-3, 4))
def test_interpolated_tanh_is_within_1_5_units_or_2_5_below_shift_0(shift: int) -> None:
    """A negative shift rounds the argument first."""
    error = worst(activations.interpolated_tanh(shift), np.tanh(X / 2.0 ** (12 - shift)))
    assert error < (1.5 if shift >= 0 else 2.5)


def test_the_two_families_differ_where_the_interpreters_do() -> None:
    """Counted on the kernels of TFLite 2.15 and TFLM; a swapped table gives 0."""
    sigmoids = activations.gemmlowp_sigmoid() != activations.interpolated_sigmoid()
    tanhs = activations.gemmlowp_tanh(3) != activations.interpolated_tanh(0)
    assert (int(sigmoids.sum()), int(tanhs.sum())) == (56761, 41116)


def test_tables_are_odd_or_complementary() -> None:
    """tanh(-x) = -tanh(x) in gemmlowp; sigmoid(-x) = 32767 - sigmoid(x)."""
    tanh, sig = activations.gemmlowp_tanh(3), activations.gemmlowp_sigmoid()
    positive = np.arange(1, 32768)
    assert (tanh[65536 - positive] == -tanh[positive]).all()
    assert (sig[65536 - positive] == 32767 - sig[positive].astype(int)).all()


def test_tables_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        activations.gemmlowp_sigmoid()[0] = 1


def test_logistic_s32_is_close_to_the_float_function() -> None:
    x = np.linspace(-15, 15, 4001)
    got = activations.logistic_s32(np.round(x * 2**27).astype(np.int64), 4) / 2.0**31
    # The polynomial of degree 4 for exp in [-1/4, 0) is off by 1e-7 of its value.
    assert np.abs(got - sigmoid(x)).max() < 1e-7


def test_tanh_s32_is_close_to_the_float_function() -> None:
    x = np.linspace(-15, 15, 4001)
    got = activations.tanh_s32(np.round(x * 2**27).astype(np.int64), 4) / 2.0**31
    # 2 sigmoid(2x) - 1: twice the error above.
    assert np.abs(got - np.tanh(x)).max() < 2e-7

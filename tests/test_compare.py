"""assert_same tells the first difference, how many there are, and how far they go."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm.compare import assert_same, difference
from edge_lstm.errors import MismatchError

WANT = np.arange(12, dtype=np.int8).reshape(3, 4)


def test_equal_arrays_have_no_difference() -> None:
    assert difference(WANT.copy(), WANT) is None
    assert_same(WANT.copy(), WANT, "same")


def test_the_first_difference_is_told_with_count_and_distance() -> None:
    got = WANT.copy()
    got[1, 2] = -100
    got[2, 3] += 1
    with pytest.raises(MismatchError) as refusal:
        assert_same(got, WANT, "layer 0, step 7, forget gate")
    assert str(refusal.value) == (
        "layer 0, step 7, forget gate: 2 of 12 values differ, by at most 106;"
        " first at [1, 2]: got -100, want 6"
    )


def test_int8_differences_do_not_overflow() -> None:
    found = difference(np.array([127], np.int8), np.array([-128], np.int8))
    assert found is not None
    assert found.largest == 255


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(MismatchError, match=r"shape \[3, 4\]; want \[4, 3\]"):
        assert_same(WANT, WANT.T, "x")

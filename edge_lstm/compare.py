"""Comparing integers: how many differ, by how much, and which is the first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.errors import MismatchError


@dataclass(frozen=True)
class Difference:
    """How two arrays of integers differ.

    Args:
        count: values that differ.
        size: values compared.
        largest: the greatest absolute difference.
        first: the first differing index, in the arrays' order of axes.
        got: the value there.
        want: the value that should be there.
    """

    count: int
    size: int
    largest: int
    first: tuple[int, ...]
    got: int
    want: int

    def __str__(self) -> str:
        return (
            f"{self.count} of {self.size} values differ, by at most {self.largest};"
            f" first at {list(self.first)}: got {self.got}, want {self.want}"
        )


def difference(got: Array, want: Array) -> Difference | None:
    """Return how two integer arrays of one shape differ, or None where they are equal.

    Raises:
        MismatchError: their shapes differ.
    """
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        raise MismatchError(f"shape {list(got.shape)}; want {list(want.shape)}")
    differs = got != want
    if not differs.any():
        return None
    index = np.unravel_index(int(np.argmax(differs)), got.shape)
    first = tuple(int(k) for k in index)
    far = np.abs(got.astype(np.int64) - want.astype(np.int64)).max()
    return Difference(
        int(differs.sum()), got.size, int(far), first, int(got[first]), int(want[first])
    )


def assert_same(got: Array, want: Array, where: str) -> None:
    """Raise MismatchError, with the first difference, unless two integer arrays are equal."""
    found = difference(got, want)
    if found is not None:
        raise MismatchError(f"{where}: {found}")

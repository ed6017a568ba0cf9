"""The columns of `edge` rows: what their activations are worth, and how they move.

What calibration saw of the activations decides two things that cost nothing when the model runs:
by how much one block of them is shifted, so that two blocks of weights share their rows' scales;
and how the weights are rounded, so that their errors make up for each other in the sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from edge_lstm.arrays import F64
from edge_lstm.program import ProgramBuilder, Tensor
from edge_lstm.spec import Signal

HIDDEN_SCALE = 2.0**-7
DAMPING = 0.01
"""Share of a variance that is added to it, as usual where errors are fed back."""


@dataclass(frozen=True, eq=False, repr=False)
class Columns:
    """The activations that rows multiply, as integers: what each is worth, and how they move.

    Args:
        units: what one integer is worth, [columns].
        reach: the greatest magnitude, [columns].
        zero: the integer that stands for 0, [columns].
        mean: [columns]; the rounding of the weights is taken back for it in the bias.
        covariance: [columns, columns].
    """

    units: F64
    reach: F64
    zero: F64
    mean: F64
    covariance: F64

    def apart(self) -> Columns:
        """Return the columns as if each moved by itself."""
        return replace(self, covariance=np.diag(np.diag(self.covariance)))

    def part(self, columns: slice) -> Columns:
        """Return some of the columns."""
        return Columns(
            self.units[columns],
            self.reach[columns],
            self.zero[columns],
            self.mean[columns],
            self.covariance[columns, columns],
        )

    @cached_property
    def feedback(self) -> F64:
        """How a column's rounding error is made up for by those behind it, [columns, columns].

        The Cholesky factor of the inverse covariance, each row divided by its diagonal, as in
        optimal brain quantization.
        """
        variance = np.diag(self.covariance)
        # Without it, a column that hardly moved in calibration would take any error.
        floor = DAMPING * np.maximum(variance, variance.mean()) + 1e-30
        inverse = np.linalg.inv(self.covariance + np.diag(floor))
        factor = np.linalg.cholesky((inverse + inverse.T) / 2).T
        spread: F64 = factor / np.diag(factor)[:, None]
        return spread

    def rounded(self, grid: F64) -> F64:
        """Return whole numbers near ``grid``, [rows, columns], whose sums are nearest to its."""
        if not np.any(np.triu(self.covariance, 1)):
            return np.clip(np.rint(grid), -127, 127)
        left, whole = grid.copy(), np.empty_like(grid)
        for column in range(grid.shape[1]):
            whole[:, column] = np.clip(np.rint(left[:, column]), -127, 127)
            error = left[:, column] - whole[:, column]
            left[:, column:] -= error[:, None] * self.feedback[column, column:]
        return whole


def columns_of(builder: ProgramBuilder, tensor: Tensor, shift: int = 0) -> Columns:
    """Return the columns of a tensor's features, each multiplied by ``2**shift``."""
    size, unit = tensor.signal.size, tensor.scale / 2.0**shift
    reach = (128.0 if tensor.dtype == "int8" else 32768.0) * 2.0**shift
    zero = np.full(size, tensor.zero_point * 2.0**shift)
    seen = builder.ranges.get(tensor.name)
    if seen is None or seen.moments is None:
        # A third of the range, as calibration did not see it by this name.
        mean, covariance = zero, np.eye(size) * (reach / 3) ** 2
    else:
        middle = seen.moments[:-1, -1]
        mean = zero + middle / unit
        covariance = (seen.moments[:-1, :-1] - np.outer(middle, middle)) / unit**2
    return Columns(np.full(size, unit), np.full(size, reach), zero, mean, covariance)


def recurrent_columns(
    builder: ProgramBuilder, source: Tensor, name: str, hidden_size: int, shifts: tuple[int, int]
) -> Columns:
    """Return the columns [input, hidden] of a recurrent layer, with input and hidden shift."""
    fed = columns_of(builder, source, shifts[0])
    kept = columns_of(builder, hidden_of(name, hidden_size), shifts[1])
    size, both = len(fed.units), len(fed.units) + hidden_size
    covariance = np.zeros((both, both))
    covariance[:size, :size], covariance[size:, size:] = fed.covariance, kept.covariance
    return Columns(
        np.concatenate([fed.units, kept.units]),
        np.concatenate([fed.reach, kept.reach]),
        np.concatenate([fed.zero, kept.zero]),
        np.concatenate([fed.mean, kept.mean]),
        covariance,
    )


def hidden_of(name: str, hidden_size: int) -> Tensor:
    """Return the output of a recurrent `edge` layer: int8, 1/128, zero point 0."""
    return Tensor(f"{name}.output", Signal("sequence", hidden_size), "int8", HIDDEN_SCALE, 0)

"""Branches: the same values through several chains of layers, joined again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import F64, Array
from edge_lstm.cells.recurrent import MERGES, Merge, merged
from edge_lstm.program import ProgramBuilder
from edge_lstm.spec import FloatRun, Layer, Signal


@dataclass(frozen=True, eq=False, repr=False)
class Parallel(Layer):
    """Feeds every branch the same and joins what they give; a residual has one branch empty.

    Args:
        branches: at least two chains of layers; names are unique in the whole model.
        merge: how their outputs are joined; concat: on the features, in this order.
    """

    branches: tuple[tuple[Layer, ...], ...]
    merge: Merge = "concat"

    def __post_init__(self) -> None:
        if len(self.branches) < 2:
            raise self._refuse(f"has {len(self.branches)} branches", "want at least 2")
        if self.merge not in MERGES:
            raise self._refuse(f"merges by {self.merge!r}", f"want one of {', '.join(MERGES)}")
        names = [layer.name for branch in self.branches for layer in branch]
        for name in names:
            if names.count(name) > 1 or name == self.name:
                raise self._refuse(f"holds the name {name!r} twice", "want names of their own")

    def _arrays(self) -> Iterator[Array]:
        for branch in self.branches:
            for layer in branch:
                yield from layer._arrays()

    def output_signal(self, signal: Signal) -> Signal:
        ends = []
        for branch in self.branches:
            end = signal
            for layer in branch:
                end = layer.output_signal(end)
            ends.append(end)
        same_size = self.merge == "concat" or len({e.size for e in ends}) == 1
        if len({e.kind for e in ends}) > 1 or ends[0].kind == "tokens" or not same_size:
            found = " and ".join(str(e) for e in ends)
            raise self._refuse(f"joins {found}", "want the same kind, and to add the same size")
        size = sum(e.size for e in ends) if self.merge == "concat" else ends[0].size
        return Signal(ends[0].kind, size)

    def forward(self, x: F64, run: FloatRun) -> F64:
        parts, lengths = [], []
        before = run.lengths
        for branch in self.branches:
            run.lengths, value = before, x
            for layer in branch:
                value = layer.forward(value, run)
            parts.append(value)
            lengths.append(run.lengths)
        shapes = {part.shape[:-1] for part in parts}
        if len(shapes) > 1 or any(
            before is not None and not np.array_equal(lengths[0], n)  # type: ignore[arg-type]
            for n in lengths
        ):
            raise self._refuse("joins sequences of different lengths", "want the same length")
        y = merged(parts, self.merge)
        run.note(f"{self.name}.output", y)
        return y

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        del builder, source
        raise self.not_in_int8("joining branches")

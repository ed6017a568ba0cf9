"""Branches: the same values through several chains of layers, joined again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edge_lstm.arrays import F64, Array
from edge_lstm.cells.quantize_op import QuantizeOp
from edge_lstm.cells.recurrent import MERGES, Merge, joined, merged
from edge_lstm.cells.shape import ConcatOp
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
        ends = []
        for branch in self.branches:
            end = source
            for layer in branch:
                end = builder.add_layer(layer, end)
            ends.append(end)
        if self.merge != "concat":
            if len(ends) > 2:
                raise self.not_in_int8(f"a merge of {len(ends)} branches by {self.merge}")
            return joined(builder, self, self.merge, ends[0], ends[1])
        signal = builder.tensors[ends[0]].signal
        size = sum(builder.tensors[end].signal.size for end in ends)
        output = builder.activation(f"{self.name}.output", replace(signal, size=size))
        parts = tuple(self._rescaled(builder, end, output) for end in ends)
        return builder.add_op(ConcatOp(self.name, parts, output))

    def _rescaled(self, builder: ProgramBuilder, end: int, output: int) -> int:
        """Return a branch's value in the scale of the output, which a concatenation needs."""
        value, want = builder.tensors[end], builder.tensors[output]
        if (value.scale, value.zero_point) == (want.scale, want.zero_point):
            return end
        name = f"{self.name}_part_{len(builder.ops)}"
        part = builder.add_tensor(replace(want, name=f"{name}.output", signal=value.signal))
        return builder.add_op(QuantizeOp(name, (end,), part))

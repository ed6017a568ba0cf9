"""What a tensor in a graph of torch.export is: a value of the model, a state, a weight, zeros."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm_converters.chains import Step
from edge_lstm_converters.pt2_file import Size

UNIT = "unit"  # an axis of size 1 that unsqueeze or h_n brought

# An axis by name, or several joined by a reshape.
Axis = str | tuple[str, ...]


@dataclass(frozen=True)
class Pick:
    """Which step of time a value is; the layer that takes it is added when it must be.

    Args:
        axis: of time, by its name.
        index: of the step; below 0 from the end.
        steps: size of the axis.
        counted: whether the program wrote the index of the last step as a number, so that it
            is the last in sequences of this one length only.
    """

    axis: Axis
    index: int
    steps: Size
    counted: bool = False

    @property
    def position(self) -> int:
        """The index from the first step, as far as the number of steps is known."""
        return self.index % self.steps if isinstance(self.steps, int) else self.index

    @property
    def is_last(self) -> bool:
        """Whether no step comes after it."""
        return self.index == -1 or (isinstance(self.steps, int) and self.position == self.steps - 1)

    def same_as(self, other: Pick | None) -> bool:
        """Whether it is the same step as another."""
        return other is not None and (self.axis, self.position) == (other.axis, other.position)


@dataclass(frozen=True)
class Flow:
    """The values behind a layer.

    Args:
        axes: what each axis is.
        step: the end of the chain of layers that made them; without a layer: the input.
        origin: the input of the graph in front of that chain.
        pick: if they are one step of what the chain gives, which.
        state: whether they are a recurrent layer's last hidden state, moved at most.
    """

    axes: tuple[Axis, ...]
    step: Step
    origin: str
    pick: Pick | None = None
    state: bool = False

    @property
    def untouched(self) -> bool:
        """Whether they are an input, or a view of one."""
        return self.step.layer is None


@dataclass(frozen=True)
class CellState:
    """An LSTM's cell state after a step.

    Args:
        axes: what each axis is.
        step: the LSTM.
        pick: after which step of time; None: after the one that there is.
    """

    axes: tuple[Axis, ...]
    step: Step
    pick: Pick | None = None


@dataclass(frozen=True, eq=False)
class Constant:
    """A weight, or a view of one."""

    name: str
    values: Array


@dataclass(eq=False)
class Zeros:
    """A tensor of zeros of any shape, as initial states are, or results before they are written.

    Args:
        size: of the axis that was written along; None: nothing was.
        written: what was written in place, by (axis, index).
    """

    size: Size | None = None
    written: dict[tuple[int, int], Value] = field(default_factory=dict)

    def view(self) -> ZerosView:
        """Return a part of it, or all in another shape."""
        return ZerosView(whole=self)


@dataclass(eq=False)
class ZerosView(Zeros):
    """Memory of another tensor of zeros.

    Args:
        whole: that tensor.
        place: axis and index there, where something may be written; None: it is no such place.
    """

    whole: Zeros = field(default_factory=Zeros)
    place: tuple[int, int] | None = None

    def content(self) -> Value | None:
        """Return what it holds by now: itself, what was written; None: some of each."""
        root = self.whole
        while isinstance(root, ZerosView):
            root = root.whole
        if not root.written:
            return self
        if root is not self.whole or self.place is None:
            return None
        same_axis = all(axis == self.place[0] for axis, _ in root.written)
        return root.written.get(self.place, self if same_axis else None)


@dataclass(frozen=True)
class Stale:
    """A tensor whose memory an operator changed through another one.

    Args:
        changed_by: the node.
    """

    changed_by: str


@dataclass(frozen=True, eq=False)
class Stack:
    """Values of one layout, stacked on axes of their own, as h_n and c_n are.

    Args:
        parts: object array; an axis of it for each stacking axis.
        layout: of the whole tensor: ``~k`` is stacking axis k, others count the parts' own axes.
    """

    parts: Any
    layout: tuple[int, ...]

    def __iter__(self) -> Iterator[Flow | CellState]:
        yield from self.parts.flat

    def permuted(self, order: list[int]) -> Stack:
        """Return it with its axes in another order."""
        return replace(self, layout=tuple(self.layout[i] for i in order))

    def sizes(self, part_sizes: list[Size]) -> list[Size]:
        """Return the sizes of the whole tensor's axes."""
        return [self.parts.shape[~a] if a < 0 else part_sizes[a] for a in self.layout]

    def taken(self, dim: int, index: int | slice) -> Stack | Flow | CellState:
        """Return what an index, or a run of them, of a stacking axis leaves."""
        axis = ~self.layout[dim]
        where = (slice(None),) * axis + (index,)
        parts = self.parts[where]
        if isinstance(index, slice):
            return replace(self, parts=parts)
        layout = tuple(a + 1 if ~a > axis else a for a in _without(self.layout, dim))
        return unstacked(parts, layout)


def _without(layout: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return (*layout[:dim], *layout[dim + 1 :])


def unstacked(parts: Any, layout: tuple[int, ...]) -> Stack | Flow | CellState:
    """Return a Stack, or the one part if no stacking axis is left."""
    if any(a < 0 for a in layout):
        return Stack(parts, layout)
    part = parts if isinstance(parts, Flow | CellState) else parts.item()
    return replace(part, axes=tuple(part.axes[a] for a in layout))


def stack_of(parts: list[Any], dim: int) -> Stack:
    """Return parts stacked on a new axis ``dim``."""
    array = np.empty(len(parts), object)
    array[:] = parts
    layout = list(range(len(parts[0].axes)))
    layout.insert(dim, ~0)
    return Stack(array, tuple(layout))


def as_flow(value: Stack) -> Flow | CellState | None:
    """Return the only part of a Stack, with its stacking axes as such of size 1; or None."""
    if value.parts.size != 1:
        return None
    part: Flow | CellState = value.parts.flat[0]
    return replace(part, axes=tuple(UNIT if a < 0 else part.axes[a] for a in value.layout))


Value = Flow | Stack | CellState | Constant | Zeros | Stale

"""What each axis of a computed ONNX value means: batch, time, features, or several joined.

A ``View`` is the result of a chain of layers, laid out somehow. Transpose, Reshape, Squeeze and
the like only change the layout, so the reader follows the axes instead of matching patterns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edge_lstm.arrays import Array
from edge_lstm.cells import Flatten, LastStep, PickStep, Reverse, Steps
from edge_lstm_converters.chains import Step, one_direction

FEATURES = "features"
DIRECTION, PART = "direction", "part"
"""Of a bidirectional layer whose features are on two axes: which direction, and its own ones."""
Role = Literal["batch", "time"]

Axis = tuple[str, ...]
"""The atoms that an axis joins, slowest first; an axis of one element that means nothing is ()."""


class RefusedError(Exception):
    """What was found at a node and what is accepted; the reader adds the file and the node."""

    def __init__(
        self, found: str, accepted: str = "want batch, time and features to stay apart"
    ) -> None:
        super().__init__(found)
        self.found, self.accepted = found, accepted


class SizeLearned(Exception):
    """Not an error: the graph runs with one size only of an axis that the file leaves open.

    The reader starts again, knowing it.
    """

    def __init__(self, atom: str, size: int) -> None:
        super().__init__(atom, size)
        self.atom, self.size = atom, size


@dataclass(frozen=True)
class View:
    """The result of ``step``, laid out along ``axes``.

    Args:
        integers: whether the values are integers, as token ids are.
        final_state: whether it is an LSTM's Y_h, moved at most.
    """

    step: Step
    axes: tuple[Axis, ...]
    integers: bool = False
    final_state: bool = False


@dataclass(frozen=True)
class State:
    """A state that the runtime holds: fed by it, or given back to it.

    Args:
        values: what it is at first, of the value's shape, without memory; zeros where that is
            not known.
        origin: in words, for messages.
        fed: whether it comes from an input of the graph.
        lengths: whether it is not a state but the lengths of the rows.
    """

    values: Array
    origin: str
    fed: bool = False
    lengths: bool = False


@dataclass(frozen=True)
class Stack:
    """Values joined along an axis where each has one element: the states of stacked layers."""

    parts: tuple[View, ...]
    axis: int


Value = Array | View | State | Stack
Values = Sequence[Value | None]
"""The inputs of a node; None where one is left out."""


class Axes:
    """Knows how large the atoms are and what they mean, as far as the nodes so far have told.

    Args:
        sizes: of the input's axes, by atom; a size that the file leaves open is a large prime.
        open_atoms: those whose size the file leaves open.
        guesses: the primes that stand for open sizes, of the input and of the states.
    """

    def __init__(self, sizes: dict[str, int], open_atoms: set[str], guesses: set[int]) -> None:
        self.sizes = sizes
        self.open_atoms = open_atoms
        self.guesses = guesses
        self.roles: dict[str, Role] = {}
        self.features: str | None = None
        self.lengths: bool | None = None  # whether rows have lengths; None: not known yet

    def use_lengths(self, used: bool) -> None:
        """Note whether a recurrent layer has sequence_lens; all must be alike."""
        if self.lengths not in (None, used):
            raise RefusedError(
                "differs from another recurrent layer in having sequence_lens",
                "want the same lengths for all or for none",
            )
        self.lengths = used

    def atom_size(self, view: View, atom: str) -> int:
        """Return the size of one atom."""
        if atom == FEATURES:
            return view.step.size
        if atom == DIRECTION:
            return 2
        return view.step.size // 2 if atom == PART else self.sizes[atom]

    def new_time(self, size: int) -> str:
        """Return an atom for a time axis of another length than the input's."""
        atom = f"time {len(self.sizes)}"
        self.sizes[atom], self.roles[atom] = size, "time"
        return atom

    def shape(self, view: View) -> list[int]:
        """Return the shape of the ONNX value."""
        return [math.prod(self.atom_size(view, a) for a in axis) for axis in view.axes]

    def shape_of(self, value: Value) -> tuple[int, ...]:
        """Return the shape of any value."""
        if isinstance(value, View):
            return tuple(self.shape(value))
        if isinstance(value, Stack):
            shape = self.shape(value.parts[0])
            shape[value.axis] = len(value.parts)
            return tuple(shape)
        return value.values.shape if isinstance(value, State) else value.shape

    def shown(self, sizes: Sequence[int]) -> str:
        """Return sizes as text, without the primes that stand for open ones."""
        is_guess = (any(n and n % g == 0 for g in self.guesses) for n in sizes)
        return f"[{', '.join('?' if g else str(n) for n, g in zip(sizes, is_guess, strict=True))}]"

    def real(self, view: View, axis: Axis) -> Axis:
        """Return the atoms of an axis that have more than one element."""
        return tuple(a for a in axis if self.atom_size(view, a) != 1)

    def describe(self, view: View) -> str:
        """Return the layout in words, as ``[time, batch, features]``."""
        return f"[{', '.join(self.word(view, axis) for axis in view.axes)}]"

    def word(self, view: View, axis: Axis) -> str:
        """Return one axis in words."""
        words = [self.word_of_atom(a) for a in axis if len(axis) == 1 or a in self.real(view, axis)]
        return "*".join(words) or "1"

    def word_of_atom(self, atom: str) -> str:
        """Return what one atom means, in a word."""
        if atom in (FEATURES, self.features):
            return FEATURES
        if atom in (DIRECTION, PART):
            return DIRECTION if atom == DIRECTION else "features of a direction"
        return self.roles.get(atom, f"input axis {atom}")

    def position(self, view: View, axis: int) -> int:
        """Return ``axis`` counted from the front."""
        count = len(view.axes)
        if not -count <= axis < count:
            raise RefusedError(f"has an axis {axis} of {count}")
        return axis % count

    def is_time(self, view: View, axis: Axis) -> bool:
        """Whether an axis is time and nothing else."""
        atoms = self.real(view, axis) or axis
        return len(atoms) == 1 and self.roles.get(atoms[0]) == "time"

    # Layouts

    def transpose(self, view: View, order: Sequence[int] | None) -> View:
        """Return the axes in another order."""
        count = len(view.axes)
        order = list(order) if order is not None else list(reversed(range(count)))
        if sorted(order) != list(range(count)):
            raise RefusedError(f"has the order {order} for {count} axes")
        return replace(view, axes=tuple(view.axes[i] for i in order))

    def squeeze(self, view: View, axes: Sequence[int] | None) -> View:
        """Return the view without axes of one element."""
        shape = self.shape(view)
        if axes is None:
            gone = {i for i, n in enumerate(shape) if n == 1}
        else:
            gone = {self.position(view, a) for a in axes}
        for i in gone:
            self._must_be_one(view, view.axes[i])
        return replace(view, axes=tuple(a for i, a in enumerate(view.axes) if i not in gone))

    def _must_be_one(self, view: View, axis: Axis) -> None:
        for atom in self.real(view, axis):
            if atom in self.open_atoms:
                raise SizeLearned(atom, 1)
            raise RefusedError(f"drops {self.word(view, axis)} of {self.atom_size(view, atom)}")

    def unsqueeze(self, view: View, axes: Sequence[int]) -> View:
        """Return the view with new axes of one element."""
        count = len(view.axes) + len(axes)
        new = {a % count for a in axes if -count <= a < count}
        if len(new) != len(axes):
            raise RefusedError(f"adds the axes {list(axes)} to {len(view.axes)}")
        rest = iter(view.axes)
        return replace(view, axes=tuple(() if i in new else next(rest) for i in range(count)))

    def reshape(self, view: View, wanted: Sequence[int]) -> View:
        """Return the view with its atoms, in their order, joined into axes of the wanted sizes."""
        atoms = [a for axis in view.axes for a in axis]
        groups: list[Axis] = []
        for want in wanted:
            group: list[str] = []
            found = 1
            while atoms and (found < want or (want == 1 and not group)):
                size = self.atom_size(view, atoms[0])
                if want == 1 and size != 1:
                    break
                group.append(atoms.pop(0))
                found *= size
            if found != want:
                raise RefusedError(f"reshapes {self.describe(view)} to {self.shown(wanted)}")
            groups.append((FEATURES,) if group == [DIRECTION, PART] else tuple(group))
        if any(self.atom_size(view, a) != 1 for a in atoms):
            raise RefusedError(f"reshapes {self.describe(view)} to {self.shown(wanted)}")
        return replace(view, axes=tuple(groups))

    def learn_from_size(self, view: View, total: int) -> None:
        """Learn the one open size of a view that must have ``total`` elements in all."""
        atoms = [a for axis in view.axes for a in axis]
        unknown = [a for a in atoms if a in self.open_atoms]
        known = math.prod(self.atom_size(view, a) for a in atoms if a not in self.open_atoms)
        if len(unknown) == 1 and known and total and total % known == 0:
            raise SizeLearned(unknown[0], total // known)

    def slice(self, view: View, axis: int, start: int, end: int, step: int) -> View:
        """Return the view after a Slice: all of an axis, or the last step of time."""
        axis = self.position(view, axis)
        size = self.shape(view)[axis]
        is_open = any(a in self.open_atoms for a in view.axes[axis])
        first = start + size if start < 0 else start
        # With an open size only "to the end" in so many words is sure to be the end.
        far = (1 << 31) - 1
        to_end = end >= far or end == size or (not is_open and end >= size)
        if step == 1 and to_end and first <= 0:
            return view
        if step == 1 and to_end and first == size - 1 and self.is_time(view, view.axes[axis]):
            return self.last_step(view, axis, keep=True)
        if step == 1 and self.is_time(view, view.axes[axis]):
            if not is_open and start < 0 and first == 0:
                start, end = 0, end + size if end < 0 else end
            return self._steps(view, axis, start, None if end >= far else end)
        backward = step == -1 and start in (-1, size - 1) and end <= -far
        if backward and self.is_time(view, view.axes[axis]):
            return replace(view, step=view.step.then(Reverse(""), view.step.size))
        last = min(end + size if end < 0 else end, size)
        if step == 1 and view.axes[axis] == (DIRECTION,) and last - first == 1:
            return self.one_direction(view, axis, first, keep=True)
        half, rest = divmod(size, 2)
        halves = ((0, half), (half, size))
        if step == 1 and not rest and view.axes[axis] == (FEATURES,) and (first, last) in halves:
            chain = one_direction(view.step, halves.index((first, last)))
            if chain is not None:
                return View(chain, view.axes)
        words = f"{start}:{end}" + (f":{step}" if step != 1 else "")
        raise RefusedError(f"takes {words} of {self.word(view, view.axes[axis])}")

    def _steps(self, view: View, axis: int, start: int, end: int | None) -> View:
        """Return the view after a Slice of time; ``end`` None: to the end."""
        if end is not None and end == start + 1 and end != 0:
            return self.pick_step(view, axis, start, keep=True)
        size = len(range(self.shape(view)[axis])[start:end])
        if size == 0:
            raise RefusedError(f"takes {start}:{end} of time, which is nothing")
        layer = Steps("", start, end)
        axes = list(view.axes)
        axes[axis] = (self.new_time(size),)
        return View(view.step.then(layer, view.step.size), tuple(axes))

    def gather(self, view: View, axis: int, index: int, *, keep: bool) -> View:
        """Return the view after picking one index of an axis; ``keep``: the axis stays, as 1."""
        axis = self.position(view, axis)
        size = self.shape(view)[axis]
        if self.is_time(view, view.axes[axis]):
            last = index in (-1, size - 1)
            return self.pick_step(view, axis, -1 if last else index, keep=keep)
        if view.axes[axis] == (DIRECTION,) and -2 <= index < 2:
            return self.one_direction(view, axis, index % 2, keep=keep)
        if index in (-1, 0):
            with_one = view.axes[axis]
            if not self.real(view, with_one):
                return view if keep else self.squeeze(view, [axis])
        raise RefusedError(f"takes index {index} of {self.word(view, view.axes[axis])}")

    def one_direction(self, view: View, axis: int, index: int, *, keep: bool) -> View:
        """Return one direction of a bidirectional layer, picked from the axis of directions."""
        chain = one_direction(view.step, index)
        if chain is None:
            raise RefusedError(f"takes direction {index} of {self.describe(view)}")
        axes = [tuple(FEATURES if a == PART else a for a in joint) for joint in view.axes]
        axes[axis : axis + 1] = [()] if keep else []
        return replace(view, step=chain, axes=tuple(axes))

    def last_step(self, view: View, axis: int, *, keep: bool) -> View:
        """Return the view after a LastStep layer on its time axis."""
        return self.pick_step(view, axis, -1, keep=keep)

    def pick_step(self, view: View, axis: int, index: int, *, keep: bool) -> View:
        """Return the view after one step of its time axis."""
        if self.lengths and index != 0:
            raise RefusedError(
                f"takes step {index} of sequences that have lengths",
                "want the final state Y_h, which is the last valid step",
            )
        axes = list(view.axes)
        axes[axis : axis + 1] = [()] if keep else []
        layer = LastStep("") if index == -1 else PickStep("", index)
        return View(view.step.then(layer, view.step.size, vector=True), tuple(axes))

    # Meaning

    def as_features(self, view: View, axis: int) -> View:
        """Return the view with features, and only them, on ``axis``.

        An axis that joins time and features becomes a Flatten layer.
        """
        axis = self.position(view, axis)
        if view.step.layer is None:
            if self.features is None:
                self._resolve_features(view, view.axes[axis])
            view = self.with_features(view)
        atoms = self.real(view, view.axes[axis])
        if atoms == (DIRECTION,) and view.step.size == 2:  # of one feature each
            axes = [(FEATURES,) if i == axis else a for i, a in enumerate(view.axes)]
            return replace(view, axes=tuple(axes))
        elsewhere = any(FEATURES in a for i, a in enumerate(view.axes) if i != axis)
        if atoms == (FEATURES,) or (not atoms and view.step.size == 1 and not elsewhere):
            return view
        named = [self.roles.get(a, a) for a in atoms]
        single = view.step.size == 1 and named == ["time"]
        if not elsewhere and (named == ["time", FEATURES] or single):
            time = atoms[0]
            steps = self.sizes[time]
            axes = list(view.axes)
            axes[axis] = (FEATURES,)
            flat = view.step.then(Flatten("", steps), steps * view.step.size, vector=True)
            return replace(view, step=flat, axes=tuple(axes), final_state=False)
        raise RefusedError(
            f"works along {self.word(view, view.axes[axis])} of {self.describe(view)}"
        )

    def _resolve_features(self, view: View, axis: Axis) -> None:
        atoms = self.real(view, axis) or axis
        if len(atoms) != 1:
            raise RefusedError(f"works along {self.word(view, axis)} of {self.describe(view)}")
        self.features = atoms[0]

    def with_features(self, view: View) -> View:
        """Return a view of the input with its features named as such."""
        if self.features is None or view.step.layer is not None:
            return view
        size = self.sizes[self.features]
        axes = tuple(
            tuple(FEATURES if a == self.features else a for a in axis) for axis in view.axes
        )
        return replace(view, step=replace(view.step, size=size), axes=axes)

    def as_sequence(self, view: View, time: int, batch: int, features: int) -> View:
        """Return the view if its axes are those of an LSTM's X; learn from the first LSTM.

        Args:
            view: with three axes.
            time: where time must be.
            batch: where the batch must be.
            features: where the features must be.
        """
        view = self.as_features(view, features)
        if view.step.vector:
            found = "is fed a single step that was taken from a sequence"
            raise RefusedError(found, "want a sequence")
        for role, axis in (("time", view.axes[time]), ("batch", view.axes[batch])):
            atoms = self.real(view, axis) or axis
            if len(atoms) > 1:
                raise RefusedError(f"has {role} in {self.word(view, axis)}; the axes were joined")
            if atoms and self.roles.setdefault(atoms[0], role) != role:  # type: ignore[arg-type]
                raise RefusedError(
                    f"has {role} where {self.roles[atoms[0]]} is, in {self.describe(view)}"
                )
        return view

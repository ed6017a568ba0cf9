"""Where every value of a Program lies in C, and in which loops its ops run.

Ops that only move values cost nothing where that can be: a REVERSE is read from the end, the
inputs of a CONCATENATION are written where they belong, the last step is where the steps before
it were. What is left are ops of one step each. They stand in loops, as few as possible: an op
follows another in its loop unless it needs what comes later in time. A value that is read in the
loop that makes it is kept for one step, any other for the whole sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edge_lstm.cells import (
    ConcatOp,
    FirstStepOp,
    FlattenOp,
    LastStepOp,
    ReadStateOp,
    ReverseOp,
    WriteStateOp,
)
from edge_lstm.errors import UnsupportedModel
from edge_lstm.program import DType, Op, Program, Tensor
from edge_lstm.step_loop import loops

MOVES: tuple[type[Op], ...] = (ConcatOp, ReverseOp, FlattenOp, FirstStepOp, LastStepOp)
"""Ops that become addresses."""
INPUT, OUTPUT = "x", "y"  # the caller's arrays


@dataclass(eq=False)
class Container:
    """An array that holds a tensor, or several side by side.

    Args:
        name: ``x``, ``y`` or a member of the state.
        dtype: of its values.
        values: of one step, or of a vector.
        whole: whether every step of a sequence is kept.
        flat: it is a vector that is a sequence, step after step.
        fixed: its memory is not shared: it is the caller's, or a state that outlives the step.
    """

    name: str
    dtype: DType
    values: int
    whole: bool = False
    flat: bool = False
    fixed: bool = False


@dataclass(frozen=True)
class Spot:
    """Where a tensor lies in a container.

    Args:
        container: which.
        stride: values from one step to the next, where every step is kept; 0 for a vector.
        offset: values before the tensor's first.
        backward: the last step lies first.
        pick: the one step of a sequence that a vector is.
    """

    container: Container
    stride: int
    offset: int = 0
    backward: bool = False
    pick: Literal["", "first", "last"] = ""

    def address(self, step: str) -> str:
        """Return the expression for a step's first value.

        Args:
            step: its index among ``steps``; empty where there is but one step.
        """
        container = self.container
        ours = container.name not in (INPUT, OUTPUT)
        terms = [f"state->{container.name}" if ours else container.name]
        if self.pick and step:
            step = "0" if self.pick == "first" else "(steps - 1)"
        if self.backward and step:
            step = {"0": "(steps - 1)", "(steps - 1)": "0"}.get(step, f"(steps - 1 - {step})")
        if step not in ("", "0") and container.whole and self.stride:
            terms.append(f"{step} * {self.stride}")
        if self.offset:
            terms.append(str(self.offset))
        return " + ".join(terms)


Late = Literal["no", "last", "more"]


@dataclass(frozen=True)
class Piece:
    """What a tensor owes to one run.

    Args:
        producer: number of the run.
        flipped: the producer's first step is the tensor's last.
        late: all of it is there only when the producer's loop has ended: no; of it, the last step
            is read; or more than that.
    """

    producer: int
    flipped: bool = False
    late: Late = "no"


@dataclass(frozen=True, eq=False)
class Run:
    """An op of one step, or the copy of one value to where another is.

    Args:
        position: of the op in the program.
        op: what runs; None: a copy.
        sources: what is read.
        needs: whose work that is.
        target: where the output goes.
        index: of the tensor that is put there.
        tensor: the same.
        once: it runs after the last step rather than in a loop.
    """

    position: int
    op: Op | None
    sources: tuple[Spot, ...]
    needs: tuple[Piece, ...]
    target: Spot
    index: int
    tensor: Tensor
    once: bool


class Layout:
    """A Program laid out: what runs, in which loops, on which memory.

    Args:
        program: integers in, integers out.
        names: of its ops, C identifiers.

    Attributes:
        loops: what runs for each step, loop after loop.
        once: what runs behind them.
        containers: the members of the state that hold values.

    Raises:
        UnsupportedModel: a state's steps are read where C does not keep them.
    """

    def __init__(self, program: Program, names: Sequence[str]) -> None:
        self.program, self.names = program, names
        self._spots: dict[int, Spot] = {}
        self._pieces: dict[int, tuple[Piece, ...]] = {program.input: ()}
        self._runs: list[Run] = []
        self._place()
        self._list_runs()
        self.loops, self.once = self._group()
        self._keep_whole()
        self.containers = self._share()

    # Places: from the output to the input, each value goes where its reader wants it.

    def _natural(self, index: int, name: str = "", *, fixed: bool = False) -> Spot:
        tensor = self.program.tensors[index]
        container = Container(name, tensor.dtype, per_step(tensor), fixed=fixed)
        return Spot(container, 0 if tensor.signal.kind == "vector" else per_step(tensor))

    def _place(self) -> None:
        program, spots = self.program, self._spots
        spots[program.input] = self._natural(program.input, INPUT, fixed=True)
        spots[program.input].container.whole = True
        for name, op in zip(self.names, program.ops, strict=True):
            if isinstance(op, ReadStateOp):
                spots[op.output] = self._natural(op.output, f"{name}_value", fixed=True)
        self._output = self._natural(program.output, OUTPUT, fixed=True)
        self._output.container.whole = bool(self._output.stride)
        spots.setdefault(program.output, self._output)
        for op in reversed(program.ops):
            if isinstance(op, ConcatOp) and op.output not in spots:
                spots[op.output] = self._natural(op.output)
            if isinstance(op, MOVES) and op.output in spots:
                for index, spot in zip(op.inputs, self._wanted(op), strict=True):
                    if spot is not None:
                        spots.setdefault(index, spot)

    def _wanted(self, op: Op) -> Iterator[Spot | None]:
        """Yield for each input of a move the place that leaves nothing to do, or None."""
        spot = self._spots[op.output]
        if isinstance(op, ConcatOp):
            offset = spot.offset
            for index in op.inputs:
                yield replace(spot, offset=offset)
                offset += per_step(self.program.tensors[index])
        elif isinstance(op, ReverseOp) and spot.stride:
            yield replace(spot, backward=not spot.backward)
        elif isinstance(op, FlattenOp):
            spot.container.flat = spot.container.whole = True
            yield replace(spot, stride=per_step(self.program.tensors[op.inputs[0]]))
        elif isinstance(op, LastStepOp) and self._readers(op.inputs[0]) == 1:
            yield spot  # without a stride: each step is written over the one before
        else:
            yield None

    def _readers(self, index: int) -> int:
        readers = sum(op.inputs.count(index) for op in self.program.ops)
        return readers + (index == self.program.output)

    # Runs: in the program's order. A move that its places do not make free becomes copies.

    def _list_runs(self) -> None:
        for position, op in enumerate(self.program.ops):
            if isinstance(op, ReadStateOp):
                self._pieces[op.output] = ()
            elif isinstance(op, ConcatOp):
                self._pieces[op.output] = tuple(self._join(position, op))
            elif isinstance(op, FlattenOp):
                self._pieces[op.output] = tuple(self._flatten(position, op))
            elif isinstance(op, MOVES):
                self._move(position, op)
            elif isinstance(op, WriteStateOp):
                (source,) = op.inputs
                copy = self._copy(position, source, self._spots[op.output])
                self._pieces[op.output] = (copy,)
            else:
                if op.output not in self._spots:
                    self._spots[op.output] = self._natural(op.output)
                sources = tuple(self._spots[index] for index in op.inputs)
                needs = tuple(piece for index in op.inputs for piece in self._pieces[index])
                made = self._add(position, op, sources, needs, self._spots[op.output], op.output)
                self._pieces[op.output] = (made,)
        output = self.program.output
        if self._spots[output] != self._output:
            self._copy(len(self.program.ops), output, self._output)

    def _add(
        self,
        position: int,
        op: Op | None,
        sources: tuple[Spot, ...],
        needs: tuple[Piece, ...],
        target: Spot,
        index: int,
    ) -> Piece:
        tensor = self.program.tensors[index]
        once = tensor.signal.kind == "vector"
        self._runs.append(Run(position, op, sources, needs, target, index, tensor, once))
        return Piece(len(self._runs) - 1)

    def _copy(self, position: int, source: int, target: Spot) -> Piece:
        """Add a copy of what lies at ``source``'s place; return what the copy owes."""
        spots, pieces = (self._spots[source],), self._pieces[source]
        return self._add(position, None, spots, pieces, target, source)

    def _join(self, position: int, op: Op) -> Iterator[Piece]:
        """Yield what a concatenation needs; inputs that lie elsewhere are copied."""
        for index, spot in zip(op.inputs, self._wanted(op), strict=True):
            assert spot is not None
            if self._spots[index] == spot:
                yield from self._pieces[index]
            else:
                yield self._copy(position, index, spot)

    def _flatten(self, position: int, op: Op) -> Iterator[Piece]:
        """Yield what a vector of all steps needs, which are copied unless they lie in a row."""
        (source,) = op.inputs
        spot, tensor = self._spots[source], self.program.tensors[source]
        in_a_row = not spot.backward and spot.stride == per_step(tensor)
        if op.output not in self._spots and in_a_row:
            self._spots[op.output] = replace(spot, stride=0)
        elif op.output not in self._spots:
            self._spots[op.output] = self._natural(op.output)
        pieces = self._pieces[source]
        if self._spots[op.output].container is not spot.container:
            (wanted,) = self._wanted(op)
            assert wanted is not None
            pieces = (self._copy(position, source, wanted),)
        for piece in pieces:
            yield replace(piece, late="more")

    def _move(self, position: int, op: Op) -> None:
        """Find the output of REVERSE, or of the first or last step, in the input."""
        (source,), output = op.inputs, op.output
        spot, given = self._spots[source], self._spots.get(output)
        free = given is not None and next(self._wanted(op)) == spot
        if isinstance(op, ReverseOp):
            view = replace(spot, backward=not spot.backward)
            pieces = tuple(replace(p, flipped=not p.flipped) for p in self._pieces[source])
        else:
            last = isinstance(op, LastStepOp)
            view = replace(spot, pick="last" if last else "first")
            late: Late = "last" if last else "more"
            pieces = tuple(replace(p, late=late) for p in self._pieces[source])
        self._spots[output], self._pieces[output] = view, pieces
        if given is not None:
            if not free:
                copy = self._copy(position, output, given)
                self._pieces[output] = (copy,)
            self._spots[output] = given

    # Loops.

    def _group(self) -> tuple[list[list[Run]], list[Run]]:
        """Return the loops, and what runs behind them."""
        groups: list[list[Run]] = []
        self._group_of: dict[int, int] = {}
        for unit in self._units():
            own = [self._runs.index(run) for run in unit]
            flipped = {p.producer for run in unit for p in run.needs if p.flipped}
            if flipped.intersection(own):
                name = self.program.ops[unit[-1].position].name
                raise UnsupportedModel(
                    f"op {name!r}: its step needs a later one; run it with the NumPy runtime"
                )
            if not groups or any(self._group_of.get(k) == len(groups) - 1 for k in flipped):
                groups.append([])
            groups[-1] += unit
            self._group_of |= dict.fromkeys(own, len(groups) - 1)
        return groups, [run for run in self._runs if run.once]

    def _units(self) -> Iterator[list[Run]]:
        """Yield runs that must share a loop: those from reading to writing a state."""
        ranges = loops(self.program)
        unit: list[Run] = []
        for run in (run for run in self._runs if not run.once):
            inside = [stop for start, stop in ranges if start <= run.position < stop]
            unit.append(run)
            if not inside or run.position == inside[0] - 1:
                yield unit
                unit = []

    def _keep_whole(self) -> None:
        """Mark the containers whose values are read when their loop has gone on."""
        for number, run in enumerate(self._runs):
            for piece in run.needs:
                producer = self._runs[piece.producer]
                together = self._group_of.get(number) == self._group_of.get(piece.producer)
                in_step = not piece.flipped and (
                    piece.late == "last" or (piece.late == "no" and together)
                )
                if in_step:
                    continue
                if producer.target.container.fixed and not producer.target.container.whole:
                    name = self.program.ops[producer.position].name
                    raise UnsupportedModel(
                        f"op {name!r}: all steps of its state are read, of which C keeps one;"
                        " run it with the NumPy runtime"
                    )
                producer.target.container.whole = True

    # Memory.

    def _share(self) -> list[Container]:
        """Name the containers of our own; those of a type that are never needed together share."""
        order = [run for group in self.loops for run in group] + self.once
        life: dict[Container, tuple[int, int]] = {}
        for run in order:
            group = next((group for group in self.loops if run in group), [run])
            for spot in (run.target, *run.sources):
                # What is kept whole is read and written all the time that its loop goes on.
                ends = (group[0], group[-1]) if spot.container.whole else (run, run)
                first, last = order.index(ends[0]), order.index(ends[1])
                start, stop = life.get(spot.container, (first, last))
                life[spot.container] = min(start, first), max(stop, last)
        found: list[Container] = []
        for container, (start, _) in sorted(life.items(), key=lambda item: item[1]):
            if container.fixed:
                continue
            taken = {
                other.name
                for other in found
                if life[other][1] >= start or other.dtype != container.dtype
            }
            names = [other.name for other in found if other.name not in taken]
            container.name = names[0] if names else f"buffer_{len({c.name for c in found})}"
            found.append(container)
        return found

    def last_in_buffers(self) -> list[Container]:
        """Return for each buffer the container whose values are left in it at the end.

        A state that is copied has another value by then, so such containers are not among them.
        """
        order = [run for group in self.loops for run in group] + self.once
        states = {op.output for op in self.program.ops if isinstance(op, ReadStateOp)}
        stale = {run.target.container for run in order if run.op is None and run.index in states}
        left = {run.target.container.name: run.target.container for run in order}
        return [c for c in left.values() if not c.fixed and c not in stale]


def per_step(tensor: Tensor) -> int:
    """Return the values of one step, or of a vector."""
    return 1 if tensor.signal.kind == "tokens" else tensor.signal.size

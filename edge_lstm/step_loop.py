"""Which ops of a program run step by step, and how: those between reading and writing a state."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from edge_lstm.arrays import I64, Array
from edge_lstm.cells.state_op import ReadStateOp, StateKernel, WriteStateOp
from edge_lstm.errors import UsageError
from edge_lstm.program import Kernel, Op, Program

Pair = tuple[Op, Kernel]
Values = dict[int, Array]


class WholeOp:
    """An op that takes all steps at once."""

    def __init__(self, op: Op, kernel: Kernel) -> None:
        self.op, self.kernel = op, kernel

    def run(self, values: Values, lengths: I64 | None) -> None:
        """Add the op's output to the values by tensor."""
        values[self.op.output] = self.kernel.run([values[i] for i in self.op.inputs], lengths)


class StepLoop:
    """Ops that run one after the other for each step.

    Args:
        pairs: they and their kernels, in order.
        wanted: tensors that are read behind the loop.
        clock: a tensor that has as many steps as the loop shall make, [batch, time, ...].
    """

    def __init__(self, pairs: Sequence[Pair], wanted: set[int], clock: int) -> None:
        self.pairs, self.clock = pairs, clock
        made = {op.output for op, _ in pairs}
        self.kept = sorted(made & wanted)
        self.fed = sorted({i for op, _ in pairs for i in op.inputs} - made)
        self.states = {op.output: kernel for op, kernel in pairs if isinstance(kernel, StateKernel)}

    def run(self, values: Values, lengths: I64 | None) -> None:
        """Add the wanted outputs of all steps to the values by tensor; the states move.

        A row's steps past its length are run like the others, and not read.
        """
        del lengths
        steps: dict[int, list[Array]] = {index: [] for index in self.kept}
        for step in range(values[self.clock].shape[1]):
            now = {index: values[index][:, step : step + 1] for index in self.fed}
            for op, kernel in self.pairs:
                now[op.output] = kernel.run([now[i] for i in op.inputs], None)
                if isinstance(op, WriteStateOp):
                    self.states[op.output].value = now[op.output]
            for index in self.kept:
                steps[index].append(now[index])
        for index in self.kept:
            values[index] = np.concatenate(steps[index], axis=1)


def all_values(program: Program, x: Array) -> Values:
    """Return what every op gives for whole sequences from zero state, by tensor.

    A state is given as it is behind each step.
    """
    kernels = [op.prepare(program, len(x)) for op in program.ops]
    for kernel in kernels:
        kernel.reset()
    values = {program.input: x}
    for part in in_loops(program, kernels, {op.output for op in program.ops}):
        part.run(values, None)
    return values


def in_loops(
    program: Program, kernels: Sequence[Kernel], wanted: Collection[int] = ()
) -> list[WholeOp | StepLoop]:
    """Return the ops of a program as they are run; they also keep the ``wanted`` tensors."""
    pairs = list(zip(program.ops, kernels, strict=True))
    parts: list[WholeOp | StepLoop] = []
    start = 0
    for first, stop in loops(program):
        parts += [WholeOp(*pair) for pair in pairs[start:first]]
        behind = {i for op, _ in pairs[stop:] for i in op.inputs} | {program.output, *wanted}
        parts.append(StepLoop(pairs[first:stop], behind, program.input))
        start = stop
    return parts + [WholeOp(*pair) for pair in pairs[start:]]


def loops(program: Program) -> list[tuple[int, int]]:
    """Return the ranges of ops between reading and writing a state; those that overlap, joined."""
    read: dict[int, int] = {}
    found: list[tuple[int, int]] = []
    for number, op in enumerate(program.ops):
        if isinstance(op, ReadStateOp):
            read[op.output] = number
        elif isinstance(op, WriteStateOp):
            if op.output not in read:
                raise UsageError(f"op {op.name!r}: writes a state that no op reads")
            first, stop = read.pop(op.output), number + 1
            while found and found[-1][1] > first:
                first = min(first, found.pop()[0])
            found.append((first, stop))
    if read:
        raise UsageError(f"op {program.ops[min(read.values())].name!r}: its state is never written")
    return found

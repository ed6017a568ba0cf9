"""Runs a package's functions in unicorn over whole sequences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.errors import MismatchError
from edge_lstm_firmware_sim.build import Target, build
from edge_lstm_firmware_sim.cycles import Block
from edge_lstm_firmware_sim.execution import COUNTED_STEPS, Execution
from edge_lstm_firmware_sim.machine_unicorn import Machine
from edge_lstm_firmware_sim.package import Package

STATE_ALIGNMENT = 8  # of any type of C on these cores, as the compiler lays a state out
CHUNK_BYTES = 1 << 22
"""Of inputs or outputs that are in the emulated memory at once."""


def execute(
    package: Package, target: Target, sequences: list[Array], instructions: int
) -> Execution:
    """Run sequences, each from the first state; count the first steps of the first.

    Args:
        package: what to run.
        target: for which core, built with what.
        sequences: ``[steps, ...]`` each, of the package's input type.
        instructions: how many to run at most, about; what does not fit is left out.
    """
    run = _Run(package, target)
    outputs: list[Array] = []
    steps: list[int] = []
    for x in sequences:
        if package.streams:
            first, left = run.begin(x), instructions - run.spent
            whole = x[: len(first) + max(0, left // run.per_step)]
            y = [*first, *run.go_on(whole[len(first) :])]
            if not y:
                break
        elif steps and run.spent + len(x) * run.per_step > instructions:
            break
        else:
            whole, y = x, run.whole(x)
        outputs.append(np.concatenate(y) if package.writes_every_step else y[-1])
        steps.append(len(whole))
        if run.spent >= instructions:
            break
    return Execution(
        outputs=tuple(outputs),
        steps=tuple(steps),
        instructions=tuple(block.instructions for block in run.counted),
        cycles=tuple(block.cycles for block in run.counted),
        stack_bytes=run.stack_bytes,
        selftest=run.selftest(),
        emulator=run.machine.version,
    )


@dataclass
class _Places:
    """Addresses in the emulated memory."""

    state: int
    x: int
    y: int


class _Run:
    """A package in a Machine, with its state."""

    def __init__(self, package: Package, target: Target) -> None:
        self.package = package
        name = package.name
        step = (f"{name}_step",) if package.streams else ()
        roots = (f"{name}_init", f"{name}_reset", *step, f"{name}_run", f"{name}_selftest")
        image = build(package, target, roots)
        self.machine = Machine(image, target.core)
        self._check_types(image.word("edge_lstm_input_bytes"), image.word("edge_lstm_output_bytes"))
        item = max(package.input.step_bytes, package.output.step_bytes)
        self.chunk = package.max_steps or max(1, CHUNK_BYTES // item)
        state = self.machine.buffer(image.word("edge_lstm_state_bytes"), STATE_ALIGNMENT)
        self.one, self.many = (
            _Places(
                state=state,
                x=self.machine.buffer(steps * package.input.step_bytes, package.input.item_bytes),
                y=self.machine.buffer(steps * package.output.step_bytes, package.output.item_bytes),
            )
            for steps in (1, self.chunk)
        )
        self.counted: list[Block] = []
        self.spent = 0
        self.stack_bytes = 0
        self._call("init", state)

    @property
    def per_step(self) -> int:
        """Instructions of one step, about; known once a step was counted."""
        return max(1, sum(b.instructions for b in self.counted) // max(1, len(self.counted)))

    def _check_types(self, *found: int) -> None:
        ports = (self.package.input, self.package.output)
        wanted = tuple(port.item_bytes for port in ports)
        if found != wanted:
            raise MismatchError(
                f"{self.package.name}: input and output items have {found} bytes; the description"
                f" says {wanted}"
            )

    def _call(self, what: str, *arguments: int) -> int:
        return self.machine.call(f"{self.package.name}_{what}", *arguments)

    def begin(self, x: Array) -> list[Array]:
        """Set the first state; run and count the first steps, unless that was done before."""
        self._call("reset", self.one.state)
        outputs = []
        for one in x[: COUNTED_STEPS - len(self.counted)]:
            self.machine.write(self.one.x, one.tobytes())
            places = (self.one.state, self.one.x, self.one.y)
            self.counted.append(self.machine.count(f"{self.package.name}_step", *places))
            self.spent += self.counted[-1].instructions
            outputs.append(self._output(self.one, 1))
            self.stack_bytes = self.machine.stack_bytes()
        return outputs

    def go_on(self, x: Array) -> list[Array]:
        """Run further steps uncounted, many in a call."""
        outputs = []
        for start in range(0, len(x), self.chunk):
            part = x[start : start + self.chunk]
            self.machine.write(self.many.x, part.tobytes())
            self._run(len(part))
            self.spent += len(part) * self.per_step
            outputs.append(self._output(self.many, len(part)))
        return outputs

    def _run(self, steps: int) -> None:
        if self._call("run", self.many.state, self.many.x, steps, self.many.y):
            raise MismatchError(f"{self.package.name}_run: refused {steps} steps")

    def whole(self, x: Array) -> list[Array]:
        """Run a sequence that does not stream; the first is counted, as a mean over its steps."""
        self._call("reset", self.many.state)
        self.machine.write(self.many.x, x.tobytes())
        if self.counted:
            self._run(len(x))
        else:
            places = (self.many.state, self.many.x, len(x), self.many.y)
            block = self.machine.count(f"{self.package.name}_run", *places)
            each = Block(round(block.instructions / len(x)), round(block.cycles / len(x)))
            self.counted.append(each)
            self.stack_bytes = self.machine.stack_bytes()
        self.spent += len(x) * self.per_step
        return [self._output(self.many, len(x))]

    def _output(self, place: _Places, steps: int) -> Array:
        port = self.package.output
        rows = steps if self.package.writes_every_step else 1
        data = self.machine.read(place.y, rows * port.step_bytes)
        return np.frombuffer(data, port.dtype).reshape(rows, port.values).copy()

    def selftest(self) -> bool:
        """Run the package's own test on its state."""
        return self._call("selftest", self.many.state) == 0

"""A value that is kept from step to step: read where a step begins, written where it ends.

In a ``.tflite`` it is a variable tensor. Between the two stand ops of one step each, which
``step_loop`` runs step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_lstm.arrays import I64, Array
from edge_lstm.program import Kernel, Op, Program, StatelessKernel
from edge_lstm.spec import check_shape


@dataclass(frozen=True, eq=False, repr=False)
class ReadStateOp(Op):
    """Gives the value of the step before; its output is the state.

    Args:
        initial: of the output's type, [size]: before the first step.
    """

    type_name: ClassVar[str] = "read_state"

    initial: Array

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        state = program.tensors[self.output]
        check_shape(self.name, "initial", self.initial, (state.signal.size,))
        return StateKernel(self.initial.astype(state.dtype), batch_size)


@dataclass(frozen=True, eq=False, repr=False)
class WriteStateOp(Op):
    """Keeps its input for the next step; its output is the tensor that a ReadStateOp gives."""

    type_name: ClassVar[str] = "write_state"

    def prepare(self, program: Program, batch_size: int) -> Kernel:
        del program, batch_size
        return WriteStateKernel()


class StateKernel:
    """One state, [batch, 1, size]."""

    def __init__(self, initial: Array, batch_size: int) -> None:
        self._initial = np.tile(initial, (batch_size, 1, 1))
        self.value = self._initial

    @property
    def state(self) -> dict[str, Array]:
        """The value behind the last step, [batch, size]."""
        return {"value": self.value[:, 0].copy()}

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Set the value."""
        self.value = np.array(state["value"])[:, None]

    def reset(self) -> None:
        """Set the value to the one before the first step."""
        self.value = self._initial

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the value."""
        del inputs, lengths
        return self.value

    def step(self, x: Array) -> Array:
        """Return the value."""
        del x
        return self.value


class WriteStateKernel(StatelessKernel):
    """Passes on what is to be kept."""

    def run(self, inputs: Sequence[Array], lengths: I64 | None) -> Array:
        """Return the input."""
        del lengths
        return inputs[0]

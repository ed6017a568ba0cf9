"""The plain (Elman) RNN in float."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import F32, F64, Array
from edge_lstm.cells.functions import TANH, Function
from edge_lstm.cells.lstm import Gate
from edge_lstm.cells.recurrent import Recurrent, clipped
from edge_lstm.cells.step_graph import quantize_rnn
from edge_lstm.program import ProgramBuilder
from edge_lstm.spec import FloatRun, check_shape


@dataclass(frozen=True, eq=False, repr=False)
class Rnn(Recurrent):
    """``h = function(W x + R h + bias)``; gives every step: [batch, time, hidden].

    Args:
        gate: the weights.
        initial_hidden: [hidden], or None for zeros.
        function: tanh, relu or another.
        clip: bound of the pre-activations, as in ONNX, or None.
    """

    gate: Gate
    initial_hidden: F32 | None = None
    function: Function = TANH
    clip: float | None = None

    def __post_init__(self) -> None:
        self.gate.check(self.name, "weights", self.output_size, self.input_size, self.output_size)
        if self.initial_hidden is not None:
            check_shape(self.name, "initial_hidden", self.initial_hidden, (self.output_size,))

    @property
    def hidden_size(self) -> int:
        """Number of cells."""
        return len(self.gate.bias)

    @property
    def input_size(self) -> int:
        return int(self.gate.input_weights.shape[-1])

    @property
    def output_size(self) -> int:
        return self.hidden_size

    def _arrays(self) -> Iterator[Array]:
        yield from self.gate.arrays()
        if self.initial_hidden is not None:
            yield self.initial_hidden

    def forward(self, x: F64, run: FloatRun) -> F64:
        recurrent = self.gate.recurrent_weights.astype(np.float64)
        hidden = self.first_state(run, "hidden", self.initial_hidden, self.hidden_size)
        valid = run.valid(x.shape[1])
        from_input = x @ self.gate.input_weights.astype(np.float64).T
        from_input += self.gate.bias.astype(np.float64)
        outputs, pre_activations = np.zeros_like(from_input), np.empty_like(from_input)
        products = np.empty_like(from_input)
        for step in range(x.shape[1]):
            products[:, step] = hidden @ recurrent.T
            pre = clipped(from_input[:, step] + products[:, step], self.clip)
            keep = valid[:, step, None]
            hidden = np.where(keep, self.function(pre), hidden)
            outputs[:, step] = np.where(keep, hidden, 0.0)
            pre_activations[:, step] = pre
        run.state[f"{self.name}.hidden"] = hidden
        run.note(f"{self.name}.gate_input", from_input)
        run.note(f"{self.name}.gate_recurrent", products)
        run.note(f"{self.name}.gate", pre_activations)
        run.note(f"{self.name}.output", outputs)
        return outputs

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        return quantize_rnn(self, builder, source)

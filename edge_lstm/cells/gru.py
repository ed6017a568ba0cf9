"""GRU in float: update, reset and candidate, with the reset before or after the product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import F32, F64, Array
from edge_lstm.cells.functions import SIGMOID, TANH, Function
from edge_lstm.cells.lstm import Gate
from edge_lstm.cells.recurrent import Recurrent, clipped
from edge_lstm.cells.step_graph import quantize_gru
from edge_lstm.program import ProgramBuilder
from edge_lstm.spec import FloatRun, check_shape

GRU_GATES = ("update", "reset", "candidate")


@dataclass(frozen=True, eq=False, repr=False)
class Gru(Recurrent):
    """The GRU: ``h = (1 - z) * n + z * h_before``; gives every step: [batch, time, hidden].

    Args:
        gates: update z, reset r, candidate n. Their two biases are summed, but for the
            candidate's recurrent one when the reset comes after the product.
        candidate_recurrent_bias: [hidden], only with ``reset_after``; None: zeros.
        reset_after: whether r multiplies ``R h + bias`` (PyTorch, Keras's default, ONNX's
            linear_before_reset=1) or h itself (Keras's reset_after=False, ONNX's default).
        initial_hidden: [hidden], or None for zeros.
        functions: of the gates z and r, and of the candidate.
        clip: bound of the pre-activations, as in ONNX, or None.
    """

    gates: tuple[Gate, Gate, Gate]
    candidate_recurrent_bias: F32 | None = None
    reset_after: bool = True
    initial_hidden: F32 | None = None
    functions: tuple[Function, Function] = (SIGMOID, TANH)
    clip: float | None = None

    def __post_init__(self) -> None:
        hidden, features = self.hidden_size, self.input_size
        for word, gate in zip(GRU_GATES, self.gates, strict=True):
            gate.check(self.name, f"{word} gate", hidden, features, hidden)
        for field in ("candidate_recurrent_bias", "initial_hidden"):
            if getattr(self, field) is not None:
                check_shape(self.name, field, getattr(self, field), (hidden,))
        if self.candidate_recurrent_bias is not None and not self.reset_after:
            raise self._refuse(
                "has a recurrent bias of the candidate beside a reset before the product",
                "sum it into the candidate's bias",
            )

    @property
    def hidden_size(self) -> int:
        """Number of cells."""
        return len(self.gates[0].bias)

    @property
    def input_size(self) -> int:
        return int(self.gates[0].input_weights.shape[-1])

    @property
    def output_size(self) -> int:
        return self.hidden_size

    def _arrays(self) -> Iterator[Array]:
        for gate in self.gates:
            yield from gate.arrays()
        given = (self.candidate_recurrent_bias, self.initial_hidden)
        yield from (v for v in given if v is not None)

    def forward(self, x: F64, run: FloatRun) -> F64:
        size = self.hidden_size
        weights = np.concatenate([g.input_weights for g in self.gates]).astype(np.float64)
        recurrent = np.concatenate([g.recurrent_weights for g in self.gates]).astype(np.float64)
        bias = np.concatenate([g.bias for g in self.gates]).astype(np.float64)
        extra = np.zeros(size)
        if self.candidate_recurrent_bias is not None:
            extra = self.candidate_recurrent_bias.astype(np.float64)
        gate, squash = self.functions
        hidden = self.first_state(run, "hidden", self.initial_hidden, size)
        valid = run.valid(x.shape[1])
        from_input = x @ weights.T + bias
        outputs, pre_activations = np.zeros((*x.shape[:2], size)), np.empty_like(from_input)
        products = np.empty_like(from_input)
        for step in range(x.shape[1]):
            products[:, step, : 2 * size] = hidden @ recurrent[: 2 * size].T
            both = clipped(
                from_input[:, step, : 2 * size] + products[:, step, : 2 * size], self.clip
            )
            z, r = gate(both[:, :size]), gate(both[:, size:])
            fed = hidden if self.reset_after else r * hidden
            product = fed @ recurrent[2 * size :].T + extra
            products[:, step, 2 * size :] = product
            if self.reset_after:
                product = r * product
            candidate = clipped(from_input[:, step, 2 * size :] + product, self.clip)
            keep = valid[:, step, None]
            hidden = np.where(keep, (1.0 - z) * squash(candidate) + z * hidden, hidden)
            outputs[:, step] = np.where(keep, hidden, 0.0)
            pre_activations[:, step, : 2 * size] = both
            pre_activations[:, step, 2 * size :] = candidate
        run.state[f"{self.name}.hidden"] = hidden
        for k, word in enumerate(GRU_GATES):
            part = slice(k * size, (k + 1) * size)
            run.note(f"{self.name}.{word}_input", from_input[:, :, part])
            run.note(f"{self.name}.{word}_recurrent", products[:, :, part])
            run.note(f"{self.name}.{word}_gate", pre_activations[:, :, part])
        run.note(f"{self.name}.output", outputs)
        return outputs

    def quantize(self, builder: ProgramBuilder, source: int) -> int:
        return quantize_gru(self, builder, source)

"""GRU and plain RNN as graphs of primitive integer ops, which every TFLite runtime has.

TFLM has no GRU. The hidden state and all values of a step are int16, since an update such as
``h += z * ...`` moves by less than a step of int8; the weights are int8. Scales are chosen so that
TFLM and LiteRT multiply alike: products have power-of-two factors, and what sigmoid and tanh are
fed has another scale, for which LiteRT takes the kernel that TFLM has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_lstm.arrays import F32
from edge_lstm.cells.activation import ActivationOp, Kind
from edge_lstm.cells.activation_s16 import OUTPUT_SCALE
from edge_lstm.cells.add_op import AddOp, SubOp
from edge_lstm.cells.dense import DenseOp, FusedActivation
from edge_lstm.cells.functions import RELU, SIGMOID, TANH
from edge_lstm.cells.mul_op import MulOp
from edge_lstm.cells.quantize_op import QuantizeOp
from edge_lstm.cells.state_op import ReadStateOp, WriteStateOp
from edge_lstm.cells.weights import quantize_bias, quantize_weights
from edge_lstm.errors import UnsupportedModel
from edge_lstm.program import ProgramBuilder, Tensor, symmetric_scale
from edge_lstm.spec import Signal

if TYPE_CHECKING:
    from edge_lstm.cells.gru import Gru
    from edge_lstm.cells.rnn import Rnn

# The interpolation table of sigmoid ends at 255 / 24 = 10.7, that of tanh before.
GATE_BOUND = 12.0
HEADROOM = 2.0
"""How much further than calibration saw a value of 16 bits reaches."""
LEAST_BOUND = 1.0  # of values that calibration saw near 0: 2^-15 is fine enough for a gate
WIDENED = 2.0**-7
"""An int8 value less its zero point, at most 255, fits int16 when shifted left by 7."""


class _Graph:
    """The ops of one layer, each of which gives int16 values of its hidden size.

    Args:
        name: of the layer.
        size: cells.
    """

    def __init__(self, builder: ProgramBuilder, name: str, size: int) -> None:
        self.builder, self.name = builder, name
        self.signal = Signal("sequence", size)

    def tensor(self, what: str, scale: float) -> int:
        return self.builder.add_tensor(
            Tensor(f"{self.name}_{what}.output", self.signal, "int16", scale)
        )

    def scale_of(self, index: int) -> float:
        return self.builder.tensors[index].scale

    def seen_scale(self, what: str) -> float:
        """Return a scale for what calibration saw under ``<name>.<what>``, with headroom."""
        name = f"{self.name}.{what}"
        bound = max(self.builder.range(name).magnitude * HEADROOM, LEAST_BOUND)
        return symmetric_scale(bound, 32767, name)

    def widened(self, source: int) -> int:
        """Return an int16 copy of the layer's input, to the last bit."""
        value = self.builder.tensors[source]
        if value.dtype == "int16":
            return source
        wide = Tensor(f"{self.name}_wide.output", value.signal, "int16", value.scale * WIDENED)
        output = self.builder.add_tensor(wide)
        return self.builder.add_op(QuantizeOp(f"{self.name}_wide", (source,), output))

    def narrowed(self, hidden: int) -> int:
        """Return the layer's output of the type that the model has."""
        if self.builder.activation_dtype == "int16":
            return hidden
        output = self.builder.activation(f"{self.name}.output", self.signal)
        return self.builder.add_op(QuantizeOp(self.name, (hidden,), output))

    def state(self, scale: float, initial: F32 | None) -> int:
        """Return the hidden state of the step before."""
        output = self.tensor("state", scale)
        start = np.zeros(self.signal.size, np.float32) if initial is None else initial
        integers = self.builder.tensors[output].quantize(start)
        return self.builder.add_op(ReadStateOp(f"{self.name}_state", (), output, integers))

    def keep(self, hidden: int, state: int) -> None:
        self.builder.add_op(WriteStateOp(f"{self.name}_state_next", (hidden,), state))

    def product(self, what: str, source: int, weights: F32, bias: F32 | None) -> int:
        """Return ``weights @ source + bias``, scaled for what calibration saw."""
        integers, scale = quantize_weights(weights, f"layer {self.name!r}, {what}")
        values = np.zeros(len(weights), np.float32) if bias is None else bias
        op = DenseOp(
            name=f"{self.name}_{what}",
            inputs=(source,),
            output=self.tensor(what, self.seen_scale(what)),
            weights=integers,
            bias=quantize_bias(values, self.scale_of(source), scale, wide=True),
            weight_scales=np.array([scale], np.float32),
        )
        return self.builder.add_op(op)

    def add(
        self, what: str, left: int, right: int, scale: float, activation: FusedActivation = "none"
    ) -> int:
        output = self.tensor(what, scale)
        op = AddOp(f"{self.name}_{what}", (left, right), output, activation)
        return self.builder.add_op(op)

    def subtract(self, what: str, left: int, right: int, scale: float) -> int:
        output = self.tensor(what, scale)
        return self.builder.add_op(SubOp(f"{self.name}_{what}", (left, right), output))

    def multiply(self, what: str, left: int, right: int, scale: float) -> int:
        output = self.tensor(what, scale)
        return self.builder.add_op(MulOp(f"{self.name}_{what}", (left, right), output))

    def squash(self, what: str, kind: Kind, source: int) -> int:
        output = self.tensor(what, OUTPUT_SCALE)
        return self.builder.add_op(ActivationOp(f"{self.name}_{what}", (source,), output, kind))


def gate_scale(clip: float | None) -> float:
    """Return the scale of what sigmoid and tanh are fed; it saturates where they do, or clips."""
    bound = GATE_BOUND if clip is None else min(clip, GATE_BOUND)
    return symmetric_scale(bound, 32767, "gate")


def quantize_gru(gru: Gru, builder: ProgramBuilder, source: int) -> int:
    """Add a GRU as primitive ops: ``h = n + z * (h - n)``; return its output's index."""
    if gru.functions != (SIGMOID, TANH):
        found = " and ".join(f.name for f in gru.functions)
        raise _refuse("GRU", gru.name, f"has the functions {found}", "sigmoid and tanh")
    _check_initial("GRU", gru.name, gru.initial_hidden)
    graph, summed = _Graph(builder, gru.name, gru.hidden_size), gate_scale(gru.clip)
    update, reset, candidate = gru.gates
    wide = graph.widened(source)
    from_input = [
        graph.product(f"{word}_input", wide, gate.input_weights, gate.bias)
        for word, gate in (("update", update), ("reset", reset), ("candidate", candidate))
    ]
    hidden = graph.state(OUTPUT_SCALE, gru.initial_hidden)

    def gate(word: str, part: int) -> int:
        weights = gru.gates[part].recurrent_weights
        recurrent = graph.product(f"{word}_recurrent", hidden, weights, None)
        total = graph.add(f"{word}_sum", from_input[part], recurrent, summed)
        return graph.squash(f"{word}_gate", "sigmoid", total)

    z, r = gate("update", 0), gate("reset", 1)
    weights, bias = candidate.recurrent_weights, gru.candidate_recurrent_bias
    if gru.reset_after:
        product = graph.product("candidate_recurrent", hidden, weights, bias)
        product = graph.multiply("candidate_kept", r, product, graph.scale_of(product))
    else:
        kept = graph.multiply("candidate_kept", r, hidden, OUTPUT_SCALE)
        product = graph.product("candidate_recurrent", kept, weights, None)
    total = graph.add("candidate_sum", from_input[2], product, summed)
    n = graph.squash("candidate_gate", "tanh", total)
    # Two values in [-1, 1] differ by up to 2.
    difference = graph.subtract("difference", hidden, n, 2 * OUTPUT_SCALE)
    share = graph.multiply("share", z, difference, 2 * OUTPUT_SCALE)
    after = graph.add("hidden", n, share, OUTPUT_SCALE)
    graph.keep(after, hidden)
    return graph.narrowed(after)


def quantize_rnn(rnn: Rnn, builder: ProgramBuilder, source: int) -> int:
    """Add a plain RNN as primitive ops; return its output's index."""
    if rnn.function not in (TANH, RELU):
        raise _refuse("RNN", rnn.name, f"has the function {rnn.function.name}", "tanh or relu")
    graph = _Graph(builder, rnn.name, rnn.hidden_size)
    wide = graph.widened(source)
    from_input = graph.product("gate_input", wide, rnn.gate.input_weights, rnn.gate.bias)
    if rnn.function == RELU and rnn.clip is None:
        scale = graph.seen_scale("output")
    elif rnn.function == RELU:
        scale = symmetric_scale(rnn.clip or LEAST_BOUND, 32767, rnn.name)
    else:
        _check_initial("RNN", rnn.name, rnn.initial_hidden)
        scale = OUTPUT_SCALE
    hidden = graph.state(scale, rnn.initial_hidden)
    recurrent = graph.product("gate_recurrent", hidden, rnn.gate.recurrent_weights, None)
    if rnn.function == RELU:
        after = graph.add("hidden", from_input, recurrent, scale, "relu")
    else:
        total = graph.add("gate_sum", from_input, recurrent, gate_scale(rnn.clip))
        after = graph.squash("hidden", "tanh", total)
    graph.keep(after, hidden)
    return graph.narrowed(after)


def _check_initial(kind: str, name: str, initial: F32 | None) -> None:
    if initial is not None and np.abs(initial).max(initial=0.0) > 1.0:
        found = f"starts from a state of {np.abs(initial).max():.3g}"
        raise _refuse(kind, name, found, "a state within -1 and 1")


def _refuse(kind: str, name: str, found: str, accepted: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"layer {name!r} ({kind.lower()}): {found}; {kind} in int8 must have {accepted}, or convert"
        " it in float with --quant float32 --to onnx"
    )

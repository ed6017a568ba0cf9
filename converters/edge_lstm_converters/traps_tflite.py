"""What a ``.tflite`` file does wrong without being refused, one trap a function.

A trap has the form of a rule: it returns None, or what it found; its docstring says what will
go wrong, and on which runtime. What it finds becomes one of ``Program.warnings``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from edge_lstm_converters.rules import sentence
from edge_lstm_converters.rules_tflite import (
    CELL_STATE,
    HIDDEN_INTERMEDIATE,
    HIDDEN_STATE,
    PROJECTION_WEIGHTS,
    RECURRENT_WEIGHTS,
    TfliteLstm,
)
from edge_lstm_converters.tflite_schema import TfliteModel, TfliteOperator, TfliteTensor

T = TypeVar("T")

# The kernels of TFLite have tanh for these exponents of the cell scale only.
TFLITE_CELL_POWERS = (-15, -9)
GATE_LIMIT = 8.0  # what int16 in Q3.12 ends at
GATE_WORDS = ("input", "forget", "cell", "output")
MOVERS = ("REVERSE_V2", "STRIDED_SLICE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE")


@dataclass(frozen=True)
class TfliteMove:
    """An operator that copies bytes from one tensor or several to another."""

    model: TfliteModel
    operator: TfliteOperator

    @property
    def output(self) -> TfliteTensor:
        """What it writes."""
        return self.model.tensors[self.operator.outputs[0]]


def notes(traps: Iterable[Callable[[T], str | None]], subject: T, where: str) -> list[str]:
    """Return a warning for each trap that ``subject`` is in."""
    found = [(_inside(sentence(trap)), trap(subject)) for trap in traps]
    return [f"{where}: {text}; {why}" for why, text in found if text is not None]


def _inside(text: str) -> str:
    """Return a sentence as it goes on after a semicolon; names keep their capitals."""
    return text[0].lower() + text[1:] if text[1].islower() else text


def cell_scale_without_tanh(lstm: TfliteLstm) -> str | None:
    """Outside 2^-15 to 2^-9 TFLite and LiteRT skip tanh and compute wrongly; TFLM is right."""
    tensor = lstm.tensor(CELL_STATE)
    assert tensor is not None
    low, high = TFLITE_CELL_POWERS
    power = round(math.log2(tensor.scales[0]))
    return None if low <= power <= high else f"cell state has scale 2^{power}"


def no_hidden_intermediate(lstm: TfliteLstm) -> str | None:
    """TFLite and LiteRT refuse a file without intermediate 4; TFLM runs it."""
    tensor = lstm.intermediate(HIDDEN_INTERMEDIATE)
    return "has no intermediate 4" if tensor is None else None


def two_hidden_scales(lstm: TfliteLstm) -> str | None:
    """TFLite and LiteRT compute with the first, TFLM and CMSIS-NN with the second: they differ."""
    product, hidden = lstm.intermediate(HIDDEN_INTERMEDIATE), lstm.tensor(HIDDEN_STATE)
    if product is None or hidden is None or lstm.tensor(PROJECTION_WEIGHTS) is not None:
        return None
    if _label(product) == _label(hidden):
        return None
    return f"intermediate 4 has {_label(product)}, the hidden state {_label(hidden)}"


def mislabelled_output(lstm: TfliteLstm) -> str | None:
    """On every runtime the layers after it read the hidden state by the output's label."""
    hidden, output = lstm.tensor(HIDDEN_STATE), lstm.model.tensors[lstm.operator.outputs[0]]
    if hidden is None or _label(hidden) == _label(output):
        return None
    return f"hidden state has {_label(hidden)}, the output that it becomes {_label(output)}"


def one_step_a_call(lstm: TfliteLstm) -> str | None:
    """TFLM with CMSIS-NN kernels starts each Invoke from zero state, so it remembers nothing."""
    tensor = lstm.tensor(0)
    assert tensor is not None
    steps = tensor.shape[0 if lstm.options.time_major else 1]
    return "the file takes one step a call" if steps == 1 else None


def recurrent_term_beyond_8(lstm: TfliteLstm) -> str | None:
    """TFLM saturates it at 8.0 by itself, CMSIS-NN and TFLite do not: beyond, outputs part."""
    hidden = lstm.tensor(HIDDEN_STATE)
    if hidden is None or len(hidden.scales) != 1:
        return None
    info, scale, zero_point = np.iinfo(hidden.dtype), hidden.scales[0], hidden.zero_points[0]
    # The hidden state is o * tanh(c), within [-1, 1], and half a unit of rounding.
    unit = math.floor(1 / scale) + 1
    low, high = max(info.min - zero_point, -unit), min(info.max - zero_point, unit)
    worst, word = 0.0, ""
    for gate in lstm.gates:
        tensor = lstm.tensor(RECURRENT_WEIGHTS[gate])
        if tensor is None or tensor.data is None or len(tensor.scales) != 1:
            continue
        weights = tensor.array().astype(np.int64)
        positive, negative = np.maximum(weights, 0).sum(axis=1), np.minimum(weights, 0).sum(axis=1)
        top = (positive * high + negative * low).max(initial=0)
        bottom = (positive * low + negative * high).min(initial=0)
        reach = float(max(top, -bottom)) * scale * tensor.scales[0]
        if reach > worst:
            worst, word = reach, GATE_WORDS[gate]
    if worst <= GATE_LIMIT:
        return None
    return f"the recurrent term of the {word} gate can reach {worst:.1f}"


def reversed_into_another_scale(move: TfliteMove) -> str | None:
    """REVERSE_V2 copies bytes: on every runtime what follows reads them by the wrong scale."""
    source = move.model.tensors[move.operator.inputs[0]]
    if _label(source) == _label(move.output):
        return None
    return f"reverses values in {_label(source)} into a tensor with {_label(move.output)}"


def halves_in_two_scales(move: TfliteMove) -> str | None:
    """CONCATENATION copies bytes: on every runtime one half of a Bidirectional is read wrongly."""
    producers = {o.outputs[0]: o for o in move.model.operators if o.outputs}
    for index in move.operator.inputs:
        operator = producers.get(index)
        for _ in move.model.operators:  # a damaged file can go round in circles
            if operator is None or operator.code not in MOVERS:
                break
            operator = producers.get(operator.inputs[0])
        if operator is None or operator.code != "UNIDIRECTIONAL_SEQUENCE_LSTM":
            continue
        hidden = TfliteLstm(move.model, operator, "tflm").tensor(HIDDEN_STATE)
        if hidden is not None and _label(hidden) != _label(move.output):
            return f"joins an LSTM's values in {_label(hidden)} under {_label(move.output)}"
    return None


LSTM_TRAPS: tuple[Callable[[TfliteLstm], str | None], ...] = (
    cell_scale_without_tanh,
    no_hidden_intermediate,
    two_hidden_scales,
    mislabelled_output,
    one_step_a_call,
    recurrent_term_beyond_8,
)
REVERSE_TRAPS: tuple[Callable[[TfliteMove], str | None], ...] = (reversed_into_another_scale,)
CONCAT_TRAPS: tuple[Callable[[TfliteMove], str | None], ...] = (halves_in_two_scales,)


def _label(tensor: TfliteTensor) -> str:
    """Return scale and zero point as text; float32 is exact in nine digits."""
    if len(tensor.scales) != 1 or tensor.zero_points[:1] == ():
        return "no scale"
    return f"scale {tensor.scales[0]:.9g}, zero point {tensor.zero_points[0]}"

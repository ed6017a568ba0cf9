"""LSTM and RNN operators of a float ``.tflite`` file as layers.

An operator for two directions is two of one direction; ``halves`` says where each has its inputs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_lstm.arrays import F32
from edge_lstm.cells import Function, Gate, Lstm, Rnn
from edge_lstm.cells.functions import RELU, SIGMOID, TANH
from edge_lstm.errors import UnsupportedModel
from edge_lstm_converters.float_weights import as_float32
from edge_lstm_converters.rules import check
from edge_lstm_converters.rules_tflite import (
    BIASES,
    INPUT_WEIGHTS,
    PEEPHOLES,
    PROJECTION_BIAS,
    PROJECTION_WEIGHTS,
    RECURRENT_WEIGHTS,
    TfliteLstm,
)
from edge_lstm_converters.rules_tflite_float import FLOAT_LSTM_RULES
from edge_lstm_converters.tflite_schema import ABSENT, TfliteModel, TfliteOperator, TfliteTensor
from edge_lstm_converters.tflite_tables import (
    ACTIVATIONS,
    BidirectionalLstmOptions,
    BidirectionalRnnOptions,
    SequenceLstmOptions,
    SequenceRnnOptions,
)

# Inputs of BIDIRECTIONAL_SEQUENCE_LSTM and _RNN: of each direction its first weights and the one
# behind its last, then its first state; and those that link it to another layer.
LSTM_PARTS, LSTM_AUXILIARY = (((1, 18), (35, 37)), ((18, 35), (37, 39))), range(39, 48)
RNN_PARTS, RNN_AUXILIARY = (((1, 4), (4, 5)), ((5, 8), (8, 9))), range(9, 12)
IDENTITY = Function("affine", 1.0, 0.0)
FUNCTIONS = {"none": IDENTITY, "relu": RELU, "tanh": TANH}


def halves(operator: TfliteOperator, where: str) -> tuple[TfliteOperator, TfliteOperator]:
    """Return a bidirectional operator as two that run in one direction, forward first.

    Raises:
        UnsupportedModel: it is fed another layer's values too.
    """
    is_lstm = operator.code == "BIDIRECTIONAL_SEQUENCE_LSTM"
    parts, auxiliary = (LSTM_PARTS, LSTM_AUXILIARY) if is_lstm else (RNN_PARTS, RNN_AUXILIARY)
    for position in auxiliary:
        if operator.inputs[position : position + 1] not in ((), (ABSENT,)):
            raise UnsupportedModel(
                f"{where}: input {position} is an auxiliary one; want one input for both directions"
            )
    options = operator.options
    own: SequenceLstmOptions | SequenceRnnOptions
    if is_lstm:
        given = options if isinstance(options, BidirectionalLstmOptions) else None
        given = given or BidirectionalLstmOptions()
        own = SequenceLstmOptions(
            given.fused_activation, given.cell_clip, given.projection_clip, given.time_major
        )
    else:
        found = options if isinstance(options, BidirectionalRnnOptions) else None
        found = found or BidirectionalRnnOptions()
        own = SequenceRnnOptions(found.time_major, found.fused_activation)
    ahead, back = (
        replace(
            operator,
            options=own,
            inputs=(
                *operator.inputs[:1],
                *operator.inputs[slice(*weights)],
                *operator.inputs[slice(*states)],
                *((ABSENT,) * 4 if is_lstm else ()),  # layer normalization
            ),
        )
        for weights, states in parts
    )
    return ahead, back


def float_lstm(model: TfliteModel, operator: TfliteOperator, where: str, name: str) -> Lstm:
    """Return the LSTM that an operator of one direction states.

    Raises:
        UnsupportedModel: it breaks a rule, or its shapes do not fit.
    """
    # The profile says how many inputs there must be; LiteRT's kernels run floats.
    lstm = TfliteLstm(model, operator, "litert")
    check(FLOAT_LSTM_RULES, lstm, where)

    def weights(position: int) -> F32 | None:
        tensor = lstm.tensor(position)
        return None if tensor is None else _float32(tensor, where)

    gates = []
    for gate in range(4):
        # TFLite's coupled input gate is 1 - sigmoid(a) = sigmoid(-a) of the forget gate.
        source, sign = (1, np.float32(-1)) if lstm.coupled and gate == 0 else (gate, np.float32(1))
        own = [weights(p[source]) for p in (INPUT_WEIGHTS, RECURRENT_WEIGHTS, BIASES)]
        gates.append(Gate(*(sign * part for part in own if part is not None)))
    peepholes = [weights(position) for position in PEEPHOLES]
    if lstm.coupled and peepholes[1] is not None:
        peepholes[0] = -peepholes[1]
    given = [p for p in peepholes if p is not None]
    if len(given) not in (0, 3):
        raise UnsupportedModel(f"{where}: has {len(given)} peepholes; want all or none")
    shapes = {p.shape for p in given}
    if len(shapes) > 1:
        raise UnsupportedModel(f"{where}: its peepholes differ in size; want [cells] each")
    squash = FUNCTIONS[ACTIVATIONS[lstm.options.fused_activation]]
    projection = weights(PROJECTION_WEIGHTS)
    return Lstm(
        name=name,
        gates=(gates[0], gates[1], gates[2], gates[3]),
        peepholes=np.stack(given) if given else None,
        projection=projection,
        projection_bias=weights(PROJECTION_BIAS),
        functions=(SIGMOID, squash, squash),
        cell_clip=lstm.options.cell_clip or None,
        # Without a projection the kernels do not look at its clip.
        projection_clip=None if projection is None else lstm.options.projection_clip or None,
    )


def float_rnn(model: TfliteModel, operator: TfliteOperator, where: str, name: str) -> Rnn:
    """Return the RNN that an operator of one direction states.

    Raises:
        UnsupportedModel: its activation is unknown, or its shapes do not fit.
    """
    options = operator.options
    options = options if isinstance(options, SequenceRnnOptions) else SequenceRnnOptions()
    word = ACTIVATIONS.get(options.fused_activation, str(options.fused_activation))
    if word not in FUNCTIONS:
        raise UnsupportedModel(f"{where}: has fused activation {word}; want {', '.join(FUNCTIONS)}")
    if len(operator.inputs) != 5 or ABSENT in operator.inputs:
        raise UnsupportedModel(f"{where}: has not all of its 5 inputs; want weights and a state")
    _, *places, state = (model.tensors[index] for index in operator.inputs)
    if not state.is_variable or state.data is not None:
        raise UnsupportedModel(f"{where}: its state {state.name!r} is not variable; it must be")
    gate = Gate(*(_float32(tensor, where) for tensor in places))
    return Rnn(name, gate, function=FUNCTIONS[word])


def _float32(tensor: TfliteTensor, where: str) -> F32:
    """Return trained weights."""
    if tensor.data is None or tensor.dtype != "float32":
        found = tensor.dtype if tensor.data is not None else "no constant"
        raise UnsupportedModel(f"{where}: {tensor.name!r} is {found}; want float32 weights")
    return as_float32(f"{where}: {tensor.name!r}", tensor.array())
